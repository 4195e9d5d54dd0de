//! How many requests an address or a user may send.
//!
//! A request counts in a window that slides: all of the running window, and of the one before as much as still overlaps.
//! Windows are aligned to the clock, so that instances can add up what they counted: each decides by itself, without asking
//! anybody, and [`share`] tells the others a few times a second. Between two tellings they may let through a little more
//! together; without Redis each counts for itself.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backplane::Backplane;
use chassis::env::Rate;
use common::{SharedClock, UserId};
use foldhash::fast::RandomState;
use tokio_util::sync::CancellationToken;

/// Who is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Subject {
    V4([u8; 4]),
    /// The first 64 bits: one who has an IPv6 address has as many as there are.
    V6([u8; 8]),
    User(UserId),
    /// Everybody for whom there was no room.
    Others,
}

impl From<IpAddr> for Subject {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.octets()),
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, g, h, ..] = address.octets();
                Self::V6([a, b, c, d, e, f, g, h])
            }
        }
    }
}

impl Subject {
    /// Its name where instances share counts.
    fn name(&self) -> String {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        match self {
            Self::V4(bytes) => format!("v4:{}", hex(bytes)),
            Self::V6(bytes) => format!("v6:{}", hex(bytes)),
            Self::User(user) => format!("user:{user}"),
            Self::Others => "others".to_owned(),
        }
    }
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    pub is_allowed: bool,
    pub limit: u32,
    /// How many more are allowed now.
    pub remaining: u32,
    /// When the running window ends; for one that is refused, when the next will be allowed.
    pub reset: Duration,
}

const SHARDS: usize = 16;
/// How many subjects a shard counts in a window. Who comes after that shares the count of [`Subject::Others`].
const MOST: usize = 16 * 1024;
/// How often instances tell each other.
const SHARE_EVERY: Duration = Duration::from_millis(200);
/// The most subjects told of at once.
const BATCH: usize = 1000;

/// Counts, for one kind of subjects.
pub struct Limiter {
    /// Apart from other limiters in the backplane.
    name: &'static str,
    rate: Rate,
    clock: SharedClock,
    shards: [Mutex<Shard>; SHARDS],
}

#[derive(Default)]
struct Shard {
    /// The number of the running window since 1970.
    window: u64,
    /// Of the running window and of the one before: what a request needs lies in one place.
    counts: HashMap<Subject, Count, RandomState>,
    /// How many of them are of the running window.
    running: usize,
}

#[derive(Clone, Copy, Default)]
struct Count {
    /// The lower half of its window's number.
    window: u32,
    /// By all, in the window before that.
    before: u32,
    /// By this instance.
    own: u32,
    /// Of that, what the others have been told.
    told: u32,
    /// By all others, when last heard.
    others: u32,
}

impl Count {
    fn total(self) -> u32 {
        self.own.saturating_add(self.others)
    }
}

impl Limiter {
    #[must_use]
    pub fn new(name: &'static str, rate: Rate, clock: SharedClock) -> Self {
        Self { name, rate, clock, shards: Default::default() }
    }

    /// Counts a request of `subject`, if it is allowed. One that is refused does not count.
    #[must_use]
    pub fn count(&self, subject: impl Into<Subject>) -> Verdict {
        let subject = subject.into();
        let (window, into) = self.window();
        let mut shard = self.shard(&subject);
        shard.move_to(window);
        let (count, before) = shard.of(subject);
        let per = self.rate.per.as_secs_f64();
        let overlap = f64::from(before) * (1.0 - into / per);
        let free = f64::from(self.rate.limit) - overlap - f64::from(count.total());
        let limit = self.rate.limit;
        if free < 1.0 {
            // The running window has room again when enough of the one before has slid out, else at its end.
            let wanted = 1.0 - free;
            let slides = if before > 0 { wanted / f64::from(before) * per } else { per };
            let reset = if into + slides <= per && count.total() < limit { slides } else { per - into };
            return Verdict { is_allowed: false, limit, remaining: 0, reset: Duration::from_secs_f64(reset.max(0.0)) };
        }
        count.own += 1;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and the limit")]
        let remaining = (free - 1.0) as u32;
        Verdict { is_allowed: true, limit, remaining, reset: Duration::from_secs_f64(per - into) }
    }

