drop table recovery_codes;
alter table users
    drop column user_totp_last_step,
    drop column user_totp_enabled_at,
    drop column user_totp_secret;
