drop index users_user_created_at_idx;
drop index users_user_role_told_until_idx;
alter table users drop column user_suspended_at, drop column user_suspended_reason, drop column user_role_told_until;
