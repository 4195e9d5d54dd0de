alter table rooms
    -- Whether one joins it by its id; a group that is not public is joined with its code.
    add column is_public boolean not null default false;

-- Who has left a room by themselves: they may come back without its code.
create table former_members (
    room_id bigint not null references rooms on delete cascade,
    user_uuid uuid not null,
    primary key (room_id, user_uuid)
);
create index former_members_user_uuid_idx on former_members (user_uuid);

update rooms set is_public = true where kind = 'stream';