    /// The number of the running window, and how many seconds of it are over.
    fn window(&self) -> (u64, f64) {
        let now = u64::try_from(self.clock.unix_millis()).unwrap_or(0);
        let per = u64::try_from(self.rate.per.as_millis()).unwrap_or(u64::MAX);
        #[expect(clippy::cast_precision_loss, reason = "at most an hour of milliseconds")]
        let into = (now % per) as f64 / 1000.0;
        (now / per, into)
    }

    fn shard(&self, subject: &Subject) -> MutexGuard<'_, Shard> {
        let last = match subject {
            Subject::V4(bytes) => bytes[3],
            Subject::V6(bytes) => bytes[7],
            Subject::User(user) => user.0.as_bytes()[15],
            Subject::Others => 0,
        };
        lock(&self.shards[usize::from(last) % SHARDS])
    }

    /// What the others have not been told of the running window.
    fn untold(&self) -> (u64, Vec<(Subject, u32)>) {
        let (window, _) = self.window();
        let mut untold = Vec::new();
        for shard in &self.shards {
            let mut shard = lock(shard);
            shard.move_to(window);
            let running = low(window);
            let news = shard.counts.iter().filter(|(_, count)| count.window == running && count.own > count.told);
            untold.extend(news.map(|(subject, count)| (*subject, count.own - count.told)));
        }
        (window, untold)
    }

    /// Others have been told `added` of `subject`, and all together have counted `total`.
    fn told(&self, window: u64, subject: Subject, added: u32, total: i64) {
        let mut shard = self.shard(&subject);
        if shard.window != window {
            return;
        }
        if let Some(count) = shard.counts.get_mut(&subject).filter(|count| count.window == low(window)) {
            count.told += added;
            let total = u32::try_from(total).unwrap_or(u32::MAX);
            count.others = total.saturating_sub(count.told);
        }
    }

    fn key(&self, window: u64, subject: &Subject) -> String {
        format!("rate:{}:{}:{window}", self.name, subject.name())
    }
}

impl Shard {
    fn move_to(&mut self, window: u64) {
        if self.window == window {
            return;
        }
        let before = low(window).wrapping_sub(1);
        let is_next = self.window + 1 == window;
        self.counts.retain(|_, count| is_next && count.window == before);
        self.running = 0;
        self.window = window;
    }

    /// What is counted for `subject` in the running window, and how many there were in the one before.
    fn of(&mut self, subject: Subject) -> (&mut Count, u32) {
        let window = low(self.window);
        if self.running >= MOST && self.counts.get(&subject).is_none_or(|count| count.window != window) {
            let before = self.counts.get(&subject).map_or(0, |count| count.total());
            return (self.running(Subject::Others), before);
        }
        let count = self.running(subject);
        let before = count.before;
        (count, before)
    }

    fn running(&mut self, subject: Subject) -> &mut Count {
        let window = low(self.window);
        let count = self.counts.entry(subject).or_insert(Count { window: window.wrapping_sub(1), ..Count::default() });
        if count.window != window {
            *count = Count { window, before: count.total(), ..Count::default() };
            self.running += 1;
        }
        count
    }
}

fn low(window: u64) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "neighbours differ in this half too")]
    let low = window as u32;
    low
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells other instances what `limiters` count, and hears what they do, until `shutdown`.
///
/// While the backplane is away, what was heard last stays, and what was not told is told later.
pub async fn share(limiters: Vec<std::sync::Arc<Limiter>>, backplane: Backplane, shutdown: CancellationToken) {
    let mut is_away = false;
    while tokio::time::timeout(SHARE_EVERY, shutdown.cancelled()).await.is_err() {
        let mut result = Ok(());
        for limiter in &limiters {
            result = result.and(tell(limiter, &backplane).await);
        }
        match result {
            Err(error) if !is_away => {
                tracing::warn!(%error, "rates are counted by this instance alone");
                is_away = true;
            }
            Ok(()) => is_away = false,
            Err(_) => {}
        }
    }
}

