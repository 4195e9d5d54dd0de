-- What a mail tells of, where its purpose does not say everything.
alter table mails add column mail_about jsonb;

-- Mails that tell of streams come by the thousand. Those that somebody waits for are found without looking through them.
create index mails_waited_for_idx on mails (mail_next_try_at)
    where mail_next_try_at is not null and mail_purpose <> 'stream-live';
create index mails_of_streams_idx on mails (mail_next_try_at)
    where mail_next_try_at is not null and mail_purpose = 'stream-live';
drop index mails_next_try_at_idx;
