-- What bench/chat measures on: 5,000 users, the same in each of its rooms every time. For psql, in the schema of the chat
-- service after its migrations, in the folder where bench-chat has put `users`. bench-chat knows the numbers of the rooms.
BEGIN;

CREATE TEMP TABLE bench_users (n integer, user_id uuid);
\copy bench_users FROM 'users' (DELIMITER ' ')
INSERT INTO users (user_id, full_name) SELECT user_id, 'User number ' || n FROM bench_users ORDER BY n;

INSERT INTO rooms (room_id, conversation_id, kind, room_code, room_name, room_created_at, room_updated_at)
    OVERRIDING SYSTEM VALUE
    SELECT n, gen_random_uuid(), 'group', 'B' || lpad(n::text, 5, '0'), 'Room ' || n, now(), now() FROM generate_series(1, 102) AS n;

-- Fifty in each of the first hundred, and the first five hundred in each of the last two.
INSERT INTO room_members (room_id, user_uuid, member_role, room_member_created_at, room_member_updated_at)
    SELECT n % 100 + 1, user_id, 'member', now(), now() FROM bench_users
    UNION ALL
    SELECT room_id, user_id, 'member', now(), now() FROM bench_users, generate_series(101, 102) AS room_id WHERE n < 500;

SELECT setval(pg_get_serial_sequence('rooms', 'room_id'), 1000);

COMMIT;

VACUUM (FREEZE, ANALYZE);

-- Beside which messages are measured: one a statement, in a table like theirs, without what finds and guards them.
CREATE SCHEMA bench;
CREATE TABLE bench.messages (
    message_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    room_id bigint NOT NULL,
    user_uuid uuid NOT NULL,
    content text NOT NULL,
    message_created_at timestamptz NOT NULL
);
