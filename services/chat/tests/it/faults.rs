//! Everything is killed, again and again, while clients of all dialects write at two instances. What they have heard, what
//! was acknowledged and what is stored are then compared.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use events::{Event as _, UserRegistered};
use fastrand::Rng;
use futures_util::future::join_all;
use serde_json::Value;
use testkit::{Postgres, Program, RabbitMq, Redis, eventually, free_port};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::peers::{DIALECTS, Dialect, Gone, Heard, Peer, Place, Seen};
use crate::support::{TestChat, User, from_environment};

/// So many messages of a client wait for their acknowledgement.
const WINDOW: usize = 4;
/// So many are acknowledged between two faults, and while what can be done without is away.
const PROGRESS: usize = 40;
/// A client that was refused or lost its connection tries again after up to this time.
const PAUSE_MS: u64 = 60;
/// How long it may take until everybody has heard everything, once nothing is killed any more.
const SETTLES_WITHIN: Duration = Duration::from_secs(60);

/// What the clients have in common.
struct World {
    place: Place,
    /// The highest number that was acknowledged to anybody.
    acknowledged_up_to: AtomicI64,
    acknowledged: AtomicUsize,
    refused: AtomicUsize,
    /// How often a client has lost its connection, or got none.
    lost: AtomicUsize,
    /// No new messages are written.
    is_over: AtomicBool,
    /// So many clients have nothing more to send.
    done: AtomicUsize,
    /// The number of the last message, once it is known.
    end: watch::Sender<Option<i64>>,
    /// How far each client is, for whoever wonders why it takes so long.
    heard: Mutex<HashMap<usize, i64>>,
}

/// A message on its way.
struct Pending {
    name: String,
    /// What was acknowledged before this was sent for the first time comes before it.
    floor: i64,
    is_underway: bool,
}

/// What a client has been told.
#[derive(Default)]
struct Transcript {
    /// From the first message on, without a gap.
    heard: Vec<Seen>,
    /// The name and number of each of its own messages.
    acknowledged: Vec<(String, i64)>,
}

/// A client that writes and reads, and comes back by itself.
struct Client<'a> {
    world: &'a World,
    number: usize,
    dialect: Dialect,
    user: &'a User,
    urls: [String; 2],
    random: Rng,
    pending: VecDeque<Pending>,
    written: usize,
    is_done: bool,
    transcript: Transcript,
}

