//! Lists and details of streams, kept in this process for a moment: many viewers ask the same.
//!
//! An answer belongs to the generation that it was loaded in. A change begins a new one, in the backplane, so that every
//! instance sees it at once: lists have one generation, each stream has its own, and one is everything's. An answer is
//! given only if its generation was the current one at some time after it was asked for; so nobody sees anything older
//! than a change that was answered before. Who asks for what is being loaded in the same generation waits for that, so a
//! thousand who ask at once are one query. Without the backplane every answer comes from the database.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use actix_web::web::Bytes;
use backplane::Backplane;
use chassis::Tasks;
use common::{Kind, Problem, StreamId, UserId};
use futures_util::FutureExt as _;
use futures_util::future::{Shared, WeakShared};
use metrics::Counter;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::config::CacheConfig;
use crate::domain::{StreamName, Visibility, Wanted};
use crate::error::StreamError;

/// Longer than any answer is kept: a generation that starts again must not meet answers of its former life.
const GENERATION_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// How many there are of them, by whatever is asked for: that changes with lists, so it is as good for as long.
const MOST_ANSWERS: usize = 10_000;
/// Of one kind, in bytes.
const MOST_BYTES: usize = 32 * 1024 * 1024;
/// What an answer takes besides its body, in bytes.
const OVERHEAD: usize = 256;
/// A backplane that has not answered is not asked again for so long: whoever asks has waited for it once.
const AWAY: Duration = Duration::from_millis(500);
/// Whoever looks up generations takes no more questions than this with one look.
const MOST_QUESTIONS: usize = 4096;

/// What is said of one stream, and who may see it.
#[derive(Debug)]
pub(crate) struct Detail {
    pub(crate) body: Bytes,
    pub(crate) owner: UserId,
    pub(crate) visibility: Visibility,
    pub(crate) playback_id: Uuid,
}

/// Which list is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ListKey {
    pub(crate) wanted: Wanted,
    pub(crate) page: u32,
    pub(crate) limit: u32,
}

pub(crate) struct Cache {
    is_on: bool,
    generations: Generations,
    lists: Arc<Answers<ListKey, Bytes>>,
    details: Arc<Answers<StreamId, Option<Arc<Detail>>>>,
    /// How many streams everybody can see.
    totals: Arc<Answers<(), i64>>,
    /// Whose a public name is. It is never another stream's.
    names: Arc<Answers<Uuid, Option<StreamId>>>,
}

impl Cache {
    pub(crate) fn new(backplane: Backplane, config: CacheConfig, tasks: &Tasks) -> Self {
        let detail_size = |detail: &Option<Arc<Detail>>| detail.as_ref().map_or(0, |detail| detail.body.len());
        Self {
            is_on: config.is_on,
            generations: Generations::new(backplane, tasks),
            lists: Answers::new("list", config.lists, Bytes::len),
            details: Answers::new("detail", config.details, detail_size),
            totals: Answers::new("total", config.lists, |_| 0),
            names: Answers::new("name", config.details, |_| 0),
        }
    }

    /// A page of a list, as it is sent.
    pub(crate) async fn list<F>(&self, key: ListKey, load: impl FnOnce() -> F) -> Result<Bytes, StreamError>
    where
        F: Future<Output = Result<Bytes, StreamError>> + Send + 'static,
    {
        self.get(&self.lists, key, Scope::Lists, load).await
    }

    /// What is said of one stream; `None` if there is none.
    pub(crate) async fn detail<F>(
        &self,
        id: StreamId,
        load: impl FnOnce() -> F,
    ) -> Result<Option<Arc<Detail>>, StreamError>
    where
        F: Future<Output = Result<Option<Arc<Detail>>, StreamError>> + Send + 'static,
    {
        self.get(&self.details, id, Scope::Stream(id), load).await
    }

    /// How many streams everybody can see, on air or not.
    pub(crate) async fn total<F>(&self, load: impl FnOnce() -> F) -> Result<i64, StreamError>
    where
        F: Future<Output = Result<i64, StreamError>> + Send + 'static,
    {
        self.get(&self.totals, (), Scope::Existing, load).await
    }

