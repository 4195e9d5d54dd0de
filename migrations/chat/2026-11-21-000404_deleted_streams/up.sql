-- Streams that are no more: what is told of one too late opens no room.
create table deleted_streams (stream_id bigint primary key);
