alter table rooms
    -- Whose chat it is.
    add column stream_id bigint constraint rooms_stream_id_key unique,
    -- The stream's newest broadcast that we know of: what is told of an older one comes too late.
    add column broadcast_id bigint,
    -- Since when nothing is said in it; it can still be read.
    add column closed_at timestamptz;
