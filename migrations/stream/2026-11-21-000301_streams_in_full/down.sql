drop table thumbnails, notices, follows, webhook_calls, feed, players;

create table viewers (
    broadcast_id bigint not null references broadcasts on delete cascade,
    media_server text not null,
    server_run text not null,
    client_id text not null,
    primary key (broadcast_id, media_server, server_run, client_id)
);

drop index broadcasts_open_key, broadcasts_to_close_idx;
alter table broadcasts
    add column media_server text not null default '',
    add column server_run text not null default '',
    add column client_id text not null default '',
    add column last_seen_at timestamptz not null default now(),
    drop column open_until,
    drop column closed_at,
    drop column peak_viewers,
    drop column unique_viewers,
    drop column watch_seconds;
create unique index broadcasts_live_key on broadcasts (stream_id) where ended_at is null;
drop table publications;

alter table streams add column stream_key_hash bytea;
update streams set stream_key_hash =
    coalesce((select key_hash from stream_keys where stream_id = streams.id order by id limit 1), sha256(convert_to(playback_id::text, 'UTF8')));
alter table streams alter column stream_key_hash set not null;
alter table streams add constraint streams_stream_key_hash_key unique (stream_key_hash);
drop table stream_keys;

drop index streams_words_idx, streams_started_idx, streams_user_id_idx, recordings_broadcast_id_idx;
drop function words_of;
alter table streams
    drop column scheduled_at,
    drop column soon_told_at,
    drop column featured,
    drop column visibility,
    drop column refused_until,
    drop column followers_told_at,
    drop column hls_viewers;

create index streams_user_id_idx on streams (user_id);
create index streams_list_idx on streams ((status = 'live') desc, id desc);
create index streams_status_idx on streams (status, id desc);