    /// Which stream is called so, if there is one.
    pub(crate) async fn id_of<F>(
        &self,
        name: StreamName,
        load: impl FnOnce(Uuid) -> F,
    ) -> Result<Option<StreamId>, StreamError>
    where
        F: Future<Output = Result<Option<StreamId>, StreamError>> + Send + 'static,
    {
        let playback_id = match name {
            StreamName::Id(id) => return Ok(Some(id)),
            StreamName::Playback(playback_id) => playback_id,
        };
        // In whatever generation: it was this stream's then, and is nobody else's since.
        if let Some(Some(id)) = self.names.find(&playback_id, |_| true).filter(|_| self.is_on) {
            return Ok(Some(id));
        }
        self.get(&self.names, playback_id, Scope::Existing, || load(playback_id)).await
    }

    async fn get<K, V, F>(
        &self,
        answers: &Arc<Answers<K, V>>,
        key: K,
        scope: Scope,
        load: impl FnOnce() -> F,
    ) -> Result<V, StreamError>
    where
        K: Hash + Eq + Clone + Send + Sync + 'static,
        V: Clone + Send + Sync + 'static,
        F: Future<Output = Result<V, StreamError>> + Send + 'static,
    {
        let generation = if self.is_on { self.generations.current(scope).await } else { None };
        match generation {
            Some(generation) => answers.get(key, generation, load).await,
            None => {
                answers.bypasses.increment(1);
                load().await
            }
        }
    }

    /// These streams look otherwise now: call it after the commit of a change, before it is answered.
    pub(crate) async fn forget(&self, changed: &[StreamId]) {
        self.begin(changed, &[Scope::Lists]).await;
    }

    /// These streams came, went, or are for others to see than before.
    pub(crate) async fn forget_existing(&self, changed: &[StreamId]) {
        self.begin(changed, &[Scope::Lists, Scope::Existing]).await;
    }

    /// Forgets everything.
    pub(crate) async fn forget_all(&self) {
        self.begin(&[], &[Scope::Everything]).await;
    }

    async fn begin(&self, changed: &[StreamId], scopes: &[Scope]) {
        let scopes = scopes.iter().copied().chain(changed.iter().map(|id| Scope::Stream(*id)));
        self.generations.begin(scopes).await;
    }
}

/// What has a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Scope {
    Everything,
    Lists,
    /// How many streams there are for everybody, and what they are called.
    Existing,
    Stream(StreamId),
}

impl Scope {
    /// The counter in the backplane.
    fn key(self) -> String {
        match self {
            Self::Everything => "streams:generation".to_owned(),
            Self::Lists => "streams:generation:lists".to_owned(),
            Self::Existing => "streams:generation:existing".to_owned(),
            Self::Stream(id) => format!("streams:generation:{id}"),
        }
    }
}

/// A generation: how many changes this process could not tell of, then everything's, and that of the scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Generation(u64, i64, i64);

/// The current generations, which all instances share.
struct Generations {
    backplane: Backplane,
    /// Changes that the backplane was not told of, as it was away: from then on nothing that we have kept is good.
    untold: Arc<AtomicU64>,
    /// To the task that asks another server; `None` where the generations are in this process.
    questions: Option<mpsc::UnboundedSender<Question>>,
}

struct Question {
    scope: Scope,
    answer: oneshot::Sender<Generation>,
}

impl Generations {
    fn new(backplane: Backplane, tasks: &Tasks) -> Self {
        let untold = Arc::new(AtomicU64::new(0));
        let questions = backplane.is_remote().then(|| {
            let (questions, asked) = mpsc::unbounded_channel();
            tasks.spawn(look_up(backplane.clone(), Arc::clone(&untold), asked, tasks.shutdown()));
            questions
        });
        Self { backplane, untold, questions }
    }

    /// The generation of `scope` at some time after this was called. `None` while the backplane is away.
    async fn current(&self, scope: Scope) -> Option<Generation> {
        match &self.questions {
            Some(questions) => {
                let (answer, answered) = oneshot::channel();
                questions.send(Question { scope, answer }).ok()?;
                answered.await.ok()
            }
            None => read(&self.backplane, &self.untold, &[scope]).await?.pop(),
        }
    }

