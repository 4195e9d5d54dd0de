//! Instances of the gateway count together, over Redis; without it each for itself.

use reqwest::Client;
use testkit::{Issuer, Program, Redis, eventually};

const LIMIT: usize = 20;

/// A gateway as a process of its own.
struct Gateway {
    program: Program,
    url: String,
    client: Client,
}

impl Gateway {
    async fn start(issuer: &Issuer, redis: &Redis) -> Self {
        let settings = [
            ("AUTH_URL", issuer.url.clone()),
            ("STREAM_URL", issuer.url.clone()),
            ("GATEWAY_LISTEN", "127.0.0.1:0".to_owned()),
            ("ADMIN_LISTEN", "127.0.0.1:0".to_owned()),
            ("REDIS_URL", redis.url()),
            ("TRUSTED_PROXIES", "127.0.0.0/8".to_owned()),
            ("GATEWAY_RATE_PER_ADDRESS", format!("{LIMIT}/1h")),
        ];
        let program = Program::start(env!("CARGO_BIN_EXE_amphi-gateway"), &[], &settings).await;
        Self { url: program.announced("gateway"), program, client: testkit::client() }
    }

    /// Whether a request of the client at `address` is let through. The service knows no such path, and says so.
    async fn lets(&self, address: &str) -> bool {
        let request = self.client.get(format!("{}/streams", self.url)).header("x-forwarded-for", address);
        match request.send().await.unwrap().status().as_u16() {
            404 => true,
            429 => false,
            other => panic!("{other}"),
        }
    }

    async fn lets_of_many(&self, address: &str, tries: usize) -> usize {
        let mut let_through = 0;
        for _ in 0..tries {
            let_through += usize::from(self.lets(address).await);
        }
        let_through
    }
}

#[tokio::test]
async fn two_gateways_count_together_and_each_for_itself_while_redis_is_away() {
    let redis = Redis::private().await;
    let issuer = Issuer::start();
    let (one, two) = (Gateway::start(&issuer, &redis).await, Gateway::start(&issuer, &redis).await);

    assert_eq!(one.lets_of_many("203.0.113.5", 2 * LIMIT).await, LIMIT);
    let mut more = 0;
    eventually("the other gateway has heard", async || match two.lets("203.0.113.5").await {
        true => {
            more += 1;
            None
        }
        false => Some(()),
    })
    .await;
    assert!(more < LIMIT, "it refuses before it has counted as many by itself: {more}");

    redis.kill().await;
    for gateway in [&one, &two] {
        assert_eq!(gateway.lets_of_many("203.0.113.6", 2 * LIMIT).await, LIMIT);
    }
    let ready = one.client.get(format!("{}/readyz", one.program.private_port()));
    eventually("readiness says so", async || {
        let report: serde_json::Value = ready.try_clone()?.send().await.ok()?.json().await.ok()?;
        (report["status"] == "degraded" && report["checks"]["redis"] != "ok").then_some(())
    })
    .await;
}
