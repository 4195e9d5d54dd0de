-- What 002 lists without a column: "sắp diễn ra" (upcoming) and "nổi bật" (featured); and who may see a stream.
alter table streams
    add column scheduled_at timestamptz,
    -- When followers of the list were told that it begins soon, for this schedule.
    add column soon_told_at timestamptz,
    add column featured boolean not null default false,
    -- public: in lists. unlisted: for those who know the playback id. private: for its owner.
    add column visibility text not null default 'public' check (visibility in ('public', 'unlisted', 'private')),
    -- Encoders come back by themselves: one that was sent away stays away until then.
    add column refused_until timestamptz,
    -- When followers were last told that it is live.
    add column followers_told_at timestamptz;

-- What the search looks for: words of title and description as they are written, whatever stands between them, and
-- however their accents are encoded.
create function words_of(title text, description text) returns tsvector
    language sql immutable parallel safe
    return to_tsvector('simple', normalize(translate(
        title || ' ' || coalesce(description, ''), $$./\:@_-&=?#+~%'"$$, repeat(' ', 16))));
create index streams_words_idx on streams using gin (words_of(title, description));

-- The orders of lists. The number of viewers is in no index: it changes with every viewer.
drop index streams_user_id_idx, streams_list_idx, streams_status_idx;
create index streams_public_idx on streams ((status = 'live') desc, id desc) where visibility = 'public';
create index streams_live_idx on streams (id desc) where status = 'live' and visibility = 'public';
create index streams_scheduled_idx on streams (scheduled_at, id desc);
create index streams_started_idx on streams (start_time desc nulls last, id desc);
create index streams_featured_idx on streams (id desc) where featured;
create index streams_user_id_idx on streams (user_id, id desc);
create index recordings_broadcast_id_idx on recordings (broadcast_id);

-- Keys to publish with, each stored as its SHA-256: a dump publishes nothing. A key that is revoked is deleted.
create table stream_keys (
    id bigint generated always as identity primary key,
    stream_id bigint not null references streams on delete cascade,
    -- What its owner calls it.
    name varchar(100) not null,
    key_hash bytea not null constraint stream_keys_key_hash_key unique,
    created_at timestamptz not null,
    last_used_at timestamptz
);
create index stream_keys_stream_id_idx on stream_keys (stream_id, id);

insert into stream_keys (stream_id, name, key_hash, created_at)
    select id, 'default', stream_key_hash, created_at from streams order by id;
alter table streams drop column stream_key_hash;

-- One connection of an encoder, from its first callback to its last. The encoder is known by the media server, its run,
-- and the number that it gave the connection.
create table publications (
    id bigint generated always as identity primary key,
    stream_id bigint not null references streams on delete cascade,
    broadcast_id bigint not null references broadcasts on delete cascade,
    -- The key that it came with, while that exists.
    key_id bigint references stream_keys on delete set null,
    media_server text not null,
    -- Which run of it: a restarted server numbers its connections anew.
    server_run text not null,
    client_id text not null,
    began_at timestamptz not null,
    last_seen_at timestamptz not null,
    ended_at timestamptz,
    end_reason text check ((ended_at is null) = (end_reason is null))
);
insert into publications
    (stream_id, broadcast_id, media_server, server_run, client_id, began_at, last_seen_at, ended_at, end_reason)
    select stream_id, id, media_server, server_run, client_id, started_at, last_seen_at, ended_at, end_reason
    from broadcasts order by id;
-- One encoder is on air per stream.
create unique index publications_on_air_key on publications (stream_id) where ended_at is null;
create index publications_heard_idx on publications (last_seen_at) where ended_at is null;
create index publications_connection_idx on publications (stream_id, client_id, id desc);
create index publications_broadcast_id_idx on publications (broadcast_id, id);

-- A broadcast is what viewers see: it goes on when its encoder comes back within the grace period.
alter table broadcasts
    drop column media_server,
    drop column server_run,
    drop column client_id,
    drop column last_seen_at,
    -- Off the air, but an encoder that comes back until then goes on with it.
    add column open_until timestamptz,
    -- When its end was told: from then on it is over for good.
    add column closed_at timestamptz,
    add column peak_viewers integer not null default 0,
    add column unique_viewers bigint not null default 0,
    -- By those who watch HLS; of players over RTMP only their number is known.
    add column watch_seconds bigint not null default 0;
update broadcasts set closed_at = ended_at;
-- A stream has one broadcast at a time that is not over.
drop index broadcasts_live_key;
create unique index broadcasts_open_key on broadcasts (stream_id) where closed_at is null;
create index broadcasts_to_close_idx on broadcasts (open_until) where closed_at is null;

-- Who plays over RTMP now: one row a connection. A player may come before the broadcast.
drop table viewers;
create table players (
    stream_id bigint not null references streams on delete cascade,
    media_server text not null,
    server_run text not null,
    client_id text not null,
    primary key (stream_id, media_server, server_run, client_id)
);

-- Watching over HLS, as the last count found it.
alter table streams add column hls_viewers integer not null default 0 check (hls_viewers >= 0);

-- What lists of streams are told as it happens, in the order of the commits: whoever inserts holds a lock until then.
create table feed (
    id bigint generated always as identity primary key,
    kind text not null,
    stream_id bigint not null,
    data jsonb not null,
    told_at timestamptz not null
);

-- The last calls of media servers, without keys and secrets, each with what came of it.
create table webhook_calls (
    id bigint generated always as identity primary key,
    received_at timestamptz not null,
    -- Which dialect: nginx-rtmp, srs, mediamtx, documented. Null if it was not even read.
    dialect text,
    media_server text not null,
    server_run text not null,
    client_address text,
    -- The media server's own word for what happened.
    call text not null,
    -- As it came, redacted.
    fields jsonb not null,
    -- As it was understood, to try it again; null if it was not.
    understood jsonb,
    stream_id bigint,
    -- What the media server was answered.
    status smallint not null,
    verdict text not null,
    -- Heartbeats and the like: there are so many that they are counted by themselves, and push out only each other.
    is_routine boolean not null
);
create index webhook_calls_stream_id_idx on webhook_calls (stream_id, id desc);
create index webhook_calls_routine_idx on webhook_calls (is_routine, id desc);

-- Who follows a channel, that is all streams of a user.
create table follows (
    channel_id uuid not null,
    user_id uuid not null,
    -- Whether to be told by mail.
    by_mail boolean not null,
    followed_at timestamptz not null,
    primary key (channel_id, user_id)
);
create index follows_user_id_idx on follows (user_id, followed_at desc);

-- Followers still to be told that a broadcast began: those after this one, in the order of their ids.
create table notices (
    broadcast_id bigint primary key references broadcasts on delete cascade,
    stream_id bigint not null references streams on delete cascade,
    after_user_id uuid,
    created_at timestamptz not null
);

-- The live picture, one a stream, taken every now and then.
create table thumbnails (
    stream_id bigint primary key references streams on delete cascade,
    jpeg bytea,
    -- Null while none was taken.
    taken_at timestamptz,
    -- Whoever takes the next says so first, by moving this on.
    due_at timestamptz not null
);
