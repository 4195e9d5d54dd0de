-- A new key is published before it signs, and an old one until the last token that it signed has expired.
alter table signing_keys
    add column key_signs_from timestamptz,
    -- When nobody needs it any more. Null: it is not replaced yet.
    add column key_retires_at timestamptz;

update signing_keys set key_signs_from = key_created_at;

alter table signing_keys alter column key_signs_from set not null;
