//! How media servers prove to be ours.

use reqwest::RequestBuilder;
use ring::hmac;

use crate::support::{SECRET, TestStream, WEBHOOK, problem};

const NEXT: &str = "the secret that comes after it";
const FORM: &str = "app=live&clientid=1&call=connect";

fn signature(secret: &str, body: &str) -> String {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), body.as_bytes());
    let digits: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256={digits}")
}

async fn is_taken(request: RequestBuilder) {
    assert_eq!(request.body(FORM).send().await.unwrap().status(), 204);
}

async fn is_refused(request: RequestBuilder) {
    problem(request.body(FORM).send().await.unwrap(), 401, "webhook-secret-wrong").await;
}

#[tokio::test]
async fn two_secrets_are_good_while_one_replaces_the_other() {
    let stream = TestStream::with(&[("WEBHOOK_SECRET_NEXT", NEXT)]).await;
    for secret in [SECRET, NEXT] {
        let encoded = secret.replace(' ', "%20");
        is_taken(stream.post(WEBHOOK).header("x-webhook-secret", secret)).await;
        is_taken(stream.post(&format!("{WEBHOOK}?secret={encoded}"))).await;
        is_taken(stream.post(&format!("{WEBHOOK}/{encoded}"))).await;
        is_taken(stream.post(WEBHOOK).header("x-webhook-signature", signature(secret, FORM))).await;
    }
    is_refused(stream.post(WEBHOOK).header("x-webhook-secret", "")).await;
    is_refused(stream.post(WEBHOOK).header("x-webhook-secret", format!("{SECRET}{NEXT}"))).await;

    let without = TestStream::start().await;
    is_refused(without.post(WEBHOOK).header("x-webhook-secret", NEXT)).await;
    is_refused(without.post(&format!("{WEBHOOK}?secret="))).await;
}

#[tokio::test]
async fn a_signature_is_of_the_very_body() {
    let stream = TestStream::start().await;
    let signed = |signature: &str| stream.post(WEBHOOK).header("x-webhook-signature", signature);
    let good = signature(SECRET, FORM);

    is_taken(signed(&good)).await;
    is_taken(signed(&good.to_uppercase().replace("SHA256", "sha256"))).await;
    for wrong in [
        signature("another secret", FORM),
        signature(SECRET, &format!("{FORM}&")),
        good.replace("sha256=", ""),
        good.replace("sha256", "sha1"),
        good[..good.len() - 2].to_owned(),
        "sha256=".to_owned(),
        "sha256=zz".to_owned(),
    ] {
        is_refused(signed(&wrong)).await;
        // Whatever else is shown: somebody has changed it on its way.
        is_refused(signed(&wrong).header("x-webhook-secret", SECRET)).await;
    }
}

#[tokio::test]
async fn what_is_not_signed_is_not_read() {
    let stream = TestStream::start().await;
    let made = stream.made(&stream.user("Ana")).await;
    stream.callback("publish", &made.key, "1").await;
    let query = format!("event=unavailable&path={}&source_id=1&server=m1", made.playback_id);

    let answer = stream.post(&format!("{WEBHOOK}?{query}")).header("x-webhook-signature", signature(SECRET, ""));

    problem(answer.send().await.unwrap(), 400, "bad-request").await;
    assert_eq!(stream.status(&made).await, "live");
}

#[tokio::test]
async fn from_some_addresses_calls_are_believed_without_a_secret() {
    let stream = TestStream::with(&[("WEBHOOK_ADDRESSES", "192.0.2.0/24, 2001:db8::7")]).await;
    let from = |address: &str| stream.post(WEBHOOK).header("x-forwarded-for", address);

    for address in ["192.0.2.1", "::ffff:192.0.2.1", "2001:db8::7"] {
        is_taken(from(address)).await;
    }
    for address in ["192.0.3.1", "2001:db8::8", "192.0.2.1, 192.0.3.1", "192.0.3.1, 192.0.2.1", "nobody"] {
        is_refused(from(address)).await;
    }
    is_refused(stream.post(WEBHOOK)).await;
    is_taken(stream.post(WEBHOOK).header("x-webhook-secret", SECRET)).await;

    let here = TestStream::with(&[("WEBHOOK_ADDRESSES", "127.0.0.1")]).await;
    is_taken(here.post(WEBHOOK)).await;
    is_refused(here.post(WEBHOOK).header("x-forwarded-for", "192.0.2.1")).await;
}
