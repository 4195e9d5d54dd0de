-- The secret is sealed with AMPHI_SECRET. It counts from `user_totp_enabled_at`; before, it waits for its first code.
alter table users
    add column user_totp_secret bytea,
    add column user_totp_enabled_at timestamptz,
    -- The step (30 s) of the last code that was accepted: it and those before are not accepted again.
    add column user_totp_last_step bigint not null default 0,
    add constraint users_user_totp_check check (user_totp_enabled_at is null or user_totp_secret is not null);

-- What opens an account instead of a code, once each. As SHA-256 of 80 random bits.
create table recovery_codes (
    user_uuid uuid not null references users on delete cascade,
    code_hash bytea not null check (length(code_hash) = 32),
    primary key (user_uuid, code_hash)
);