    /// Begins new generations of these.
    async fn begin(&self, scopes: impl Iterator<Item = Scope>) {
        let counts: Vec<_> = scopes.map(|scope| (scope.key(), 1)).collect();
        if let Err(error) = self.backplane.add_all(&counts, GENERATION_LIFETIME).await {
            self.untold.fetch_add(1, Ordering::AcqRel);
            // Other instances that still reach the backplane give what they have, as long as they keep it.
            tracing::debug!(%error, "cached streams could not be dropped");
        }
    }
}

/// Answers questions until `shutdown`: all that have come while the backplane was asked are answered by asking it once more.
async fn look_up(
    backplane: Backplane,
    untold: Arc<AtomicU64>,
    mut asked: mpsc::UnboundedReceiver<Question>,
    shutdown: CancellationToken,
) {
    let mut away_until = Instant::now();
    loop {
        let mut questions = Vec::new();
        tokio::select! {
            count = asked.recv_many(&mut questions, MOST_QUESTIONS) => if count == 0 { return },
            () = shutdown.cancelled() => return,
        }
        let mut scopes: Vec<Scope> = Vec::new();
        let mut places: HashMap<Scope, usize> = HashMap::new();
        for Question { scope, .. } in &questions {
            places.entry(*scope).or_insert_with(|| {
                scopes.push(*scope);
                scopes.len() - 1
            });
        }
        // Who is not answered asks the database.
        if Instant::now() < away_until {
            continue;
        }
        let Some(generations) = read(&backplane, &untold, &scopes).await else {
            away_until = Instant::now() + AWAY;
            continue;
        };
        for Question { scope, answer } in questions {
            if let Some(generation) = places.get(&scope).and_then(|place| generations.get(*place)) {
                let _ = answer.send(*generation); // Whoever asked may be gone.
            }
        }
    }
}

/// The generations of `scopes`, in their order.
async fn read(backplane: &Backplane, untold: &AtomicU64, scopes: &[Scope]) -> Option<Vec<Generation>> {
    // Before the backplane is asked: what cannot be told meanwhile must not be missed.
    let untold = untold.load(Ordering::Acquire);
    let keys: Vec<_> = [&Scope::Everything].into_iter().chain(scopes).map(|scope| scope.key()).collect();
    let counts = backplane.counts(&keys).await.ok()?;
    let (everything, counts) = counts.split_first()?;
    let everything = match *everything {
        // The backplane has forgotten its counters, if it ever had them: they must not come to numbers that they had before.
        0 => {
            let (random, _) = Uuid::new_v4().as_u64_pair();
            let by = i64::try_from(random >> 16).unwrap_or(i64::MAX >> 16).max(1);
            let key = Scope::Everything.key();
            *backplane.add_all(&[(key, by)], GENERATION_LIFETIME).await.ok()?.first()?
        }
        everything => everything,
    };
    Some(counts.iter().map(|count| Generation(untold, everything, *count)).collect())
}

/// Answers of one kind.
struct Answers<K, V> {
    ttl: Duration,
    /// How many bytes an answer has.
    size: fn(&V) -> usize,
    kept: Mutex<Kept<K, V>>,
    hits: Counter,
    misses: Counter,
    joined: Counter,
    bypasses: Counter,
}

struct Kept<K, V> {
    entries: HashMap<K, Entry<V>>,
    bytes: usize,
}

struct Entry<V> {
    answer: Option<Answer<V>>,
    loading: Option<(Generation, WeakShared<Loading<V>>)>,
}

struct Answer<V> {
    value: V,
    size: usize,
    generation: Generation,
    expires: Instant,
}

type Loading<V> = Pin<Box<dyn Future<Output = Result<V, Failure>> + Send>>;

/// Why nothing could be loaded, for all who waited for it.
#[derive(Debug, Clone)]
struct Failure {
    kind: Kind,
    cause: Arc<str>,
}

