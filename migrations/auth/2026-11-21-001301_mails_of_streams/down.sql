create index mails_next_try_at_idx on mails (mail_next_try_at) where mail_next_try_at is not null;
drop index mails_of_streams_idx;
drop index mails_waited_for_idx;
delete from mails where mail_purpose = 'stream-live';
alter table mails drop column mail_about;
