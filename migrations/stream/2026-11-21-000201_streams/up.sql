-- Names of users, as auth tells them (`auth.user.*`).
create table users (
    user_id uuid primary key,
    full_name varchar(100) not null
);

-- The table of 002, with the columns in snake case. The key is stored as its SHA-256: a dump publishes nothing.
create table streams (
    id bigint generated always as identity primary key,
    user_id uuid not null,
    stream_key_hash bytea not null constraint streams_stream_key_hash_key unique,
    -- What viewers ask for. Public, and not to be guessed from the id.
    playback_id uuid not null constraint streams_playback_id_key unique,
    title varchar(255) not null default '',
    description text,
    status text not null default 'ended' check (status in ('live', 'ended')),
    start_time timestamptz,
    end_time timestamptz,
    viewer_count integer not null default 0 check (viewer_count >= 0),
    thumbnail varchar(255),
    created_at timestamptz not null,
    updated_at timestamptz not null
);

create index streams_user_id_idx on streams (user_id);
-- The order of the list: live first, newest first.
create index streams_list_idx on streams ((status = 'live') desc, id desc);
create index streams_status_idx on streams (status, id desc);

-- One row for each time that a stream was on air. The encoder is known by the media server, its run, and the
-- number that it gave the connection.
create table broadcasts (
    id bigint generated always as identity primary key,
    stream_id bigint not null references streams on delete cascade,
    media_server text not null,
    -- Which run of it: a restarted server numbers its connections anew.
    server_run text not null,
    client_id text not null,
    started_at timestamptz not null,
    last_seen_at timestamptz not null,
    ended_at timestamptz,
    end_reason text check ((ended_at is null) = (end_reason is null))
);

-- A stream is on air once at a time.
create unique index broadcasts_live_key on broadcasts (stream_id) where ended_at is null;
create index broadcasts_stream_id_idx on broadcasts (stream_id, id desc);

-- Who plays over RTMP now: one row a connection.
create table viewers (
    broadcast_id bigint not null references broadcasts on delete cascade,
    media_server text not null,
    server_run text not null,
    client_id text not null,
    primary key (broadcast_id, media_server, server_run, client_id)
);

-- Files that the media server has recorded. It may tell of one twice.
create table recordings (
    id bigint generated always as identity primary key,
    broadcast_id bigint not null references broadcasts on delete cascade,
    media_server text not null,
    path text not null,
    ready_at timestamptz not null,
    constraint recordings_file_key unique (media_server, path)
);
