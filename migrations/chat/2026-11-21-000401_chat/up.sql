-- Names of users, as auth tells them (`auth.user.*`).
create table users (
    user_id uuid primary key,
    full_name varchar(100) not null
);

-- A room of 003, a conversation of 004, the chat of a stream of 002: one thing.
create table rooms (
    room_id bigint generated always as identity primary key,
    -- What 004 calls the room.
    conversation_id uuid not null constraint rooms_conversation_id_key unique,
    kind text not null check (kind in ('group', 'direct', 'stream')),
    -- What one joins with; only groups have one.
    room_code varchar(6) constraint rooms_room_code_key unique,
    room_name varchar(255) not null default '',
    avatar_url text,
    -- The two of a direct room, the smaller id first: they have one room together.
    direct_of text constraint rooms_direct_of_key unique,
    -- The number of the last message, from 1 without gaps.
    last_seq bigint not null default 0,
    room_created_by uuid,
    room_created_at timestamptz not null,
    room_updated_at timestamptz not null
);

create table room_members (
    room_id bigint not null references rooms on delete cascade,
    user_uuid uuid not null,
    member_role text not null check (member_role in ('owner', 'member')),
    -- Up to which message this member has read, and when that was said.
    last_read_seq bigint not null default 0,
    last_read_at timestamptz,
    room_member_created_at timestamptz not null,
    room_member_updated_at timestamptz not null,
    primary key (room_id, user_uuid)
);
create index room_members_user_uuid_idx on room_members (user_uuid, room_id);

create table messages (
    -- Rises within a room.
    message_id bigint generated always as identity primary key,
    room_id bigint not null references rooms on delete cascade,
    -- Within the room, from 1 without gaps.
    seq bigint not null,
    user_uuid uuid not null,
    kind text not null default 'text' check (kind in ('text', 'image', 'file', 'audio', 'video')),
    content text not null,
    file_url text,
    -- The sender's own name for it: sent twice, it is one message.
    client_message_id varchar(64),
    message_created_at timestamptz not null,
    constraint messages_room_id_seq_key unique (room_id, seq)
);
create unique index messages_client_message_id_key on messages (room_id, user_uuid, client_message_id)
    where client_message_id is not null;
