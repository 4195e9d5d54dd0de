drop table former_members;
alter table rooms drop column is_public;
