-- What every process has to know about tokens that are still good by their own date.

-- Sessions that ended before their time. No reference to sessions or users: both may go earlier.
create table ended_sessions (
    session_id uuid primary key,
    -- When the last token of the session expires: from then on nobody needs to know.
    ended_until timestamptz not null
);

create index ended_sessions_ended_until_idx on ended_sessions (ended_until);

-- When the last token of the session expires. Until now a session had one token, and lived as long.
alter table sessions add column session_tokens_until timestamptz;
update sessions set session_tokens_until = session_expires_at;
alter table sessions alter column session_tokens_until set not null;

-- From here on a session that has ended has no row.
insert into ended_sessions select session_id, session_tokens_until from sessions where session_revoked_at is not null;
delete from sessions where session_revoked_at is not null;
alter table sessions drop column session_revoked_at;

create index sessions_session_expires_at_idx on sessions (session_expires_at);
