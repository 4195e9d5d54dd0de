-- What bench/streams measures on: 100,000 streams of 10,000 users, every 200th of them live. For psql, in the schema of the
-- stream service after its migrations. bench-streams knows the names of the keys, and which streams are live.
BEGIN;

INSERT INTO users (user_id, full_name)
    SELECT md5('user ' || n)::uuid, 'Streamer number ' || n FROM generate_series(1, 10000) AS n;

INSERT INTO streams (id, user_id, playback_id, title, description, status, start_time, end_time, viewer_count, thumbnail,
                     created_at, updated_at)
    OVERRIDING SYSTEM VALUE
    SELECT n, md5('user ' || n % 10000 + 1)::uuid, gen_random_uuid(),
           (ARRAY['Cooking', 'Chess', 'Guitar', 'Speedruns', 'Linear algebra', 'Phở at home', 'Morning talk'])[n % 7 + 1] || ', part ' || n,
           'What happens in part ' || n || ': we go on where we stopped the last time, and answer what you ask.',
           CASE WHEN is_live THEN 'live' ELSE 'ended' END,
           CASE WHEN is_live THEN now() ELSE made_at + interval '1 hour' END,
           CASE WHEN NOT is_live THEN made_at + interval '2 hours' END,
           CASE WHEN is_live THEN n % 977 ELSE 0 END,
           'https://cdn.example.org/thumbnails/' || n || '.jpg',
           made_at, made_at + interval '2 hours'
    FROM generate_series(1, 100000) AS n,
         LATERAL (SELECT n % 200 = 0 AS is_live, now() - (200000 - n) * interval '1 minute' AS made_at) AS more
    ORDER BY n;

INSERT INTO stream_keys (stream_id, name, key_hash, created_at)
    SELECT id, 'default', sha256(convert_to('bench-key-' || id, 'UTF8')), created_at FROM streams ORDER BY id;

INSERT INTO broadcasts (stream_id, started_at) SELECT id, start_time FROM streams WHERE status = 'live' ORDER BY id;

-- Of a media server's connection that has the number of its stream.
INSERT INTO publications (stream_id, broadcast_id, key_id, media_server, server_run, client_id, began_at, last_seen_at)
    SELECT b.stream_id, b.id, k.id, 'bench', '1', b.stream_id::text, b.started_at, b.started_at
    FROM broadcasts b JOIN stream_keys k USING (stream_id) ORDER BY b.id;

COMMIT;

VACUUM (FREEZE, ANALYZE);
