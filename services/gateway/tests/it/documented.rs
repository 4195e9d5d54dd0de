//! Every path of the documents answers under exactly that path.

use crate::support::{NOBODY, Stub, TestGateway};

/// Method and path as the document has them, with numbers and ids filled in, and where each goes.
const PATHS: &[(&str, &str, &str)] = &[
    // 000
    (
        "POST",
        "/api/sessions/0199c0de-0000-7000-8000-000000000001/leave",
        "/api/v1/sessions/0199c0de-0000-7000-8000-000000000001/leave",
    ),
    (
        "GET",
        "/api/sessions/0199c0de-0000-7000-8000-000000000001/participants",
        "/api/v1/sessions/0199c0de-0000-7000-8000-000000000001/participants",
    ),
    // 001
    ("POST", "/api/video-call/create", "/api/v1/video-call/create"),
    ("POST", "/api/video-call/join", "/api/v1/video-call/join"),
    ("POST", "/api/video-call/leave", "/api/v1/video-call/leave"),
    (
        "GET",
        "/api/video-call/upcoming?role=student&status=pending&limit=20",
        "/api/v1/video-call/upcoming?role=student&status=pending&limit=20",
    ),
    ("GET", "/api/cron/create-video-calls", "/api/v1/cron/create-video-calls"),
    ("GET", "/api/cron/cleanup-expired-sessions", "/api/v1/cron/cleanup-expired-sessions"),
    // 002
    ("POST", "/streams", "/api/v1/streams"),
    ("PUT", "/streams/7", "/api/v1/streams/7"),
    ("GET", "/streams", "/api/v1/streams"),
    ("POST", "/webhook/stream-event", "/api/v1/webhook/stream-event"),
    ("POST", "/vod/upload", "/api/v1/vod/upload"),
    ("GET", "/vod", "/api/v1/vod"),
    ("GET", "/vod?streamId=7", "/api/v1/vod?streamId=7"),
    ("GET", "/socket.io/?EIO=4&transport=polling", "/socket.io/?EIO=4&transport=polling"),
    ("POST", "/socket.io/?EIO=4&transport=polling&sid=x", "/socket.io/?EIO=4&transport=polling&sid=x"),
    // 003
    ("POST", "/api/v1/auth/register", "/api/v1/auth/register"),
    ("POST", "/api/v1/auth/login", "/api/v1/auth/login"),
    ("POST", "/api/v1/auth/logout", "/api/v1/auth/logout"),
    ("GET", "/api/v1/rooms", "/api/v1/rooms"),
    ("POST", "/api/v1/rooms", "/api/v1/rooms"),
    ("POST", "/api/v1/rooms/join-by-code", "/api/v1/rooms/join-by-code"),
    ("POST", "/api/v1/rooms/7/join", "/api/v1/rooms/7/join"),
    ("POST", "/api/v1/rooms/7/leave", "/api/v1/rooms/7/leave"),
    ("GET", "/api/v1/rooms/7/members", "/api/v1/rooms/7/members"),
    ("GET", "/api/v1/rooms/7/messages", "/api/v1/rooms/7/messages"),
    ("POST", "/api/v1/rooms/7/messages", "/api/v1/rooms/7/messages"),
    ("GET", "/api/v1/chat/ws?room_id=7", "/api/v1/chat/ws?room_id=7"),
    ("GET", "/api/v1/chat/rooms/7/status", "/api/v1/chat/rooms/7/status"),
    // 004
    ("GET", "/ws/chat", "/ws/chat"),
    ("GET", "/api/v1/conversations", "/api/v1/conversations"),
    ("POST", "/api/conversations", "/api/v1/conversations"),
    (
        "POST",
        "/api/v1/conversations/0192f1c0-0000-7000-8000-000000000000/read",
        "/api/v1/conversations/0192f1c0-0000-7000-8000-000000000000/read",
    ),
];

#[actix_web::test]
async fn each_documented_path_reaches_a_service() {
    let mut upstream = Stub::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let at = format!("http://{}", upstream.address);
    let names = ["AUTH_URL", "STREAM_URL", "SESSION_URL", "VIDEO_CALL_URL", "CHAT_URL", "VOD_URL", "HLS_ORIGIN_URL"];
    let gateway = TestGateway::with(names.map(|name| (name, &*at)));
    let token = gateway.token();

    for (method, path, expected) in PATHS {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\nContent-Length: 0\r\n\r\n"
        );
        assert_eq!(gateway.ask(&request).await.status, 200, "{method} {path}");
        let head = upstream.next().await;
        assert!(head.starts_with(&format!("{method} {expected} HTTP/1.1\r\n")), "{method} {path}: {head}");
    }
}

#[actix_web::test]
async fn a_service_that_is_not_installed_is_a_clear_503() {
    let gateway = TestGateway::with([("STREAM_URL", &*format!("http://{NOBODY}"))]);
    let answer = gateway.get("/vod").await;
    assert_eq!((answer.status, answer.problem().as_str()), (503, "not-installed"));
}