impl Client<'_> {
    async fn live(mut self) -> Transcript {
        let mut end = self.world.end.subscribe();
        let mut attempt = self.number;
        loop {
            let url = self.urls[attempt % 2].clone();
            attempt += 1;
            let had = self.had();
            let come = Peer::come(&url, self.dialect, &self.user.token, &self.world.place, Some(had)).await;
            if let Ok(mut peer) = come
                && self.talk(&mut peer, &mut end).await.is_ok()
            {
                return self.transcript;
            }
            self.world.lost.fetch_add(1, Ordering::Relaxed);
            self.pause().await;
        }
    }

    /// Writes and reads over one connection, until it breaks or all was heard.
    async fn talk(&mut self, peer: &mut Peer, end: &mut watch::Receiver<Option<i64>>) -> Result<(), Gone> {
        for pending in &mut self.pending {
            pending.is_underway = false;
        }
        let mut is_joined = false;
        loop {
            if *end.borrow_and_update() == Some(self.had()) {
                return Ok(());
            }
            if is_joined {
                self.write(peer).await?;
            }
            tokio::select! {
                heard = peer.hear() => match heard? {
                    Heard::Joined { seq, recovered } => {
                        assert_eq!(recovered, Some(true), "{:?} had {} of {seq}", self.dialect, self.had());
                        is_joined = true;
                    }
                    Heard::Message(seen) => self.read(seen),
                    Heard::Stored { name, seq } => self.is_stored(&name, seq),
                    Heard::Refused { name, code } => {
                        assert!(["unavailable", "too-busy"].contains(&&*code), "{:?} is refused: {code}", self.dialect);
                        self.world.refused.fetch_add(1, Ordering::Relaxed);
                        // It could not even join.
                        let Some(name) = name else { return Err(Gone(0)) };
                        for pending in self.pending.iter_mut().filter(|pending| pending.name == name) {
                            pending.is_underway = false;
                        }
                        self.pause().await;
                    }
                    Heard::Other => {}
                },
                changed = end.changed() => changed.unwrap(),
            }
        }
    }

    async fn write(&mut self, peer: &mut Peer) -> Result<(), Gone> {
        while self.pending.len() < WINDOW && !self.world.is_over.load(Ordering::Relaxed) {
            self.written += 1;
            let name = format!("{}-{}", self.number, self.written);
            let floor = self.world.acknowledged_up_to.load(Ordering::SeqCst);
            self.pending.push_back(Pending { name, floor, is_underway: false });
        }
        for pending in self.pending.iter_mut().filter(|pending| !pending.is_underway) {
            peer.send(&pending.name, &format!("content of {}", pending.name)).await?;
            pending.is_underway = true;
        }
        if self.pending.is_empty() && !self.is_done {
            self.is_done = true;
            self.world.done.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn read(&mut self, seen: Seen) {
        assert_eq!(seen.seq, self.had() + 1, "{:?} has heard {seen:?} out of order", self.dialect);
        self.transcript.heard.push(seen);
        self.world.heard.lock().unwrap().insert(self.number, self.had());
    }

    fn is_stored(&mut self, name: &str, seq: i64) {
        // Sent twice, it may be acknowledged twice.
        let Some(index) = self.pending.iter().position(|pending| pending.name == name) else {
            assert!(self.transcript.acknowledged.contains(&(name.to_owned(), seq)), "{name} is {seq} and another");
            return;
        };
        let pending = self.pending.remove(index).unwrap();
        assert!(seq > pending.floor, "{name} is {seq}, and was sent after {} was acknowledged", pending.floor);
        self.world.acknowledged_up_to.fetch_max(seq, Ordering::SeqCst);
        self.world.acknowledged.fetch_add(1, Ordering::Relaxed);
        self.transcript.acknowledged.push((pending.name, seq));
    }

    fn had(&self) -> i64 {
        i64::try_from(self.transcript.heard.len()).unwrap()
    }

    async fn pause(&mut self) {
        sleep(Duration::from_millis(self.random.u64(1..PAUSE_MS))).await;
    }
}

/// What is taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// kill -9 of an instance.
    Chat(usize),
    /// kill -9 of the server.
    Postgres,
    /// `pg_ctl stop -m immediate`.
    PostgresAtOnce,
    Redis,
    /// It takes connections, and answers nothing.
    RedisHangs,
    RabbitMq,
}

const FAULTS: [Fault; 7] = [
    Fault::Chat(0),
    Fault::Chat(1),
    Fault::Postgres,
    Fault::PostgresAtOnce,
    Fault::Redis,
    Fault::RedisHangs,
    Fault::RabbitMq,
];

/// Two instances, and all that they need, each to be taken away.
struct Machines {
    chat: TestChat,
    addresses: [String; 2],
    programs: [Option<Program>; 2],
    postgres: Postgres,
    redis: Redis,
    rabbit: RabbitMq,
}

impl Machines {
    async fn start() -> Self {
        let (postgres, redis, rabbit) = tokio::join!(Postgres::private(), Redis::private(), RabbitMq::private());
        let settings = vec![
            ("REDIS_URL", redis.url()),
            ("REDIS_PREFIX", "test".to_owned()),
            ("AMQP_URL", rabbit.url()),
            ("LOG_LEVEL", "warn".to_owned()),
        ];
        let addresses = [0, 1].map(|_| format!("127.0.0.1:{}", free_port()));
        // The test's own, which is left alone.
        let chat = TestChat::on(testkit::database_on(&postgres.url()).await, settings).await;
        let mut machines = Self { chat, addresses, programs: [None, None], postgres, redis, rabbit };
        for number in [0, 1] {
            machines.start_chat(number).await;
        }
        machines
    }

