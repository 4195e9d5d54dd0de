drop index sessions_session_expires_at_idx;
alter table sessions add column session_revoked_at timestamptz;
alter table sessions drop column session_tokens_until;
drop table ended_sessions;
