//! The long polls of a Socket.IO session reach the instance that the session lives in.

use gateway::upstream::SystemResolver;

use crate::support::{Notebook, Peer, Stub, TestGateway, soon};

/// An instance that calls itself `name`, and answers with that.
async fn instance(name: &'static str) -> Stub {
    Stub::new(move |mut peer: Peer, notebook: Notebook| async move {
        while let Some(head) = peer.read_request().await {
            if head.starts_with("GET /healthz ") {
                notebook.note("probed");
            }
            let length = name.len();
            peer.write(format!(
                "HTTP/1.1 200 OK\r\nX-Amphi-Instance: {name}\r\nContent-Length: {length}\r\n\r\n{name}"
            ))
            .await;
        }
    })
    .await
}

#[actix_web::test]
async fn a_session_goes_on_where_it_began() {
    let (mut one, mut two) = (instance("00000000000000a1").await, instance("00000000000000b2").await);
    let urls = format!("http://{},http://{}", one.address, two.address);
    let gateway = TestGateway::watching([("CHAT_URL", &*urls), ("GATEWAY_PROBE_EVERY", "10ms")], SystemResolver);
    for instance in [&mut one, &mut two] {
        // With the second probe, what the first brought is known.
        soon(instance.next()).await;
        soon(instance.next()).await;
    }

    for name in ["00000000000000a1", "00000000000000b2"] {
        for _ in 0..5 {
            let poll = gateway.get(&format!("/socket.io/?EIO=4&transport=polling&sid={name}.4711")).await;
            assert_eq!(poll.body, name.as_bytes());
        }
    }
    for foreign in ["00000000000000c3.4711", "no-instance", ".", "00000000000000000.1"] {
        assert_eq!(gateway.get(&format!("/socket.io/?EIO=4&sid={foreign}")).await.status, 200, "{foreign}");
    }
}
