drop table recordings;
drop table viewers;
drop table broadcasts;
drop table streams;
drop table users;
