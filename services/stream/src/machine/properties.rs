//! Any sequence of calls, repeated, reordered, late, from two publishers and many viewers, ends as a simple model says:
//! once with the rules alone, many times; and once with the tables, in batches, on a real database.

use std::collections::{BTreeSet, HashMap};

use chrono::TimeDelta;
use common::{Clock as _, ManualClock, Secret, StreamId, UserId};
use proptest::prelude::*;

use super::*;
use crate::MIGRATIONS;
use crate::broadcasting::{self, Effects, Mode, Report};
use crate::call::{Call, Name, What};
use crate::domain::{Description, MediaServer, Status, StreamKey};
use crate::store::{keys, streams};
use crate::{heartbeats, machine};

const RULES: Rules =
    Rules { stale_after: Duration::from_secs(20), grace: Duration::from_secs(30), hold: Duration::from_secs(10) };

/// What happens. A repeated, reordered or late call is one that comes again, in another place, or after a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    Publish(u8),
    Update(u8),
    Done(u8),
    Play(u8),
    PlayDone(u8),
    Recorded(u8),
    /// The owner ends the broadcast.
    Stop,
    /// The media server was started anew: its connections are numbered anew.
    Restart,
    /// We look for what is silent.
    Sweep,
    Wait(u16),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        4 => (0..3u8).prop_map(Op::Publish),
        4 => (0..3u8).prop_map(Op::Update),
        3 => (0..3u8).prop_map(Op::Done),
        3 => (10..20u8).prop_map(Op::Play),
        3 => (10..20u8).prop_map(Op::PlayDone),
        2 => (0..4u8).prop_map(Op::Recorded),
        1 => Just(Op::Stop),
        1 => Just(Op::Restart),
        3 => Just(Op::Sweep),
        5 => prop_oneof![0..15u16, 15..60u16, 60..3600u16].prop_map(Op::Wait),
    ];
    prop::collection::vec(op, 1..60)
}

/// A connection: the run of the media server, and its number there.
type Client = (u32, u8);

/// What should be, said as plainly as possible. Seconds since the beginning.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Model {
    now: u64,
    run: u32,
    on_air: Option<Client>,
    heard_at: u64,
    /// A broadcast that is not over; while nobody is on air it can be gone on with until then.
    open_until: Option<u64>,
    began: usize,
    over: usize,
    /// Who published and was seen to leave (false), or was only not heard of any more (true).
    former: HashMap<Client, bool>,
    refused_until: u64,
    players: BTreeSet<Client>,
    files: BTreeSet<u8>,
}

impl Model {
    /// What follows from `op`, and whether a call is let through.
    fn step(&mut self, op: Op) -> bool {
        let silent_for = self.now - self.heard_at;
        match op {
            Op::Wait(seconds) => self.now += u64::from(seconds),
            Op::Restart => self.run += 1,
            Op::Publish(client) => {
                let client = (self.run, client);
                if self.now < self.refused_until {
                    return false;
                }
                match self.on_air {
                    Some(current) if current == client => {
                        self.heard_at = self.now;
                        return true;
                    }
                    Some(current) if current.0 == client.0 && silent_for <= 20 => return false,
                    Some(current) => self.leaves(current, true),
                    None => {}
                }
                self.goes_live(client);
            }
            Op::Update(client) => {
                let client = (self.run, client);
                if self.on_air == Some(client) {
                    self.heard_at = self.now;
                } else {
                    match (self.on_air, self.former.get(&client)) {
                        (_, None) => {}
                        (None, Some(true)) => self.goes_live(client),
                        _ => return false,
                    }
                }
            }
            Op::Done(client) => {
                let client = (self.run, client);
                if self.on_air == Some(client) {
                    self.leaves(client, false);
                }
            }
            Op::Play(client) => {
                self.players.insert((self.run, client));
            }
            Op::PlayDone(client) => {
                self.players.remove(&(self.run, client));
            }
            Op::Recorded(file) if self.began > 0 => {
                self.files.insert(file);
            }
            Op::Recorded(_) => {}
            Op::Stop => {
                if let Some(current) = self.on_air {
                    self.leaves(current, false);
                    self.refused_until = self.now + 10;
                }
                self.is_over();
            }
            Op::Sweep => {
                let was_due = self.on_air.is_none() && self.open_until.is_some_and(|until| until <= self.now);
                if let Some(current) = self.on_air
                    && silent_for > 20
                {
                    self.leaves(current, true);
                } else if was_due {
                    self.is_over();
                }
            }
        }
        true
    }

    fn leaves(&mut self, client: Client, is_silent: bool) {
        self.on_air = None;
        self.former.insert(client, is_silent);
        self.open_until = Some(self.now + 30);
    }

