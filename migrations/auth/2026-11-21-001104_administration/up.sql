alter table users
    -- Null: active.
    add column user_suspended_at timestamptz,
    add column user_suspended_reason varchar(500),
    -- When the last token expires that may have another role than the user has. Null: there is none.
    add column user_role_told_until timestamptz;

-- Few at a time.
create index users_user_role_told_until_idx on users (user_role_told_until) where user_role_told_until is not null;
create index users_user_created_at_idx on users (user_created_at, user_uuid);
