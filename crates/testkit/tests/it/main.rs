//! What tests of other crates take for granted.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::net::{SocketAddr, TcpStream};

use diesel_async::RunQueryDsl;
use testkit::{Postgres, RabbitMq, Redis, database, pool};

#[tokio::test]
async fn a_database_is_empty_and_goes_with_its_value() {
    let url = {
        let database = database().await;
        let schema = database.pool("one").await;
        let mut conn = schema.get().await.unwrap();
        diesel::sql_query("CREATE TABLE things (n int)").execute(&mut conn).await.unwrap();
        let other = database.pool("other").await;
        let seen = diesel::sql_query("SELECT * FROM things").execute(&mut other.get().await.unwrap()).await;
        assert!(seen.is_err(), "a schema sees what is in another");
        database.url.clone()
    };
    assert!(pool(&url).get().await.is_err(), "the database is still there");
}

#[tokio::test]
async fn a_private_server_comes_back_where_it_was() {
    let (postgres, rabbitmq, redis) = tokio::join!(Postgres::private(), RabbitMq::private(), Redis::private());
    let urls = [postgres.url(), rabbitmq.url(), redis.url()];
    tokio::join!(postgres.kill(), rabbitmq.kill(), redis.kill());
    assert_eq!(urls.each_ref().map(|url| answers(url)), [false; 3]);

    tokio::join!(postgres.start(), rabbitmq.start(), redis.start());
    assert_eq!(urls.each_ref().map(|url| answers(url)), [true; 3]);

    drop((postgres, rabbitmq, redis));
    assert_eq!(urls.each_ref().map(|url| answers(url)), [false; 3]);
}

fn answers(url: &str) -> bool {
    let (_, rest) = url.rsplit_once("127.0.0.1:").unwrap();
    let port = rest.split('/').next().unwrap().parse().unwrap();
    TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).is_ok()
}