    fn is_over(&mut self) {
        if self.open_until.take().is_some() {
            self.over += 1;
            self.players.clear();
        }
    }

    fn goes_live(&mut self, client: Client) {
        if self.open_until.is_none_or(|until| until < self.now) {
            self.is_over();
            self.began += 1;
        }
        self.open_until = Some(u64::MAX);
        self.on_air = Some(client);
        self.former.remove(&client);
        self.heard_at = self.now;
    }

    fn seen(&self) -> Seen {
        Seen {
            on_air: self.on_air,
            began: self.began,
            over: self.over,
            players: self.players.clone(),
            viewers: if self.on_air.is_some() { self.players.len() } else { 0 },
            files: self.files.len(),
        }
    }
}

/// What can be seen from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    on_air: Option<Client>,
    began: usize,
    over: usize,
    players: BTreeSet<Client>,
    viewers: usize,
    files: usize,
}

fn connection((run, number): Client) -> Connection {
    Connection {
        media_server: MediaServer { name: "m1".to_owned(), run: run.to_string() },
        client_id: number.to_string(),
    }
}

fn client(connection: &Connection) -> Client {
    (connection.media_server.run.parse().unwrap(), connection.client_id.parse().unwrap())
}

/// The tables, in memory.
struct Tables {
    start: DateTime<Utc>,
    now: DateTime<Utc>,
    known: Situation,
    publications: Vec<(Publication, Client)>,
    players: BTreeSet<Client>,
    began: usize,
    over: usize,
    files: BTreeSet<u8>,
}

impl Tables {
    fn new() -> Self {
        let now = ManualClock::default().now();
        let known =
            Situation { stream: stream(now), broadcast: None, on_air: None, callers_last: None, is_player: false };
        let (publications, players, files) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        Self { start: now, now, known, publications, players, began: 0, over: 0, files }
    }

    fn step(&mut self, op: Op, run: u32) -> bool {
        let key = KeyId(1);
        let caller = |number| connection((run, number));
        let happening = match op {
            Op::Wait(seconds) => {
                self.now += TimeDelta::seconds(seconds.into());
                return true;
            }
            Op::Restart => return true,
            Op::Recorded(file) => {
                if self.began > 0 {
                    self.files.insert(file);
                }
                return true;
            }
            Op::Sweep => {
                let is_due = |broadcast: &Broadcast| {
                    broadcast.off_air.and_then(|off_air| off_air.open_until).is_some_and(|until| until <= self.now)
                };
                let happening = match &self.known.on_air {
                    Some(current) if current.is_stale(self.now, RULES.stale_after) => {
                        Happening::Gone { publication: current.id, reason: EndReason::Stale }
                    }
                    None if self.known.broadcast.as_ref().is_some_and(is_due) => Happening::Close,
                    _ => return true,
                };
                return self.happen(&happening, None);
            }
            Op::Publish(number) => Happening::Publish { caller: caller(number), key, under: None },
            Op::Update(number) => Happening::Heartbeat { caller: caller(number), key: Some(key) },
            Op::Done(number) | Op::PlayDone(number) => Happening::Leave { caller: caller(number) },
            Op::Play(number) => Happening::Play { caller: caller(number) },
            Op::Stop => return self.happen(&Happening::Stop { reason: EndReason::StoppedByOwner }, None),
        };
        let (Op::Publish(number) | Op::Update(number) | Op::Done(number) | Op::PlayDone(number) | Op::Play(number)) =
            op
        else {
            unreachable!("all others have returned")
        };
        self.happen(&happening, Some((run, number)))
    }

    fn happen(&mut self, happening: &Happening, caller: Option<Client>) -> bool {
        let last = self.publications.iter().rev().find(|(_, client)| Some(*client) == caller);
        self.known.callers_last = last.map(|(publication, _)| publication.clone());
        self.known.is_player = caller.is_some_and(|caller| self.players.contains(&caller));
        let step = decide(&self.known, happening, self.now, RULES);
        for change in step.changes {
            self.apply(change);
        }
        step.answer.is_ok()
    }

