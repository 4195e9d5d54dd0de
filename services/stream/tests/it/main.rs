//! Stream as streamers, viewers and media servers see it: the real program on a real PostgreSQL.

mod broadcasts;
mod callbacks;
mod faults;
mod streams;
mod support;
