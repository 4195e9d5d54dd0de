//! Notes that instances put up for each other.

#![expect(clippy::unwrap_used, reason = "a test that meets what it did not expect fails")]

use std::time::Duration;

use backplane::Backplane;
use testkit::eventually;

const LONG: Duration = Duration::from_secs(60);

fn shared() -> Backplane {
    let prefix = format!("test-{}", uuid::Uuid::now_v7().simple());
    Backplane::redis(&testkit::services().redis_url, &prefix).unwrap()
}

fn note(text: &[u8]) -> Option<Vec<u8>> {
    Some(text.to_vec())
}

#[tokio::test]
async fn each_sees_the_notes_of_all_others() {
    let backplane = shared();
    assert!(backplane.note("board", "one", note(b"a:\n\0b"), LONG).await.unwrap().is_empty());
    assert_eq!(backplane.note("board", "other", note(b"c"), LONG).await.unwrap(), [b"a:\n\0b"]);
    assert_eq!(backplane.note("board", "one", note(b"d"), LONG).await.unwrap(), [b"c"]);
    assert_eq!(backplane.notes("board", "other").await.unwrap(), [b"d"]);
    assert_eq!(backplane.note("board", "one", None, LONG).await.unwrap(), [b"c"]);
    assert!(backplane.notes("board", "other").await.unwrap().is_empty());
    assert!(backplane.notes("another board", "one").await.unwrap().is_empty());
}

#[tokio::test]
async fn a_note_that_is_not_renewed_goes() {
    let backplane = shared();
    backplane.note("board", "gone", note(b"a"), Duration::from_millis(1)).await.unwrap();
    backplane.note("board", "here", note(b"b"), LONG).await.unwrap();
    eventually("one note is left", async || {
        let notes = backplane.notes("board", "reader").await.unwrap();
        (notes == [b"b"]).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_process_alone_has_no_others() {
    let backplane = Backplane::in_process();
    assert!(backplane.note("board", "one", note(b"a"), LONG).await.unwrap().is_empty());
    assert!(backplane.notes("board", "other").await.unwrap().is_empty());
}