impl<K, V> Answers<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    fn new(kind: &'static str, ttl: Duration, size: fn(&V) -> usize) -> Arc<Self> {
        let counter = |outcome| metrics::counter!("stream_cache_total", "kind" => kind, "outcome" => outcome);
        Arc::new(Self {
            ttl,
            size,
            kept: Mutex::new(Kept { entries: HashMap::new(), bytes: 0 }),
            hits: counter("hit"),
            misses: counter("miss"),
            joined: counter("joined"),
            bypasses: counter("bypass"),
        })
    }

    /// What is kept under `key`, if its generation is good.
    fn find(&self, key: &K, is_good: impl FnOnce(Generation) -> bool) -> Option<V> {
        self.lock().find(key, is_good)
    }

    async fn get<F>(
        self: &Arc<Self>,
        key: K,
        generation: Generation,
        load: impl FnOnce() -> F,
    ) -> Result<V, StreamError>
    where
        F: Future<Output = Result<V, StreamError>> + Send + 'static,
    {
        let loading = {
            let mut kept = self.lock();
            if let Some(value) = kept.find(&key, |of| of == generation) {
                drop(kept);
                self.hits.increment(1);
                return Ok(value);
            }
            match kept.loading(&key, generation) {
                Some(loading) => {
                    self.joined.increment(1);
                    loading
                }
                None => {
                    self.misses.increment(1);
                    let loading = self.loading(key.clone(), generation, load());
                    kept.make_room(0);
                    let entry = kept.entries.entry(key).or_insert(Entry { answer: None, loading: None });
                    // Weakly: if everybody who waits leaves, it ends, and gives its connection back.
                    entry.loading = loading.downgrade().map(|loading| (generation, loading));
                    loading
                }
            }
        };
        loading.await.map_err(StreamError::from)
    }

    fn loading(
        self: &Arc<Self>,
        key: K,
        generation: Generation,
        load: impl Future<Output = Result<V, StreamError>> + Send + 'static,
    ) -> Shared<Loading<V>> {
        let answers = Arc::clone(self);
        let loading = async move {
            let began = Instant::now();
            let value = load.await.map_err(Failure::of)?;
            let size = (answers.size)(&value) + OVERHEAD;
            let answer = Answer { value: value.clone(), size, generation, expires: began + answers.ttl };
            answers.lock().keep(key, answer);
            Ok(value)
        };
        let loading: Loading<V> = Box::pin(loading);
        loading.shared()
    }

    fn lock(&self) -> MutexGuard<'_, Kept<K, V>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Hash + Eq, V: Clone> Kept<K, V> {
    fn find(&self, key: &K, is_good: impl FnOnce(Generation) -> bool) -> Option<V> {
        let answer = self.entries.get(key)?.answer.as_ref()?;
        (is_good(answer.generation) && answer.expires > Instant::now()).then(|| answer.value.clone())
    }

    /// What is being loaded under `key`, in this generation: whatever was changed before, it sees.
    fn loading(&self, key: &K, generation: Generation) -> Option<Shared<Loading<V>>> {
        let (of, loading) = self.entries.get(key)?.loading.as_ref()?;
        loading.upgrade().filter(|_| *of == generation)
    }

    fn keep(&mut self, key: K, answer: Answer<V>) {
        self.make_room(answer.size);
        let entry = self.entries.entry(key).or_insert(Entry { answer: None, loading: None });
        // What others have begun to load since is newer.
        if entry.loading.as_ref().map_or(entry.answer.is_some(), |(of, _)| *of != answer.generation) {
            return;
        }
        entry.loading = None;
        self.bytes += answer.size;
        self.bytes -= entry.answer.replace(answer).map_or(0, |former| former.size);
    }

    /// Room for one more of `size`: if there is none what has expired goes, and if that is not enough, everything does.
    fn make_room(&mut self, size: usize) {
        let is_full = |kept: &Self| kept.entries.len() >= MOST_ANSWERS || kept.bytes + size > MOST_BYTES;
        if is_full(self) {
            let now = Instant::now();
            self.entries.retain(|_, entry| {
                entry.answer.as_ref().is_some_and(|answer| answer.expires > now)
                    || entry.loading.as_ref().is_some_and(|(_, loading)| loading.upgrade().is_some())
            });
            self.bytes = self.entries.values().filter_map(|entry| Some(entry.answer.as_ref()?.size)).sum();
        }
        if is_full(self) {
            self.entries.clear();
            self.bytes = 0;
        }
    }
}

impl Failure {
    fn of(error: StreamError) -> Self {
        let cause = common::problem::chain(&error).into();
        Self { kind: Problem::from(error).kind(), cause }
    }
}

