alter table rooms
    drop column stream_id,
    drop column broadcast_id,
    drop column closed_at;
