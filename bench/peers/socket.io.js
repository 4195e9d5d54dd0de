// The least that a chat with Socket.IO is: what one client says, all in the room are told. PORT is where it listens.
import { createServer } from 'node:http';
import { Server } from 'socket.io';

const http = createServer();
const io = new Server(http, { serveClient: false, transports: ['websocket'] });
io.on('connection', (socket) => {
  socket.on('join', ({ roomId }, answer) => {
    socket.join(String(roomId));
    answer?.({ roomId });
  });
  socket.on('chat_message', (message, answer) => {
    io.to(String(message.roomId)).emit('chat_message', message);
    answer?.({});
  });
});
http.listen(Number(process.env.PORT), '127.0.0.1');
