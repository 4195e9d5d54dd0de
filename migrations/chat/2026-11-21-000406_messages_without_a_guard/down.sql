alter table messages add constraint messages_room_id_fkey foreign key (room_id) references rooms on delete cascade;
