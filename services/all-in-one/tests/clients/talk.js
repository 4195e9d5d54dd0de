// A client that says `count` things in a room, hears all `total` that are said there, and comes back by itself. It runs in Node
// and in a page. Each returns { heard, acknowledged } once that is done, and fails where something is lost or out of order.

// What is refused for a while is sent again, as is what was sent before the room was joined anew.
const AGAIN = ["unavailable", "too-busy", "not-joined"];
const PAUSE_MS = 100;
// What is not answered by then is asked again.
const PATIENCE_MS = 3000;

// What a client has, whatever it speaks.
function transcript({ own, count, total, report }) {
  const heard = [];
  const acknowledged = {};
  let end;
  const ended = new Promise((resolve, reject) => (end = { resolve, reject }));
  const look = () => {
    if (heard.length === total && Object.keys(acknowledged).length === count) end.resolve({ heard, acknowledged });
  };
  return {
    ended,
    fail: (why) => end.reject(new Error(`${own}: ${why}`)),
    names: Array.from({ length: count }, (_, n) => `${own}-${n + 1}`),
    has: () => heard.length,
    isAcknowledged: (name) => name in acknowledged,
    hear(message) {
      // A room that is joined twice, as the first answer was late, tells twice.
      if (heard[message.seq - 1]?.id === message.id) return;
      if (message.seq !== heard.length + 1) {
        end.reject(new Error(`${own} has ${heard.length} and hears ${JSON.stringify(message)}`));
      }
      heard.push(message);
      look();
    },
    acknowledge(name, seq) {
      if ((acknowledged[name] ?? seq) !== seq) end.reject(new Error(`${name} is ${acknowledged[name]} and ${seq}`));
      if (!(name in acknowledged)) report();
      acknowledged[name] = seq;
      look();
    },
  };
}

// How 003 and 004 say it.
const DIALECTS = {
  rooms: ({ room }) => ({
    join: (since) => ({ type: "join_room", room_id: room, since }),
    send: (name, content) => ({ type: "send_message", room_id: room, content, client_message_id: name }),
    read: (said) => ({
      name: said.client_message_id,
      message: said.data && {
        seq: said.seq,
        id: said.message_id,
        name: said.client_message_id,
        sender: said.user_uuid,
        sender_name: said.data.user_fullname,
        content: said.content,
      },
    }),
    message: "new_message",
    isOpen: true,
  }),
  conversations: ({ conversation }) => ({
    join: (since) => ({ type: "resume", since: { [conversation]: since } }),
    send: (name, content) => ({ type: "message", conversationId: conversation, content, clientMessageId: name }),
    read: (said) => ({
      name: said.clientMessageId,
      message: said.message && {
        seq: said.message.seq,
        id: said.message.id,
        name: said.message.clientMessageId,
        sender: said.message.senderId,
        sender_name: said.message.senderName,
        content: said.message.content,
      },
    }),
    message: "message",
    // It is `connected` first.
    isOpen: false,
  }),
};

// `open` makes a WebSocket. Several messages are on their way at once.
globalThis.talkOverWebSocket = async (options) => {
  const state = transcript(options);
  const dialect = DIALECTS[options.dialect](options);
  let isDone = false;
  let socket;
  function connect() {
    let isJoined = false;
    const underway = new Set();
    const say = (value) => socket.readyState === 1 && socket.send(JSON.stringify(value));
    const write = () => {
      if (!isJoined) return;
      for (const name of state.names.filter((name) => !state.isAcknowledged(name)).slice(0, 4)) {
        if (underway.has(name)) continue;
        underway.add(name);
        say(dialect.send(name, `content of ${name}`));
      }
    };
    socket = options.open();
    socket.onerror = () => {};
    socket.onopen = () => dialect.isOpen && say(dialect.join(state.has()));
    socket.onclose = () => isDone || setTimeout(connect, PAUSE_MS);
    socket.onmessage = ({ data }) => {
      const said = JSON.parse(data);
      const { name, message } = dialect.read(said);
      switch (said.type) {
        case "connected":
          say(dialect.join(state.has()));
          break;
        case "joined":
          if (said.recovered !== true) state.fail(`had ${state.has()}, and is told to load anew`);
          isJoined = true;
          write();
          break;
        case dialect.message:
          // Before the room is joined it is told again.
          if (isJoined) state.hear(message);
          break;
        case "ack":
          state.acknowledge(name, said.seq);
          write();
          break;
        case "error":
          if (!AGAIN.includes(said.code)) state.fail(data);
          underway.delete(name);
          setTimeout(name ? write : () => socket.close(), PAUSE_MS);
          break;
      }
    };
  }
  connect();
  const told = await state.ended;
  isDone = true;
  socket.close();
  return told;
};

// `socket` is one of socket.io-client, which connects again by itself. One message at a time is on its way.
globalThis.talkOverSocketIo = async (options) => {
  const { room, socket } = options;
  const state = transcript(options);
  const begin = socket.io.engine.transport.name;
  let isJoined = false;
  let isUnderway = false;
  const ask = (event, value, answered) => socket.timeout(PATIENCE_MS).emit(event, { roomId: room, ...value }, answered);
  const join = () =>
    ask("join", { since: state.has() }, (error, answer) => {
      if (!socket.connected) return;
      isJoined = answer?.recovered === true;
      if (isJoined) write();
      else if (error || AGAIN.includes(answer.error?.code)) setTimeout(join, PAUSE_MS);
      else state.fail(JSON.stringify(answer));
    });
  const write = () => {
    const name = state.names.find((name) => !state.isAcknowledged(name));
    if (!isJoined || isUnderway || !name) return;
    isUnderway = true;
    ask("chat_message", { message: `content of ${name}`, clientMessageId: name }, (error, answer) => {
      isUnderway = false;
      if (answer?.seq) state.acknowledge(name, answer.seq);
      else if (!error && !AGAIN.includes(answer.error?.code)) state.fail(JSON.stringify(answer));
      setTimeout(write, answer?.seq ? 0 : PAUSE_MS);
    });
  };
  socket.on("connect", join);
  socket.on("disconnect", () => (isJoined = false));
  socket.on("connect_error", (error) => error.data?.code && state.fail(error.data.code));
  socket.on("error", (error) => state.fail(JSON.stringify(error)));
  socket.on("chat_message", ({ seq, messageId, clientMessageId, userId, userName, message }) =>
    state.hear({ seq, id: messageId, name: clientMessageId, sender: userId, sender_name: userName, content: message }),
  );
  const told = await state.ended;
  const transports = [begin, socket.io.engine.transport.name];
  socket.disconnect();
  return { ...told, transports };
};
