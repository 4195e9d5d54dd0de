drop table signing_keys;
drop table sessions;
drop table users;