    async fn start_chat(&mut self, number: usize) {
        self.programs[number] = Some(self.chat.house.program(&self.addresses[number]).await);
    }

    async fn take_away(&mut self, fault: Fault) {
        match fault {
            Fault::Chat(number) => self.programs[number].take().unwrap().kill(),
            Fault::Postgres => self.postgres.kill().await,
            Fault::PostgresAtOnce => self.postgres.stop_at_once().await,
            Fault::Redis => self.redis.kill().await,
            Fault::RedisHangs => self.redis.pause().await,
            Fault::RabbitMq => self.rabbit.kill().await,
        }
    }

    async fn bring_back(&mut self, fault: Fault) {
        match fault {
            Fault::Chat(number) => self.start_chat(number).await,
            Fault::Postgres | Fault::PostgresAtOnce => self.postgres.start().await,
            Fault::Redis => self.redis.start().await,
            Fault::RedisHangs => self.redis.resume().await,
            Fault::RabbitMq => self.rabbit.start().await,
        }
    }
}

impl World {
    /// Waits until so many more were acknowledged.
    async fn goes_on(&self) {
        let before = self.acknowledged.load(Ordering::Relaxed);
        more_than(&self.acknowledged, before + PROGRESS, "messages are acknowledged").await;
    }

    /// Waits until the clients have met it.
    async fn meets(&self, faults: &[Fault]) {
        let before = [&self.lost, &self.refused].map(|count| count.load(Ordering::Relaxed));
        for fault in faults {
            match fault {
                Fault::Postgres | Fault::PostgresAtOnce => {
                    eventually("clients are refused", async || {
                        let met = self.refused.load(Ordering::Relaxed) + self.lost.load(Ordering::Relaxed);
                        (met > before[0] + before[1] + 3).then_some(())
                    })
                    .await;
                }
                // Chat goes on without it: at the other instance, where all may be already.
                Fault::Chat(_) | Fault::Redis | Fault::RedisHangs | Fault::RabbitMq if faults.len() == 1 => {
                    self.goes_on().await;
                }
                Fault::Chat(_) | Fault::Redis | Fault::RedisHangs | Fault::RabbitMq => {}
            }
        }
    }
}

async fn more_than(count: &AtomicUsize, least: usize, what: &str) {
    eventually(what, async || (count.load(Ordering::Relaxed) > least).then_some(())).await;
}

/// What is taken away in each round: everything once, and then, as `random` has it, one or two things at a time.
fn plan(rounds: usize, random: &mut Rng) -> Vec<Vec<Fault>> {
    let mut each_once = FAULTS.to_vec();
    random.shuffle(&mut each_once);
    let mut plan: Vec<Vec<Fault>> = each_once.into_iter().map(|fault| vec![fault]).collect();
    while plan.len() < rounds {
        let mut faults = vec![random.choice(FAULTS).unwrap()];
        let other = random.choice(FAULTS).unwrap();
        let is_same_server = |one: Fault| matches!(one, Fault::Postgres | Fault::PostgresAtOnce);
        let is_redis = |one: Fault| matches!(one, Fault::Redis | Fault::RedisHangs);
        let can_both = other != faults[0]
            && !(is_same_server(other) && is_same_server(faults[0]))
            && !(is_redis(other) && is_redis(faults[0]));
        if can_both && random.bool() {
            faults.push(other);
        }
        plan.push(faults);
    }
    plan.truncate(rounds);
    plan
}

