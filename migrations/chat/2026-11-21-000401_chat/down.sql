drop table messages, room_members, rooms, users;