impl From<Failure> for StreamError {
    fn from(Failure { kind, cause }: Failure) -> Self {
        let problem = kind.problem().caused_by(&*cause);
        // A second is what it takes to ask in vain.
        Self::Invalid(if kind.status == 503 { problem.retry_after(Duration::from_secs(1)) } else { problem })
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn cache(ttl: Duration) -> Cache {
        let config = CacheConfig { is_on: true, lists: ttl, details: ttl };
        Cache::new(Backplane::in_process(), config, &Tasks::default())
    }

    fn key(page: u32) -> ListKey {
        let wanted = Wanted { which: None, owner: None, is_owners: false, search: None, sort: None };
        ListKey { wanted, page, limit: 20 }
    }

    /// Asks for page 1, and answers with how often it was loaded.
    async fn ask(cache: &Cache, loads: &Arc<AtomicUsize>) -> Bytes {
        let loads = Arc::clone(loads);
        let load = || async move {
            let loads = loads.fetch_add(1, Ordering::SeqCst) + 1;
            tokio::task::yield_now().await;
            Ok(Bytes::from(loads.to_string()))
        };
        cache.list(key(1), load).await.unwrap()
    }

    #[tokio::test]
    async fn a_thousand_who_ask_at_once_are_one_query() {
        let (cache, loads) = (cache(HOUR), Arc::default());
        let answers = futures_util::future::join_all((0..1000).map(|_| ask(&cache, &loads))).await;
        assert!(answers.iter().all(|answer| answer == "1"));
        assert_eq!(ask(&cache, &loads).await, "1");
    }

    #[tokio::test]
    async fn a_change_is_seen_by_whoever_asks_after_it_also_while_something_is_loaded() {
        let (cache, loads) = (cache(HOUR), Arc::default());
        let before = ask(&cache, &loads);
        let after = async {
            cache.forget(&[]).await;
            ask(&cache, &loads).await
        };
        let (before, after) = tokio::join!(before, after);
        assert_eq!((&*before, &*after), (&b"1"[..], &b"2"[..]));
        assert_eq!(ask(&cache, &loads).await, "2", "what was begun before the change is not kept for others");
        cache.forget_all().await;
        assert_eq!(ask(&cache, &loads).await, "3");
    }

    #[tokio::test]
    async fn a_change_of_one_stream_drops_no_other() {
        let cache = cache(HOUR);
        let asked = AtomicUsize::new(0);
        let ask = async |id| {
            let load = || {
                asked.fetch_add(1, Ordering::SeqCst);
                async { Ok(None) }
            };
            cache.detail(StreamId(id), load).await.unwrap()
        };
        for id in [1, 2, 1, 2] {
            ask(id).await;
        }
        cache.forget(&[StreamId(1)]).await;
        for id in [1, 2] {
            ask(id).await;
        }
        assert_eq!(asked.into_inner(), 3);
    }

    #[tokio::test]
    async fn nothing_is_kept_longer_than_its_time() {
        let (cache, loads) = (cache(Duration::ZERO), Arc::default());
        assert_eq!(ask(&cache, &loads).await, "1");
        assert_eq!(ask(&cache, &loads).await, "2");
    }

    #[tokio::test]
    async fn who_leaves_while_it_is_loaded_does_not_hold_up_the_others() {
        let (cache, loads) = (cache(HOUR), Arc::default());
        {
            let left = cache.list(key(1), pending);
            tokio::select! { biased; _ = left => {}, () = tokio::task::yield_now() => {} }
        }
        assert_eq!(ask(&cache, &loads).await, "1");
    }

    #[tokio::test]
    async fn all_who_wait_for_what_fails_are_told() {
        let cache = cache(HOUR);
        let fail = || async {
            tokio::task::yield_now().await;
            Err(StreamError::Database(diesel::result::Error::BrokenTransactionManager))
        };
        for answer in futures_util::future::join_all((0..3).map(|_| cache.list(key(1), fail))).await {
            assert_eq!(Problem::from(answer.unwrap_err()).kind().status, 503);
        }
        let loads = Arc::default();
        assert_eq!(ask(&cache, &loads).await, "1", "a failure is not kept");
    }

    #[tokio::test]
    async fn it_never_holds_more_than_its_bounds() {
        let cache = cache(HOUR);
        for page in 0..20_000 {
            cache.list(key(page), || async { Ok(Bytes::from_static(&[0; 8192])) }).await.unwrap();
            let kept = cache.lists.lock();
            assert!(kept.entries.len() <= MOST_ANSWERS && kept.bytes <= MOST_BYTES);
        }
    }
}
