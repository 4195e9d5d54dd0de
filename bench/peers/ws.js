// The least that a chat with ws is: what one client says, all are told. PORT is where it listens.
import { WebSocketServer } from 'ws';

const server = new WebSocketServer({ port: Number(process.env.PORT), host: '127.0.0.1', perMessageDeflate: false });
server.on('connection', (socket) => {
  socket.on('message', (message) => {
    for (const client of server.clients) client.send(message, { binary: false });
  });
});