async fn survive(rounds: usize, seed: u64) {
    let mut random = Rng::with_seed(seed);
    let mut machines = Machines::start().await;
    let users: Vec<_> = (0..6).map(|n| machines.chat.user(&format!("User {n}"))).collect();
    let room = machines.chat.room_of(&users.iter().collect::<Vec<_>>()).await;
    let world = World {
        place: Place::of(&machines.chat, &users[0], room).await,
        acknowledged_up_to: AtomicI64::new(0),
        acknowledged: AtomicUsize::new(0),
        refused: AtomicUsize::new(0),
        lost: AtomicUsize::new(0),
        is_over: AtomicBool::new(false),
        done: AtomicUsize::new(0),
        end: watch::Sender::new(None),
        heard: Mutex::default(),
    };
    let urls = machines.addresses.clone().map(|address| format!("http://{address}"));
    // Two of each dialect: they begin at different instances.
    let clients = users.iter().enumerate().map(|(number, user)| Client {
        world: &world,
        number,
        dialect: DIALECTS[number / 2],
        user,
        urls: urls.clone(),
        random: Rng::with_seed(random.u64(..)),
        pending: VecDeque::new(),
        written: 0,
        is_done: false,
        transcript: Transcript::default(),
    });
    let clients: Vec<_> = clients.map(Client::live).collect();
    let count = clients.len();
    let plan = plan(rounds, &mut random);

    let (transcripts, registered) = tokio::join!(join_all(clients), async {
        let mut registered = Vec::new();
        for faults in &plan {
            world.goes_on().await;
            for fault in faults {
                machines.take_away(*fault).await;
            }
            world.meets(faults).await;
            if faults.contains(&Fault::RabbitMq) && faults.len() == 1 {
                let user = UserRegistered { full_name: "Told while away".to_owned(), ..UserRegistered::example() };
                machines.chat.told(&user).await;
                registered.push(user.user_id);
            }
            // Servers first: an instance waits for them.
            for fault in faults.iter().filter(|fault| !matches!(fault, Fault::Chat(_))) {
                machines.bring_back(*fault).await;
            }
            for fault in faults.iter().filter(|fault| matches!(fault, Fault::Chat(_))) {
                machines.bring_back(*fault).await;
            }
        }
        world.goes_on().await;
        world.is_over.store(true, Ordering::Relaxed);
        let all_are_told = async {
            while world.done.load(Ordering::Relaxed) < count {
                sleep(Duration::from_millis(20)).await;
            }
            let last = machines.chat.stored(room).await.len();
            world.end.send_replace(Some(i64::try_from(last).unwrap()));
            world.end.closed().await;
        };
        if timeout(SETTLES_WITHIN, all_are_told).await.is_err() {
            let heard = world.heard.lock().unwrap().clone();
            panic!("somebody has not heard all {:?}: {heard:?}, of {plan:?}", *world.end.borrow());
        }
        registered
    });

    let stored = messages(&machines.chat, room).await;
    check(&stored, &transcripts);
    println!("seed {seed}: {} messages, {} lost connections, {plan:?}", stored.len(), world.lost.into_inner());
    for user_id in registered {
        let sql = "select full_name from chat.users where user_id = $1::text::uuid";
        eventually("what was told while RabbitMQ was away has arrived", async || {
            (!machines.chat.query(sql, &[&user_id.to_string()]).await.is_empty()).then_some(())
        })
        .await;
    }
}

/// What the table has of the room.
async fn messages(chat: &TestChat, room: i64) -> Vec<Seen> {
    let sql = "select seq, message_id, content, client_message_id from chat.messages where room_id = $1 order by seq";
    let rows = chat.query(sql, &[&room]).await;
    rows.iter().map(|row| Seen { seq: row.get(0), id: row.get(1), content: row.get(2), name: row.get(3) }).collect()
}

