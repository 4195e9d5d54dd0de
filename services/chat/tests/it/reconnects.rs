//! Clients that come back, thousands of times, with all that they may remember: each gets exactly what it has missed, or is
//! told to load anew.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use fastrand::Rng;
use futures_util::future::join_all;

use crate::instances::two;
use crate::peers::{DIALECTS, Dialect, Heard, Peer, Place};
use crate::support::{TestChat, User, from_environment};

/// Beyond it nothing is recovered.
const MOST_RECOVERED: i64 = 500;
/// So many come back at the same time.
const CLIENTS: usize = 16;

/// A room in which message `n` says so, and somebody goes on to write.
struct Model {
    place: Place,
    /// The last message that is known to be stored.
    stored: AtomicI64,
    is_over: AtomicBool,
}

impl Model {
    async fn write(&self, chat: &TestChat, writer: &User) {
        let mut peer = Peer::come(&chat.url, Dialect::Rooms, &writer.token, &self.place, None).await.unwrap();
        while !self.is_over.load(Ordering::Relaxed) {
            let next = self.stored.load(Ordering::Relaxed) + 1;
            peer.send(&next.to_string(), &next.to_string()).await.unwrap();
            loop {
                match peer.hear().await.unwrap() {
                    Heard::Stored { seq, .. } => {
                        assert_eq!(seq, next);
                        break;
                    }
                    Heard::Refused { code, .. } => panic!("refused: {code}"),
                    _ => {}
                }
            }
            self.stored.store(next, Ordering::Relaxed);
        }
    }

    /// What a client may remember: mostly something that it has missed a little or a lot since, sometimes nonsense.
    fn memory(&self, random: &mut Rng) -> i64 {
        let stored = self.stored.load(Ordering::Relaxed);
        match random.u32(..20) {
            0 => random.choice([i64::MIN, -1, i64::MAX]).unwrap(),
            1 => stored + random.i64(..3),
            2 => random.i64(0..=stored),
            3..6 => (stored - MOST_RECOVERED + random.i64(-3..=3)).max(0),
            6..9 => stored,
            _ => (stored - random.i64(0..40)).max(0),
        }
    }

    /// Comes back `count` times, to one instance or the other, in one dialect or another, on a new connection or the same.
    async fn come_back(&self, urls: &[String], user: &User, count: usize, mut random: Rng) -> Tally {
        let mut tally = Tally::default();
        let mut open: Option<(Dialect, Peer)> = None;
        for _ in 0..count {
            let had = self.memory(&mut random);
            let (dialect, mut peer) = match open.take() {
                Some((dialect, mut peer)) => {
                    peer.join(Some(had)).await.unwrap();
                    (dialect, peer)
                }
                None => {
                    let (dialect, url) = (random.choice(DIALECTS).unwrap(), &urls[random.usize(..urls.len())]);
                    (dialect, Peer::come(url, dialect, &user.token, &self.place, Some(had)).await.unwrap())
                }
            };
            let what = format!("{dialect:?}, which has {had}");
            let (seq, recovered) = loop {
                match peer.hear().await.unwrap_or_else(|gone| panic!("{what} is closed: {gone:?}")) {
                    Heard::Joined { seq, recovered } => break (seq, recovered),
                    Heard::Refused { code, .. } => panic!("{what} is refused: {code}"),
                    _ => {}
                }
            };
            let is_known = (0..=seq).contains(&had) && seq - had <= MOST_RECOVERED;
            assert_eq!(recovered, Some(is_known), "{what}, of {seq}");
            let first = if is_known { had + 1 } else { seq + 1 };
            // A little of what is told live comes after it; or the client leaves again in the middle.
            let wanted = random.i64(0..=seq + 1 - first + 2);
            let mut next = first;
            while next < first + wanted {
                match peer.hear().await.unwrap_or_else(|gone| panic!("{what} is closed: {gone:?}")) {
                    Heard::Message(message) => {
                        assert_eq!((message.seq, message.content), (next, next.to_string()), "{what}, of {seq}");
                        next += 1;
                    }
                    Heard::Joined { .. } | Heard::Refused { .. } | Heard::Stored { .. } => panic!("{what}"),
                    Heard::Other => {}
                }
            }
            tally.count(is_known.then(|| seq - had));
            match random.u32(..4) {
                0 => drop(peer),
                1 => peer.stream.close(None).await.unwrap_or_default(),
                _ => open = Some((dialect, peer)),
            }
        }
        tally
    }
}

