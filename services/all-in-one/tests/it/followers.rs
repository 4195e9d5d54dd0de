//! Somebody goes live: followers get a mail, and viewers are counted.

use std::path::PathBuf;

use reqwest::{Method, Response};
use serde_json::{Value, json};
use testkit::eventually;

use crate::house::{House, SECRET, Stream, User, events_until};

impl House {
    async fn ask(&self, method: Method, path: &str, user: Option<&User>, body: Value) -> Response {
        let request = self.client.request(method, format!("{}{path}", self.gateway)).json(&body);
        let request = match user {
            Some(user) => request.bearer_auth(&user.token),
            None => request,
        };
        request.send().await.unwrap()
    }

    /// A callback of nginx-rtmp.
    async fn callback(&self, call: &str, stream: &Stream) -> u16 {
        let body = format!("app=live&flashver=&swfurl=&tcurl=&pageurl=&addr=127.0.0.1&clientid=7&call={call}&name=");
        let request = self.client.post(format!("{}/webhook/stream-event", self.gateway));
        let request =
            request.header("x-webhook-secret", SECRET).header("content-type", "application/x-www-form-urlencoded");
        request.body(body + &stream.key).send().await.unwrap().status().as_u16()
    }

    /// The texts of the mails to `to` that have this line in their head.
    fn mails(&self, to: &str, line: &str) -> Vec<String> {
        let Ok(folder) = std::fs::read_dir(self.data.path().join("mail")) else { return Vec::new() };
        let paths: Vec<PathBuf> = folder.map(|file| file.unwrap().path()).collect();
        let texts = paths.iter().filter(|path| path.extension().is_some_and(|extension| extension == "eml"));
        let texts = texts.map(|path| std::fs::read_to_string(path).unwrap().replace("=\r\n", "").replace("=3D", "="));
        let to = format!("To: {to}");
        texts.filter(|text| text.lines().any(|one| one == to) && text.lines().any(|one| one == line)).collect()
    }

    /// Registers, and confirms the address.
    async fn confirmed(&self, email: &str, name: &str) -> User {
        let user = self.register(email, name).await;
        let mail = eventually("the address is to be confirmed", async || {
            self.mails(email, "Subject: Confirm your e-mail address").pop()
        })
        .await;
        let (_, token) = mail.split_once("#token=").unwrap();
        let token: String = token.chars().take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-')).collect();
        let path = "/api/v1/auth/email-verification/confirm";
        let answer = self.ask(Method::POST, path, None, json!({"token": token})).await;
        assert_eq!(answer.status(), 204);
        user
    }
}

#[tokio::test]
async fn in_one_process_followers_get_one_mail_when_a_stream_goes_live() {
    followers_get_one_mail_when_a_stream_goes_live(&House::embedded().await).await;
}

#[tokio::test]
async fn over_rabbitmq_followers_get_one_mail_when_a_stream_goes_live() {
    followers_get_one_mail_when_a_stream_goes_live(&House::full().await).await;
}

async fn followers_get_one_mail_when_a_stream_goes_live(house: &House) {
    let ana = house.register("ana@example.org", "Ana Silva").await;
    let ben = house.confirmed("ben@example.org", "Ben").await;
    let cleo = house.confirmed("cleo@example.org", "Cleo").await;
    let unconfirmed = house.register("dan@example.org", "Dan").await;
    let stream = house.create_stream(&ana).await;
    let channel = house.seen(&stream).await["userId"].as_str().unwrap().to_owned();
    let follow = format!("/api/channels/{channel}/follow");
    for (user, body) in [(&ben, json!({})), (&cleo, json!({"byMail": false})), (&unconfirmed, json!({}))] {
        eventually("the channel is known", async || {
            let answer = house.ask(Method::PUT, &follow, Some(user), body.clone()).await;
            (answer.status() == 204).then_some(())
        })
        .await;
    }
    let tail = house.tail("stream.live.announced.v1").await;

    assert_eq!(house.callback("publish", &stream).await, 302);

    let subject = "Subject: Ana Silva is live";
    let mail = eventually("the mail lies in the folder", async || house.mails("ben@example.org", subject).pop()).await;
    assert!(mail.contains(&format!("{}/watch/{}", house.gateway, stream.playback_id)), "{mail}");
    let events = events_until(&tail, "stream.live.announced.v1").await;
    let told = &events.iter().find(|event| event["name"] == "stream.live.announced.v1").unwrap()["data"];
    assert_eq!((&told["stream_id"], &told["channel_id"]), (&json!(stream.id), &json!(channel)));
    let count = |name: &str| told[name].as_array().unwrap().len();
    assert_eq!((count("by_mail"), count("others")), (2, 1));

    // Whoever plays is counted without a token, under every path.
    for (position, prefix) in ["/api/v1/streams", "/api/streams", "/streams"].into_iter().enumerate() {
        let body = json!({"session": "0123456789abcdef", "position": position});
        let answer = house.ask(Method::POST, &format!("{prefix}/{}/view", stream.id), None, body).await;
        assert_eq!(answer.status(), 200, "{prefix}");
        assert_eq!(answer.json::<Value>().await.unwrap()["isCounted"], position > 0);
    }
    eventually("everybody sees it", async || {
        house.callback("update_publish", &stream).await;
        (house.seen(&stream).await["viewerCount"] == 1).then_some(())
    })
    .await;

    // What is sent next comes after: had there been a second mail, it would have come before.
    assert_eq!(house.callback("done", &stream).await, 204);
    house.confirmed("eve@example.org", "Eve").await;
    assert_eq!(house.mails("ben@example.org", subject).len(), 1);
    for other in ["ana@example.org", "cleo@example.org", "dan@example.org"] {
        assert!(house.mails(other, subject).is_empty(), "{other}");
    }
    assert!(!mail.contains(&stream.key) && !told.to_string().contains(&stream.key));
}