/// Compares what clients were told with what is stored.
fn check(stored: &[Seen], transcripts: &[Transcript]) {
    assert!(stored.iter().zip(1..).all(|(message, seq)| message.seq == seq), "numbered without gaps");
    assert!(stored.is_sorted_by(|one, next| one.id < next.id), "ids rise");
    let mut acknowledged = HashMap::new();
    for transcript in transcripts {
        // Nothing seen is gone or another, and nothing was missed: the whole table, in its order.
        assert_eq!(transcript.heard, stored);
        for (name, seq) in &transcript.acknowledged {
            assert_eq!(acknowledged.insert(name.as_str(), *seq), None, "{name} is acknowledged as two");
        }
    }
    for message in stored {
        let name = message.name.as_deref().unwrap();
        assert_eq!(acknowledged.remove(name), Some(message.seq), "{name} is stored once, under its number");
        assert_eq!(message.content, format!("content of {name}"));
    }
    assert!(acknowledged.is_empty(), "acknowledged and not stored: {acknowledged:?}");
}

#[tokio::test]
async fn whatever_is_killed_nothing_acknowledged_is_lost_doubled_or_out_of_order() {
    survive(FAULTS.len(), 1).await;
}

#[tokio::test]
#[ignore = "minutes: AMPHI_TEST_ROUNDS (60) of kills, as AMPHI_TEST_SEED has them"]
async fn whatever_is_killed_for_a_long_time() {
    let rounds = from_environment("AMPHI_TEST_ROUNDS", 60);
    survive(usize::try_from(rounds).unwrap(), from_environment("AMPHI_TEST_SEED", 2)).await;
}

/// What the private port says of an instance.
async fn readiness(chat: &TestChat) -> Value {
    let url = format!("{}/readyz", chat.program.private_port());
    chat.client.get(url).send().await.unwrap().json().await.unwrap()
}

#[tokio::test]
async fn without_redis_readiness_says_degraded_and_requests_are_taken() {
    let redis = Redis::private().await;
    let settings = vec![("REDIS_URL", redis.url()), ("REDIS_PREFIX", "test".to_owned())];
    let chat = TestChat::with(settings).await;
    assert_eq!(readiness(&chat).await["status"], "ready");
    let ana = chat.user("Ana");
    let room = chat.room_of(&[&ana]).await;

    redis.kill().await;

    eventually("it says so", async || (readiness(&chat).await["status"] == "degraded").then_some(())).await;
    chat.said(&ana, room, "all the same").await;
    redis.start().await;
    eventually("it is well again", async || (readiness(&chat).await["status"] == "ready").then_some(())).await;
}

#[test]
fn the_check_finds_what_is_wrong() {
    let seen = |seq: i64, name: &str| Seen {
        seq,
        id: seq,
        content: format!("content of {name}"),
        name: Some(name.to_owned()),
    };
    let stored = vec![seen(1, "a"), seen(2, "b")];
    let transcript = |heard: &[Seen], acknowledged: &[(&str, i64)]| Transcript {
        heard: heard.to_vec(),
        acknowledged: acknowledged.iter().map(|(name, seq)| ((*name).to_owned(), *seq)).collect(),
    };
    let acknowledged = [("a", 1), ("b", 2)];
    check(&stored, &[transcript(&stored, &acknowledged)]);
    for (what, stored, heard, acknowledged) in [
        ("lost", vec![seen(1, "a")], vec![seen(1, "a")], vec![("a", 1), ("b", 2)]),
        ("doubled", vec![seen(1, "a"), seen(2, "a")], vec![seen(1, "a"), seen(2, "a")], vec![("a", 1)]),
        ("gone", vec![seen(1, "a")], stored.clone(), vec![("a", 1)]),
        ("missed", stored.clone(), vec![seen(1, "a")], vec![("a", 1), ("b", 2)]),
        ("reordered", stored.clone(), vec![seen(1, "b"), seen(2, "a")], vec![("a", 1), ("b", 2)]),
        ("another number", stored.clone(), stored.clone(), vec![("a", 2), ("b", 1)]),
        ("a gap", vec![seen(1, "a"), seen(3, "b")], vec![seen(1, "a"), seen(3, "b")], vec![("a", 1), ("b", 3)]),
    ] {
        let found = std::panic::catch_unwind(|| check(&stored, &[transcript(&heard, &acknowledged)]));
        assert!(found.is_err(), "{what}");
    }
}
