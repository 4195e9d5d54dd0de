use serde_json::{Value, json};

use crate::support::{Made, TestStream, User, in_minutes, problem};

async fn titled(stream: &TestStream, user: &User, title: &str, description: &str) -> i64 {
    stream.made_of(user, &json!({"title": title, "description": description})).await.id
}

/// Streams that are: upcoming in 2 h, upcoming in 1 h, live, featured, live with a viewer and featured, and nothing special.
async fn several(stream: &TestStream) -> Vec<Made> {
    let (ana, admin) = (stream.user("Ana"), stream.admin());
    let mut made = Vec::new();
    for body in [
        json!({"scheduledAt": in_minutes(120)}),
        json!({"scheduledAt": in_minutes(60)}),
        json!({}),
        json!({"featured": true}),
        json!({"featured": true}),
        json!({}),
    ] {
        let user = if body["featured"] == true { &admin } else { &ana };
        made.push(stream.made_of(user, &body).await);
    }
    for (index, client) in [(4, "1"), (2, "2")] {
        assert_eq!(stream.callback("publish", &made[index].key, client).await.status(), 302);
    }
    stream.callback("play", &made[4].playback_id, "3").await;
    made
}

#[tokio::test]
async fn lists_by_status_and_order() {
    let stream = TestStream::start().await;
    let made = several(&stream).await;
    for (query, expected) in [
        ("", &[4, 2, 5, 3, 1, 0][..]),
        ("sort=newest", &[5, 4, 3, 2, 1, 0]),
        ("sort=oldest", &[0, 1, 2, 3, 4, 5]),
        ("sort=viewers", &[4, 2, 5, 3, 1, 0]),
        ("sort=scheduled", &[1, 0, 5, 4, 3, 2]),
        ("sort=started", &[2, 4, 5, 3, 1, 0]),
        ("status=live", &[4, 2]),
        ("status=live&sort=oldest", &[2, 4]),
        ("status=live&sort=viewers", &[4, 2]),
        ("status=live&sort=started", &[2, 4]),
        ("status=upcoming", &[1, 0]),
        ("status=upcoming&sort=oldest", &[0, 1]),
        ("status=upcoming&sort=viewers", &[1, 0]),
        ("status=featured", &[4, 3]),
        ("status=featured&sort=oldest", &[3, 4]),
        ("status=ended", &[5, 3, 1, 0]),
        ("status=ended&sort=scheduled", &[1, 0, 5, 3]),
        ("status=ended&sort=started", &[5, 3, 1, 0]),
        ("search=", &[4, 2, 5, 3, 1, 0]),
    ] {
        let expected: Vec<_> = expected.iter().map(|index| made[*index].id).collect();
        assert_eq!(stream.listed(query, None).await, expected, "{query}");
    }
    for (query, expected) in [
        ("sort=viewers&limit=1&page=2", &[2][..]),
        ("sort=viewers&limit=3&page=1", &[4, 2, 5]),
        ("sort=viewers&limit=3&page=2", &[3, 1, 0]),
        ("sort=viewers&limit=4&page=2", &[1, 0]),
        ("sort=viewers&limit=4&page=3", &[]),
        ("sort=newest&limit=4&page=2", &[1, 0]),
    ] {
        let expected: Vec<_> = expected.iter().map(|index| made[*index].id).collect();
        assert_eq!(stream.listed(query, None).await, expected, "{query}");
    }
    for query in ["status=gone", "sort=best", "owner=ana"] {
        problem(stream.look(&format!("?{query}"), None).await, 400, "bad-request").await;
    }
}

#[tokio::test]
async fn an_announced_stream_that_went_live_is_not_upcoming_any_more() {
    let stream = TestStream::start().await;
    let ana = stream.user("Ana");
    let made = stream.made_of(&ana, &json!({"scheduledAt": in_minutes(5)})).await;
    assert_eq!(stream.listed("status=upcoming", None).await, [made.id]);

    stream.callback("publish", &made.key, "1").await;
    assert_eq!(stream.listed("status=upcoming", None).await, [0_i64; 0]);
    stream.callback("done", &made.key, "1").await;

    assert_eq!(stream.listed("status=upcoming", None).await, [0_i64; 0]);
    assert_eq!(stream.seen(&made).await["scheduledAt"], Value::Null);
}

