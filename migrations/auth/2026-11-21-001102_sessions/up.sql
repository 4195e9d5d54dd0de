-- What a user sees of a session, so that a stranger's is recognised.
alter table sessions
    add column session_user_agent varchar(255) not null default '',
    add column session_address varchar(45) not null default '',
    add column session_last_seen_at timestamptz,
    -- Which refresh token is good now. The token itself is nowhere: it is this number, signed with AMPHI_SECRET.
    add column session_generation bigint not null default 0,
    -- A session of before has no refresh token.
    add column session_refresh_expires_at timestamptz;

update sessions set session_last_seen_at = session_created_at, session_refresh_expires_at = session_created_at;

alter table sessions
    alter column session_last_seen_at set not null,
    alter column session_refresh_expires_at set not null;

-- What opens a WebSocket once, within seconds, where a client cannot set a header.
create table ws_tickets (
    -- SHA-256; the ticket itself is nowhere.
    ticket_hash bytea primary key check (length(ticket_hash) = 32),
    session_id uuid not null references sessions on delete cascade,
    ticket_expires_at timestamptz not null,
    -- When the token expires that asked for the ticket.
    ticket_token_expires_at timestamptz not null
);

create index ws_tickets_session_id_idx on ws_tickets (session_id);
create index ws_tickets_ticket_expires_at_idx on ws_tickets (ticket_expires_at);
