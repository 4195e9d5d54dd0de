// A page in headless Chromium, driven over its DevTools protocol. What it writes is in TMPDIR, and stays there.
const { spawn } = require("node:child_process");
const { mkdtempSync } = require("node:fs");
const { tmpdir } = require("node:os");
const { join } = require("node:path");
const WebSocket = require("ws");

const FLAGS = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--disable-dev-shm-usage",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--disable-breakpad",
  "--remote-debugging-port=0",
];

exports.openPage = async (address, onReport) => {
  const folder = mkdtempSync(join(tmpdir(), "chromium-"));
  const program = spawn(process.env.CHROMIUM, [...FLAGS, `--user-data-dir=${folder}`], {
    stdio: ["ignore", "ignore", "pipe"],
  });
  const exit = new Promise((resolve) => program.once("exit", resolve));
  process.once("exit", () => program.kill("SIGKILL"));
  let printed = "";
  const devtools = await new Promise((resolve, reject) => {
    program.once("error", reject);
    program.once("exit", (code) => reject(new Error(`Chromium ended with ${code}: ${printed}`)));
    program.stderr.on("data", (data) => {
      printed += data;
      const found = printed.match(/DevTools listening on (ws:\S+)/);
      if (found) resolve(found[1]);
    });
  });

  const socket = new WebSocket(devtools);
  await new Promise((resolve, reject) => socket.once("open", resolve).once("error", reject));
  const waiting = new Map();
  const events = new Map();
  let calls = 0;
  socket.on("message", (data) => {
    const { id, method, params, result, error } = JSON.parse(data);
    if (method === "Runtime.bindingCalled") onReport(params.payload);
    events.get(method)?.();
    if (!waiting.has(id)) return;
    const { resolve, reject } = waiting.get(id);
    waiting.delete(id);
    if (error) reject(new Error(error.message));
    else resolve(result);
  });
  const call = (method, params = {}, sessionId) =>
    new Promise((resolve, reject) => {
      calls += 1;
      waiting.set(calls, { resolve, reject });
      socket.send(JSON.stringify({ id: calls, method, params, sessionId }));
    });

  const { targetId } = await call("Target.createTarget", { url: "about:blank" });
  const { sessionId } = await call("Target.attachToTarget", { targetId, flatten: true });
  const inPage = (method, params) => call(method, params, sessionId);
  await inPage("Page.enable");
  await inPage("Page.setBypassCSP", { enabled: true });
  await inPage("Runtime.enable");
  await inPage("Runtime.addBinding", { name: "report" });
  const loaded = new Promise((resolve) => events.set("Page.loadEventFired", resolve));
  await inPage("Page.navigate", { url: address });
  await loaded;

  // What `expression` comes to; a promise is waited for.
  const evaluate = async (expression) => {
    const options = { expression, awaitPromise: true, returnByValue: true };
    const { result, exceptionDetails } = await inPage("Runtime.evaluate", options);
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    return result.value;
  };
  const close = async () => {
    await call("Browser.close");
    await exit;
  };
  return { evaluate, close };
};
