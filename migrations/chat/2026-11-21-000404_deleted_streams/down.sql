drop table deleted_streams;