#[tokio::test]
async fn a_search_finds_the_beginnings_of_words_in_title_and_description() {
    let stream = TestStream::start().await;
    let ana = stream.user("Ana");
    let cooking = titled(&stream, &ana, "Buổi Nấu ăn số 1", "Phở và bún chả").await;
    let node = titled(&stream, &ana, "Learn Node.js (v22) - part_2", "with C++/Rust").await;
    // The same letters, with accents as characters of their own.
    let other = titled(&stream, &ana, "Na\u{302}\u{301}u xo\u{302}i", "").await;
    for (search, expected) in [
        ("nấu", &[other, cooking][..]),
        ("NẤU", &[other, cooking]),
        ("na\u{302}\u{301}u", &[other, cooking]),
        ("nấu ăn", &[cooking]),
        ("ăn phở", &[cooking]),
        ("ph", &[cooking]),
        ("chả", &[cooking]),
        ("node.js", &[node]),
        ("js", &[node]),
        ("part_2", &[node]),
        ("part 2", &[node]),
        ("rust", &[node]),
        ("v22", &[node]),
        ("nấu rust", &[]),
        ("ode", &[]),
        ("!!", &[]),
        ("' | 'a", &[]),
        ("nấu & !ăn", &[cooking]),
        ("nấu:* | x", &[other]),
        ("\\ \" % _ \u{0}", &[]),
        ("  ", &[other, node, cooking]),
    ] {
        let query: String = format!("search={}", encoded(search));
        assert_eq!(stream.listed(&query, None).await, expected, "{search}");
    }
    for sort in ["newest", "oldest", "viewers", "scheduled", "started"] {
        let mut found = stream.listed(&format!("search={}&sort={sort}", encoded("nấu")), None).await;
        found.sort_unstable();
        assert_eq!(found, [cooking, other], "{sort}");
    }
    assert_eq!(stream.listed(&format!("search=n&status=live&owner={}", ana.id), None).await, [0_i64; 0]);
    problem(stream.look(&format!("?search={}", "a".repeat(201)), None).await, 422, "invalid-fields").await;
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[tokio::test]
async fn a_picture_of_the_broadcast_stands_in_for_a_thumbnail() {
    let stream = TestStream::start().await;
    let ana = stream.user("Ana");
    let made = stream.made(&ana).await;
    let hidden = stream.made_of(&ana, &json!({"visibility": "unlisted"})).await;
    let pictured = "insert into stream.thumbnails (stream_id, taken_at, due_at)
         select id, to_timestamp(1700000000), now() from stream.streams";
    stream.execute(pictured).await;

    let of = async |name: &str| {
        let seen: Value = stream.look(&format!("/{name}"), None).await.json().await.unwrap();
        seen["thumbnail"].as_str().unwrap().to_owned()
    };
    let expected = format!("http://127.0.0.1:8080/api/v1/streams/{}/thumbnail?t=1700000000", made.id);
    assert_eq!(of(&made.id.to_string()).await, expected);
    assert!(of(&hidden.playback_id).await.contains(&format!("/streams/{}/thumbnail", hidden.playback_id)));
    let list: Value = stream.look("", None).await.json().await.unwrap();
    assert_eq!(list["items"][0]["thumbnail"], expected);

    stream.put(made.id, &ana, &json!({"thumbnail": "https://example.org/own.jpg"})).send().await.unwrap();
    assert_eq!(of(&made.id.to_string()).await, "https://example.org/own.jpg");
    stream.put(made.id, &ana, &json!({"thumbnail": ""})).send().await.unwrap();
    assert_eq!(of(&made.id.to_string()).await, expected);
}
