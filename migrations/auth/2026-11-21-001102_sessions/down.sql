drop table ws_tickets;
alter table sessions
    drop column session_user_agent,
    drop column session_address,
    drop column session_last_seen_at,
    drop column session_generation,
    drop column session_refresh_expires_at;