/// What there was to recover.
#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    recovered: usize,
    messages: i64,
    told_to_load: usize,
}

impl Tally {
    /// `missed`: `None` for one that is told to load.
    fn count(&mut self, missed: Option<i64>) {
        match missed {
            Some(missed) => {
                self.recovered += 1;
                self.messages += missed;
            }
            None => self.told_to_load += 1,
        }
    }
}

async fn come_back(count: usize, seed: u64) -> Tally {
    let prefix = format!("test-{}", uuid::Uuid::now_v7().simple());
    let (one, other) = two(testkit::services().redis_url.clone(), &prefix).await;
    let users: Vec<_> = (0..CLIENTS).map(|n| one.user(&format!("User {n}"))).collect();
    let writer = one.user("Writer");
    let mut all = vec![&writer];
    all.extend(&users);
    let room = one.room_of(&all).await;
    let place = Place::of(&one, &writer, room).await;
    let before = MOST_RECOVERED + 100;
    for n in 1..=before {
        one.said(&writer, room, &n.to_string()).await;
    }
    let model = Model { place, stored: AtomicI64::new(before), is_over: AtomicBool::new(false) };
    let urls = [one.url.clone(), other.url.clone()];
    let comers = users
        .iter()
        .zip(0..)
        .map(|(user, n)| model.come_back(&urls, user, count / CLIENTS, Rng::with_seed(seed.wrapping_mul(1000) + n)));

    let (tallies, ()) = tokio::join!(
        async {
            let tallies = join_all(comers).await;
            model.is_over.store(true, Ordering::Relaxed);
            tallies
        },
        model.write(&other, &writer),
    );

    tallies.into_iter().fold(Tally::default(), |sum, tally| Tally {
        recovered: sum.recovered + tally.recovered,
        messages: sum.messages + tally.messages,
        told_to_load: sum.told_to_load + tally.told_to_load,
    })
}

#[tokio::test]
async fn whoever_comes_back_gets_exactly_what_was_missed_or_is_told_to_load_anew() {
    let tally = come_back(1_600, 1).await;
    assert!(tally.recovered > 1_000 && tally.told_to_load > 100 && tally.messages > 50_000, "{tally:?}");
}

#[tokio::test]
#[ignore = "a minute and longer: AMPHI_TEST_COUNT (10000) comings back, as AMPHI_TEST_SEED has them"]
async fn ten_thousand_come_back() {
    let (count, seed) = (from_environment("AMPHI_TEST_COUNT", 10_000), from_environment("AMPHI_TEST_SEED", 1));
    println!("{:?}", come_back(usize::try_from(count).unwrap(), seed).await);
}

#[tokio::test]
async fn who_opens_a_room_while_something_is_said_there_hears_it_or_finds_it() {
    let chat = TestChat::start().await;
    let (ana, ben) = (chat.user("Ana"), chat.user("Ben"));
    let room = chat.room_of(&[&ana, &ben]).await;
    let place = Place::of(&chat, &ana, room).await;
    for n in 1..=200 {
        // Nobody else has the room open, and nothing else is said that could show what is missing.
        let (said, peer) = tokio::join!(chat.said(&ana, room, "hi"), async {
            let mut peer = Peer::come(&chat.url, Dialect::Rooms, &ben.token, &place, None).await.unwrap();
            loop {
                if let Heard::Joined { seq, .. } = peer.hear().await.unwrap() {
                    break (peer, seq);
                }
            }
        });
        assert_eq!(said["seq"], n);
        let (mut peer, joined) = peer;
        let mut heard = joined;
        while heard < n {
            if let Heard::Message(message) = peer.hear().await.unwrap() {
                heard = message.seq;
            }
        }
        peer.stream.close(None).await.unwrap();
        peer.closed().await;
    }
}
