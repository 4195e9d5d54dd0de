-- The table of 003. E-mail addresses are stored in lower case, so that one address is one account.
create table users (
    user_uuid uuid primary key,
    user_email varchar(100) not null constraint users_user_email_key unique,
    -- An argon2id hash (PHC string); the password itself is nowhere.
    user_password varchar(255) not null,
    user_fullname varchar(100) not null,
    user_role varchar(20) not null default 'Member' check (user_role in ('Admin', 'Member')),
    user_created_at timestamptz not null,
    user_updated_at timestamptz not null
);

-- One row a login. A token names its session; logging out ends it.
create table sessions (
    session_id uuid primary key,
    user_uuid uuid not null references users on delete cascade,
    session_created_at timestamptz not null,
    session_expires_at timestamptz not null,
    session_revoked_at timestamptz
);

create index sessions_user_uuid_idx on sessions (user_uuid);

-- The keys that sign tokens. The private half is sealed with AMPHI_SECRET, so that a dump mints nothing.
create table signing_keys (
    kid text primary key,
    public_key bytea not null check (length(public_key) = 32),
    sealed_seed bytea not null,
    key_created_at timestamptz not null
);
