drop table mails;
alter table users drop column user_email_verified_at;
