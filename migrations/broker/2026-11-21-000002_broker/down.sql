DROP TABLE tails;
DROP TABLE messages;