async fn tell(limiter: &Limiter, backplane: &Backplane) -> Result<(), backplane::Away> {
    let (window, untold) = limiter.untold();
    for batch in untold.chunks(BATCH) {
        let counts: Vec<_> =
            batch.iter().map(|(subject, added)| (limiter.key(window, subject), i64::from(*added))).collect();
        let totals = backplane.add_all(&counts, 2 * limiter.rate.per).await?;
        for ((subject, added), total) in batch.iter().zip(totals) {
            limiter.told(window, *subject, *added, total);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use chrono::TimeDelta;
    use common::{Clock as _, ManualClock};

    use super::*;

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    /// At the beginning of a window.
    fn limiter(limit: u32) -> (Limiter, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::default());
        let past = clock.now().timestamp_millis() % 10_000;
        clock.advance(TimeDelta::milliseconds(10_000 - past));
        (Limiter::new("test", Rate { limit, per: Duration::from_secs(10) }, clock.clone()), clock)
    }

    fn allowed(limiter: &Limiter, tries: u32) -> usize {
        (0..tries).filter(|_| limiter.count(ADDRESS).is_allowed).count()
    }

    #[test]
    fn so_many_are_allowed_and_no_more_until_time_has_passed() {
        let (limiter, clock) = limiter(10);
        assert_eq!(allowed(&limiter, 30), 10);

        clock.advance(TimeDelta::seconds(10));
        assert_eq!(allowed(&limiter, 30), 0, "all of the window before still overlaps");
        clock.advance(TimeDelta::seconds(5));
        assert_eq!(allowed(&limiter, 30), 5);
        clock.advance(TimeDelta::seconds(20));
        assert_eq!(allowed(&limiter, 30), 10);
    }

    #[test]
    fn the_next_is_allowed_when_it_was_said() {
        let (limiter, clock) = limiter(10);
        allowed(&limiter, 10);
        for _ in 0..30 {
            let verdict = limiter.count(ADDRESS);
            if verdict.is_allowed {
                continue;
            }
            assert!(verdict.reset > Duration::ZERO);
            clock.advance(TimeDelta::from_std(verdict.reset).unwrap() + TimeDelta::milliseconds(2));
            // At the end of a window all of it still overlaps: then it takes a second look.
            let again = limiter.count(ADDRESS);
            if !again.is_allowed {
                clock.advance(TimeDelta::from_std(again.reset).unwrap() + TimeDelta::milliseconds(2));
                assert!(limiter.count(ADDRESS).is_allowed);
            }
        }
    }

    #[test]
    fn what_remains_is_told() {
        let (limiter, _clock) = limiter(3);
        let remaining: Vec<_> = (0..4).map(|_| limiter.count(ADDRESS).remaining).collect();
        assert_eq!(remaining, [2, 1, 0, 0]);
    }

    #[test]
    fn subjects_are_counted_apart_and_ipv6_by_its_network() {
        let (limiter, _clock) = limiter(1);
        let count = |text: &str| limiter.count(text.parse::<IpAddr>().unwrap()).is_allowed;
        assert!(count("203.0.113.5"));
        assert!(count("203.0.113.6"));
        assert!(!count("::ffff:203.0.113.5"), "the same, written as IPv6");
        assert!(count("2001:db8::1"));
        assert!(!count("2001:db8::ffff"));
        assert!(count("2001:db8:0:1::1"));
        assert!(limiter.count(Subject::User(UserId::new())).is_allowed);
    }

    #[test]
    fn it_counts_so_many_subjects_and_the_rest_as_one() {
        let (limiter, _clock) = limiter(1);
        let all = u32::try_from(4 * SHARDS * MOST).unwrap();
        let allowed = (0..all).filter(|n| limiter.count(Subject::V4(n.to_be_bytes())).is_allowed).count();
        let held: usize = limiter.shards.iter().map(|shard| lock(shard).running).sum();
        assert!(held <= SHARDS * (MOST + 1), "{held}");
        assert!(allowed <= SHARDS * (MOST + 1), "{allowed}");
    }

    #[tokio::test]
    async fn what_another_instance_counted_counts_here_after_a_telling() {
        let backplane = Backplane::in_process();
        let (one, clock) = limiter(10);
        let two = Limiter::new("test", one.rate, clock.clone());
        assert_eq!(allowed(&one, 6), 6);
        assert_eq!(allowed(&two, 1), 1);

        for limiter in [&one, &two, &one] {
            // Whoever has nothing to tell hears nothing: it has no request to decide on either.
            assert!(limiter.count(ADDRESS).is_allowed);
            tell(limiter, &backplane).await.unwrap();
        }

        assert_eq!(allowed(&one, 30) + allowed(&two, 30), 1);
    }
}
