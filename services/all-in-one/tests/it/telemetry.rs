//! Traces, logs and metrics, as an operator collects them.

use testkit::eventually;
use testkit::media::Encoder;
use testkit::otlp::{Collector, Span};

use crate::house::{House, folder};

#[tokio::test]
async fn one_trace_leads_from_the_gateway_through_the_service_to_the_consumer_of_its_event() {
    let collector = Collector::start();
    let house = House::full_with(&[("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.clone())]).await;

    house.register("ana@example.org", "Ana Silva").await;

    let is = |span: &Span, process: &str, name: &str| span.process.contains(process) && span.name == name;
    let trace = eventually("all three have sent their spans", async || {
        let spans = collector.spans();
        let first = spans.iter().find(|span| span.name == "POST /api/v1/auth/register" && span.parent_id.is_empty())?;
        let trace: Vec<_> = spans.iter().filter(|span| span.trace_id == first.trace_id).cloned().collect();
        trace.iter().any(|span| span.name == "event.consume").then_some(trace)
    })
    .await;
    let find = |name: &str, parent: Option<&Span>| {
        let found =
            trace.iter().find(|span| is(span, "amphi", name) && parent.is_none_or(|it| span.parent_id == it.span_id));
        found.unwrap_or_else(|| panic!("{name} in {trace:?}"))
    };
    let gateway = trace.iter().find(|span| span.parent_id.is_empty()).unwrap();
    let service = find("POST /api/v1/auth/register", Some(gateway));
    let handler = find("auth.user.register", Some(service));
    find("event.consume", Some(handler));
}

#[tokio::test]
async fn log_files_are_written_daily_with_errors_apart_and_without_secrets() {
    let logs = folder();
    let house = House::full_with(&[
        ("LOG_DIR", logs.path().display().to_string()),
        ("LOG_FORMAT", "json".to_owned()),
        ("LOG_LEVEL", "debug".to_owned()),
    ])
    .await;
    let ana = house.register("ana@example.org", "Ana Silva").await;
    let url = format!("{}/api/v1/auth/me?token={}", house.gateway, ana.token);
    house.client.get(url).header("cookie", format!("auth_token={}", ana.token)).send().await.unwrap();
    let stream = house.create_stream(&ana).await;
    let encoder = Encoder::publish(&stream.ingest);
    house.until(&stream, "live").await;
    encoder.stop();
    house.until(&stream, "ended").await;
    let House { programs, media, settings, .. } = house;
    let output: String = programs.into_iter().map(|program| program.stop().1).collect();
    drop(media);

    let files = |kind: &str| {
        let folder = std::fs::read_dir(logs.path()).unwrap().flatten();
        let names = folder.map(|file| file.path()).filter(|path| path.display().to_string().contains(kind));
        names.map(|path| std::fs::read_to_string(path).unwrap()).collect::<String>()
    };
    let (all, errors) = (files(".info."), files(".error."));
    assert!(all.contains("/api/v1/auth/register"), "requests are logged: {all}");
    assert!(all.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "every line is JSON");
    assert!(errors.is_empty(), "nothing failed: {errors}");
    let database = settings.iter().find(|(name, _)| *name == "DATABASE_URL").unwrap().1.clone();
    for text in [all, output] {
        for secret in [ana.token.as_str(), "correct horse", "a-secret-of-the-media-server", &stream.key, &database] {
            assert!(!text.contains(secret), "{secret} is in the log");
        }
    }
}

#[tokio::test]
async fn metrics_are_by_route_pattern_and_on_the_private_port_only() {
    let house = House::embedded().await;
    let ana = house.register("ana@example.org", "Ana Silva").await;
    let stream = house.create_stream(&ana).await;
    house.client.get(format!("{}/streams/{}", house.gateway, stream.id)).send().await.unwrap();

    let metrics = house.client.get(format!("{}/metrics", house.programs[0].private_port()));
    let metrics = metrics.send().await.unwrap().text().await.unwrap();

    assert!(
        metrics.contains(r#"service="stream",method="GET",route="/api/v1/streams/{id}",status="200""#),
        "{metrics}"
    );
    for path in ["/metrics", "/readyz", "/livez"] {
        let public = house.client.get(format!("{}{path}", house.gateway)).send().await.unwrap();
        assert_eq!(public.status(), 404, "{path}");
    }
    for path in ["/readyz", "/livez"] {
        let private = house.client.get(format!("{}{path}", house.programs[0].private_port())).send().await.unwrap();
        assert_eq!(private.status(), 200, "{path}");
    }
}
