// Has the clients that the documents name talk to each other in one room, each from its own place: `socket.io-client` over polls,
// over a WebSocket, and from these to that; `ws` in both dialects of WebSockets; and pages in Chromium, with a WebSocket and
// with Socket.IO.
//
// AMPHI_CLIENTS says where and as whom. Prints a line with each acknowledgement, and at last what each has been told.
const { readFileSync } = require("node:fs");
const { dirname, join } = require("node:path");
const { io } = require("socket.io-client");
const WebSocket = require("ws");
require("./talk.js");
const { openPage } = require("./chromium.js");

const { gateway, room, conversation, count, users } = JSON.parse(process.env.AMPHI_CLIENTS);
const total = count * users.length;
let acknowledged = 0;
const report = () => console.log(`acknowledged ${(acknowledged += 1)}`);
// Tests do not wait as long as people.
const QUICK = { reconnectionDelay: 100, reconnectionDelayMax: 500 };
const common = (user) => ({ room, conversation, own: user.name, count, total, report });

// Each of these prepares a client, and returns what has it talk.
const socketIo = (transports) => async (user) => () => {
  const socket = io(gateway, { ...QUICK, auth: { token: user.token }, transports, forceNew: true });
  return talkOverSocketIo({ ...common(user), socket });
};

const webSocket = (dialect, path) => async (user) => () => {
  const address = `${gateway.replace("http", "ws")}${path}?token=${user.token}`;
  return talkOverWebSocket({ ...common(user), dialect, open: () => new WebSocket(address) });
};

// In a page of the gateway's own, with the cookie that logging in there brings.
const inPage = (talk) => async (user) => {
  const page = await openPage(`${gateway}/healthz`, report);
  const { email, password } = user;
  const body = JSON.stringify({ user_email: email, user_password: password });
  const headers = { "content-type": "application/json" };
  const login = JSON.stringify({ method: "POST", headers, body });
  const status = await page.evaluate(`fetch("/api/v1/auth/login", ${login}).then((answer) => answer.status)`);
  if (status !== 200) throw new Error(`logging in is answered with ${status}`);
  await page.evaluate(readFileSync(join(__dirname, "talk.js"), "utf8"));
  // For pages, the package exports no module, but has a file.
  const bundle = join(dirname(require.resolve("socket.io-client/package.json")), "dist/socket.io.min.js");
  await page.evaluate(readFileSync(bundle, "utf8"));
  const options = JSON.stringify({ ...common(user), dialect: "rooms" });
  return async () => {
    const told = await page.evaluate(`${talk}({ ...${options}, report: () => report("") })`);
    await page.close();
    return told;
  };
};
const PAGE_WEBSOCKET = `((options) => talkOverWebSocket({
  ...options, open: () => new WebSocket(location.origin.replace("http", "ws") + "/api/v1/chat/ws"),
}))`;
const PAGE_SOCKET_IO = `((options) => talkOverSocketIo({ ...options, socket: io(location.origin, ${JSON.stringify(QUICK)}) }))`;

const KINDS = {
  "socket.io": socketIo(["polling", "websocket"]),
  "socket.io over a WebSocket": socketIo(["websocket"]),
  "socket.io over polls": socketIo(["polling"]),
  "ws in a room": webSocket("rooms", "/api/v1/chat/ws"),
  "ws in a conversation": webSocket("conversations", "/ws/chat"),
  "page with a WebSocket": inPage(PAGE_WEBSOCKET),
  "page with socket.io": inPage(PAGE_SOCKET_IO),
};

// So that Chromium ends with us.
process.once("SIGTERM", () => process.exit(1));
const talkToEachOther = async () => {
  // Nobody talks before all can: what serves them is killed while they talk, and a page has to be there first.
  const talks = await Promise.all(Object.values(KINDS).map((prepare, n) => prepare(users[n])));
  const kinds = Object.keys(KINDS);
  return Promise.all(talks.map(async (talk, n) => ({ kind: kinds[n], ...(await talk()) })));
};
talkToEachOther().then(
  (told) => console.log(JSON.stringify(told)),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
