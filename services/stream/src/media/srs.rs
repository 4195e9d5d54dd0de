//! What SRS tells of itself (`srs_app_http_api.cpp`, `srs_app_statistic.cpp`).

use serde::Deserialize;

use super::{NoAnswer, Seen};

/// All clients at once: pages of a list that changes would leave some out. SRS gives ten to who does not say.
pub(super) const CLIENTS: &str = "/api/v1/clients/?start=0&count=1000000";

/// Reads the list of clients. Their ids are random: no two runs have the same.
pub(super) fn seen(body: &[u8]) -> Result<Seen, NoAnswer> {
    #[derive(Deserialize)]
    struct Answer {
        code: i64,
        #[serde(default)]
        clients: Vec<Client>,
    }
    #[derive(Deserialize)]
    struct Client {
        id: String,
        #[serde(default)]
        publish: bool,
    }
    let answer: Answer =
        serde_json::from_slice(body).map_err(|_not_shown| NoAnswer::Unreadable("it is no list of clients"))?;
    if answer.code != 0 {
        return Err(NoAnswer::Unreadable("it is a refusal"));
    }
    let mut seen = Seen::default();
    for client in answer.clients {
        match client.publish {
            true => seen.publishers.insert(client.id),
            false => seen.players.insert(client.id),
        };
    }
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publishers_and_players_are_told_apart() {
        let body = r#"{"code":0,"server":"vid-1","service":"s","pid":"9","clients":[
            {"id":"9308h583","vhost":"v","stream":"s","ip":"127.0.0.1","type":"fmle-publish","publish":true,"alive":1.5},
            {"id":"77aa","type":"rtmp-play","publish":false}]}"#;
        let seen = seen(body.as_bytes()).unwrap();
        assert_eq!((seen.publishers, seen.players), (["9308h583".to_owned()].into(), ["77aa".to_owned()].into()));
        assert_eq!(seen.run, None);
    }

    #[test]
    fn a_refusal_is_no_answer() {
        for body in [r#"{"code":1061}"#, "", "<html>"] {
            assert!(matches!(seen(body.as_bytes()), Err(NoAnswer::Unreadable(_))), "{body}");
        }
    }
}