    fn apply(&mut self, change: Change) {
        match change {
            Change::Heard(id) => {
                let (now, current) = (self.now, self.known.on_air.as_mut().unwrap());
                assert_eq!(current.id, id);
                current.last_seen_at = now;
            }
            Change::TakeOff { publication, off_air, .. } => {
                let mut current = self.known.on_air.take().unwrap();
                assert_eq!(current.id, publication);
                current.end = Some((off_air.since, off_air.reason));
                let place = self.publications.iter().position(|(other, _)| other.id == publication).unwrap();
                self.publications[place].0 = current;
                self.known.broadcast.as_mut().unwrap().off_air = Some(off_air);
            }
            Change::Close { broadcast, off_air, started_at } => {
                assert!(off_air.since >= started_at, "an end before its beginning");
                assert_eq!(self.known.broadcast.take().unwrap().id, broadcast);
                self.over += 1;
                self.players.clear();
            }
            Change::Begin { encoder, .. } => {
                assert!(self.known.broadcast.is_none(), "two broadcasts at once");
                self.began += 1;
                let id = BroadcastId(i64::try_from(self.began).unwrap());
                self.known.broadcast = Some(Broadcast { id, started_at: self.now, off_air: None });
                self.publishes(encoder);
            }
            Change::GoOn { broadcast, encoder, .. } => {
                let open = self.known.broadcast.as_mut().unwrap();
                assert_eq!(open.id, broadcast);
                open.off_air = None;
                self.publishes(encoder);
            }
            Change::Hold { until } => self.known.stream.refused_until = Some(until),
            Change::PlayerCame(player) => {
                self.players.insert(client(&player));
            }
            Change::PlayerLeft(player) => {
                assert!(self.players.remove(&client(&player)), "a viewer left who was not there");
            }
            Change::Used(_) => {}
            Change::Rename(..) => unreachable!("nothing is confirmed here"),
        }
    }

    fn publishes(&mut self, encoder: Connection) {
        assert!(self.known.on_air.is_none(), "two encoders on air");
        let id = PublicationId(i64::try_from(self.publications.len()).unwrap());
        let caller = client(&encoder);
        let publication = Publication { id, encoder, last_seen_at: self.now, end: None };
        self.publications.push((publication.clone(), caller));
        self.known.on_air = Some(publication);
    }

    fn seen(&self) -> Seen {
        let on_air = self.known.on_air.as_ref().map(|current| client(&current.encoder));
        Seen {
            on_air,
            began: self.began,
            over: self.over,
            players: self.players.clone(),
            viewers: if on_air.is_some() { self.players.len() } else { 0 },
            files: self.files.len(),
        }
    }
}

