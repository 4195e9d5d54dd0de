alter table users add column user_email_verified_at timestamptz;

-- Mails that wait, and those that were sent as long as their link counts. No row holds a secret: the token in a mail is
-- computed from purpose and id when it is sent.
create table mails (
    mail_id uuid primary key,
    mail_purpose text not null,
    mail_to varchar(100) not null,
    -- Null while nobody has looked whose address it is: asking for a reset must not tell whether there is an account.
    user_uuid uuid references users on delete cascade,
    mail_created_at timestamptz not null,
    -- From then on it is not sent any more, and its link does not count.
    mail_expires_at timestamptz not null,
    mail_attempts integer not null default 0,
    -- Null once it was sent.
    mail_next_try_at timestamptz
);

create index mails_next_try_at_idx on mails (mail_next_try_at) where mail_next_try_at is not null;
create index mails_expires_at_idx on mails (mail_expires_at);
create index mails_user_uuid_idx on mails (user_uuid);
create index mails_mail_to_idx on mails (mail_to, mail_purpose);