fn stream(now: DateTime<Utc>) -> Stream {
    Stream {
        id: StreamId(1),
        user_id: UserId::new(),
        user_name: None,
        playback_id: Uuid::new_v4(),
        title: String::new(),
        description: None,
        status: Status::Ended,
        visibility: Visibility::Public,
        featured: false,
        scheduled_at: None,
        start_time: None,
        end_time: None,
        viewer_count: 0,
        thumbnail: None,
        pictured_at: None,
        refused_until: None,
        followers_told_at: None,
        created_at: now,
        updated_at: now,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_rules_do_what_the_model_does(ops in ops()) {
        let (mut model, mut tables) = (Model::default(), Tables::new());
        for op in ops {
            let run = model.run;
            prop_assert_eq!(tables.step(op, run), model.step(op), "{:?} after {} s", op, tables.now - tables.start);
            prop_assert_eq!(tables.seen(), model.seen(), "after {:?}", op);
        }
    }
}

/// The tables themselves, on a database of their own, with a clock that is moved.
struct Real {
    pool: outbox::Pool,
    clock: ManualClock,
    stream: StreamId,
    key: StreamKey,
    playback_id: Uuid,
    database: testkit::TestDatabase,
}

impl Real {
    async fn start() -> Self {
        let database = testkit::database().await;
        let pool = database.pool("stream").await;
        let url = Secret::new(database.url.clone());
        chassis::db::migrate(&url, "stream", vec![outbox::MIGRATIONS, MIGRATIONS]).await.unwrap();
        let clock = ManualClock::default();
        let (now, key) = (clock.now(), StreamKey::new());
        let mut conn = pool.get().await.unwrap();
        let stream = streams::insert(&mut conn, UserId::new(), &Description::default(), now).await.unwrap();
        keys::insert(&mut conn, stream, "default", &key, now).await.unwrap();
        let playback_id = streams::find(&mut conn, stream).await.unwrap().unwrap().playback_id;
        drop(conn);
        Self { pool, clock, stream, key, playback_id, database }
    }

    /// Calls of media servers are settled together, all others by themselves.
    async fn steps(&self, ops: &[Op], run: u32) -> Vec<bool> {
        let mut conn = self.pool.get().await.unwrap();
        let mut effects = Effects::new(self.clock.now(), RULES);
        if let Some(reports) = ops.iter().map(|op| self.report(*op, run)).collect::<Option<Vec<_>>>() {
            let in_short = heartbeats::answer(&mut conn, reports[..1].iter()).await.unwrap().remove(0);
            let outcomes = broadcasting::settle_within(&mut conn, &mut effects, &reports, Mode::ForGood).await.unwrap();
            effects.tell(&mut conn).await.unwrap();
            // What needs no transaction is answered as in one, and nothing else is.
            let is_in_short = outcomes[0].verdict == machine::still_there(PublicationId(0)).verdict;
            assert_eq!(in_short.map(|(outcome, _)| outcome), is_in_short.then(|| outcomes[0].clone()), "{:?}", ops[0]);
            return outcomes.into_iter().map(|outcome| outcome.answer.is_ok()).collect();
        }
        match ops {
            [Op::Wait(seconds)] => self.clock.advance(TimeDelta::seconds((*seconds).into())),
            [Op::Stop] => {
                let stop = Happening::Stop { reason: EndReason::StoppedByOwner };
                broadcasting::happen_within(&mut conn, &mut effects, &[(self.stream, stop)]).await.unwrap();
            }
            [Op::Sweep] => {
                let now = self.clock.now();
                let mut silent = broadcasting::find_stale(&mut conn, now, RULES).await.unwrap();
                silent.extend(broadcasting::find_abandoned(&mut conn, now).await.unwrap());
                broadcasting::happen_within(&mut conn, &mut effects, &silent).await.unwrap();
            }
            [Op::Restart] => {}
            _ => unreachable!("calls are reported"),
        }
        effects.tell(&mut conn).await.unwrap();
        vec![true]
    }

    fn report(&self, op: Op, run: u32) -> Option<Report> {
        let key = || Name::Key(self.key.clone());
        let public = || Name::Public(self.playback_id);
        let (number, what) = match op {
            Op::Publish(number) => (number, What::Publish { name: key(), under: None }),
            Op::Update(number) => (number, What::Heartbeat { name: key() }),
            Op::Done(number) => (number, What::Leave { name: key() }),
            Op::Play(number) => (number, What::Play { name: public() }),
            Op::PlayDone(number) => (number, What::Leave { name: public() }),
            Op::Recorded(file) => (0, What::Recorded { name: public(), path: format!("/rec/{file}.flv") }),
            Op::Stop | Op::Restart | Op::Sweep | Op::Wait(_) => return None,
        };
        let Connection { media_server, client_id } = connection((run, number));
        Some(Report { media_server, call: Call { client_id, what } })
    }

    async fn seen(&self) -> Seen {
        let (client, connection) = tokio_postgres::connect(&self.database.url, tokio_postgres::NoTls).await.unwrap();
        tokio::select! {
            seen = seen_by(&client) => seen,
            ended = connection => panic!("the connection ended: {ended:?}"),
        }
    }
}

async fn seen_by(client: &tokio_postgres::Client) -> Seen {
    let one = async |sql: &str| client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) as usize;
    let pairs = async |sql: &str| {
        let rows = client.query(sql, &[]).await.unwrap();
        let pair = |row: &tokio_postgres::Row| {
            (row.get::<_, String>(0).parse().unwrap(), row.get::<_, String>(1).parse().unwrap())
        };
        rows.iter().map(pair).collect::<BTreeSet<Client>>()
    };
    let event = async |name: &str| one(&format!("select count(*) from stream.outbox where name = '{name}'")).await;
    let on_air = pairs("select server_run, client_id from stream.publications where ended_at is null").await;
    let seen = Seen {
        on_air: on_air.into_iter().next(),
        began: event("stream.live.started.v1").await,
        over: event("stream.live.ended.v1").await,
        players: pairs("select server_run, client_id from stream.players").await,
        viewers: one("select viewer_count::bigint from stream.streams").await,
        files: event("stream.recording.ready.v1").await,
    };
    let is_live = one("select (status = 'live')::int::bigint from stream.streams").await == 1;
    assert_eq!(is_live, seen.on_air.is_some());
    assert_eq!(one("select count(*) from stream.broadcasts").await, seen.began);
    seen
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 50, ..ProptestConfig::default() })]

    #[test]
    fn the_tables_do_what_the_model_does(ops in ops()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (mut model, real) = (Model::default(), Real::start().await);
            let is_call = |op: &Op| !matches!(op, Op::Stop | Op::Restart | Op::Sweep | Op::Wait(_));
            // Calls that follow each other come at once, as many as there are.
            for batch in ops.chunk_by(|one, next| is_call(one) && is_call(next)) {
                let run = model.run;
                let expected: Vec<_> = batch.iter().map(|op| model.step(*op)).collect();
                prop_assert_eq!(real.steps(batch, run).await, expected, "{:?}", batch);
                prop_assert_eq!(real.seen().await, model.seen(), "after {:?}", batch);
            }
            Ok(())
        })?;
    }
}
