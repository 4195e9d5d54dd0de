//! The instances of one service, as the whole process knows them: where they are, and what they say of themselves.
//!
//! One task a service finds them by name and asks how they are ([`Fleet::keep_watch`]). Each worker thread reads what it
//! found: two atomic numbers a request, no lock.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::{OnceCell, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::address::{Address, Addresses};
use super::probe::{Finding, probe};
use super::resolve::Resolve;

/// How many probes in a row must fail to take an instance out.
const FAILED_PROBES: u32 = 2;
/// How long finding the addresses of one host may take.
const RESOLVE_WAIT: Duration = Duration::from_secs(5);
/// How soon it is tried again when no instance is known at all.
const RESOLVE_AGAIN: Duration = Duration::from_secs(1);
/// Nothing is asked or looked up more often than this.
const LEAST_PAUSE: Duration = Duration::from_millis(10);
/// The most instances of a service that are used.
const MAX_INSTANCES: usize = 256;

/// How a service is watched.
#[derive(Debug, Clone, Copy)]
pub struct Watch {
    /// Where an instance says whether requests should come: 503 if not. `None`: nowhere.
    pub probe: Option<&'static str>,
    /// How often it is asked. It may take as long to answer.
    pub probe_every: Duration,
    /// How often names are resolved again.
    pub resolve_every: Duration,
}

/// All instances of one service.
pub struct Fleet {
    service: &'static str,
    addresses: Addresses,
    watch: Watch,
    resolver: Arc<dyn Resolve>,
    members: watch::Sender<Members>,
    /// Set once the names were looked up for the first time, whatever that brought.
    found_first: OnceCell<()>,
}

/// The instances that are known, in no order that means anything.
pub(super) type Members = Arc<[Arc<Member>]>;

/// One instance.
#[derive(Debug)]
pub(super) struct Member {
    address: SocketAddr,
    /// Which of the service's addresses it was found by.
    found_by: usize,
    /// A [`State`].
    state: AtomicU8,
    /// How often it was back after it had been out.
    returns: AtomicU32,
    /// Probes that failed since one did not.
    failed_probes: AtomicU32,
    /// What it calls itself. 0 as long as it has not said.
    name: AtomicU64,
}

/// What probes say of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum State {
    Ready,
    /// It wants no more requests, and finishes those that it has.
    Leaving,
    Away,
}

impl Member {
    fn new(address: SocketAddr, found_by: usize) -> Self {
        Self {
            address,
            found_by,
            // Until it was asked, there is no reason to think otherwise.
            state: AtomicU8::new(State::Ready as u8),
            returns: AtomicU32::new(0),
            failed_probes: AtomicU32::new(0),
            name: AtomicU64::new(0),
        }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn is_ready(&self) -> bool {
        self.state.load(Ordering::Relaxed) == State::Ready as u8
    }

    /// Whether it is the one that calls itself `name`, and there: one that is leaving goes on with what it began.
    pub(super) fn goes_on_as(&self, name: u64) -> bool {
        self.name.load(Ordering::Relaxed) == name && self.state.load(Ordering::Relaxed) != State::Away as u8
    }

    /// Changes when it comes back.
    pub(super) fn returns(&self) -> u32 {
        self.returns.load(Ordering::Relaxed)
    }

    /// Sets the state. Answers whether it was another before.
    fn turn(&self, state: State) -> bool {
        let has_changed = self.state.swap(state as u8, Ordering::Relaxed) != state as u8;
        if has_changed && state == State::Ready {
            self.returns.fetch_add(1, Ordering::Relaxed);
        }
        has_changed
    }

    fn note(&self, service: &'static str, finding: Finding) {
        let instance = self.address;
        match finding {
            Finding::Ready(name) => {
                self.failed_probes.store(0, Ordering::Relaxed);
                self.name.store(name.unwrap_or_default(), Ordering::Relaxed);
                if self.turn(State::Ready) {
                    tracing::info!(service, %instance, "an instance is back");
                }
            }
            Finding::Leaving => {
                self.failed_probes.store(0, Ordering::Relaxed);
                if self.turn(State::Leaving) {
                    tracing::info!(service, %instance, "an instance wants no more requests");
                }
            }
            Finding::Failed(why) => {
                let failed = self.failed_probes.fetch_add(1, Ordering::Relaxed) + 1;
                if failed >= FAILED_PROBES && self.turn(State::Away) {
                    tracing::warn!(service, %instance, %why, "an instance is away");
                }
            }
        }
    }
}

impl Fleet {
    /// The instances of `service` at `addresses`. Those given by number are known at once.
    #[must_use]
    pub fn new(service: &'static str, addresses: Addresses, watch: Watch, resolver: Arc<dyn Resolve>) -> Arc<Self> {
        let watch = Watch {
            probe_every: watch.probe_every.max(LEAST_PAUSE),
            resolve_every: watch.resolve_every.max(LEAST_PAUSE),
            ..watch
        };
        let fleet = Self {
            service,
            addresses,
            watch,
            resolver,
            members: watch::Sender::default(),
            found_first: OnceCell::new(),
        };
        fleet.replace(fleet.addresses.iter().map(|address| Ok(address.ip().into_iter().collect())).collect());
        if fleet.addresses.iter().all(|address| address.ip().is_some()) {
            // Nothing is left to be found.
            let _ = fleet.found_first.set(());
        }
        Arc::new(fleet)
    }

    /// The service, for logs.
    #[must_use]
    pub fn service(&self) -> &'static str {
        self.service
    }

    /// Where the service is, as it was configured.
    #[must_use]
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// How soon an instance that is out may be back.
    pub(super) fn probe_every(&self) -> Duration {
        self.watch.probe_every
    }

    pub(super) fn members(&self) -> watch::Receiver<Members> {
        self.members.subscribe()
    }

    /// Ready once the names were looked up for the first time.
    pub(super) async fn find_first(&self) {
        self.found_first.get_or_init(|| self.resolve()).await;
    }

    /// Finds the instances and asks how they are, again and again, until `shutdown`.
    pub async fn keep_watch(self: Arc<Self>, shutdown: CancellationToken) {
        tokio::select! {
            ((), ()) = async { tokio::join!(self.keep_resolved(), self.keep_probed()) } => {}
            () = shutdown.cancelled() => {}
        }
    }

    async fn keep_resolved(&self) {
        if self.addresses.iter().all(|address| address.ip().is_some()) {
            return;
        }
        self.find_first().await;
        loop {
            let is_known = !self.members.borrow().is_empty();
            let every = self.watch.resolve_every;
            tokio::time::sleep(if is_known { every } else { every.min(RESOLVE_AGAIN) }).await;
            self.resolve().await;
        }
    }

    async fn keep_probed(&self) {
        let Some(path) = self.watch.probe else {
            return;
        };
        let mut pace = interval(self.watch.probe_every);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            pace.tick().await;
            let members = Arc::clone(&self.members.borrow());
            join_all(members.iter().map(async |member| {
                member.note(self.service, probe(member.address, path, self.watch.probe_every).await);
            }))
            .await;
        }
    }

    /// Looks all names up, all at once. Where that fails, what was known stays.
    async fn resolve(&self) {
        let found = join_all(self.addresses.iter().map(|address| self.look_up(address))).await;
        self.replace(found);
    }

    async fn look_up(&self, address: &Address) -> io::Result<Vec<IpAddr>> {
        if let Some(ip) = address.ip() {
            return Ok(vec![ip]);
        }
        let found = timeout(RESOLVE_WAIT, self.resolver.resolve(address.host())).await??;
        if found.is_empty() { Err(io::Error::other("the name has no address")) } else { Ok(found) }
    }

    /// Takes over what was found by each of the addresses, in their order.
    fn replace(&self, found: Vec<io::Result<Vec<IpAddr>>>) {
        let known = Arc::clone(&self.members.borrow());
        let mut members: Vec<Arc<Member>> = Vec::new();
        for (index, (address, found)) in self.addresses.iter().zip(found).enumerate() {
            let of_this = match found {
                Ok(ips) => ips.into_iter().map(|ip| SocketAddr::new(ip, address.port())).collect::<Vec<_>>(),
                Err(why) => {
                    tracing::warn!(service = self.service, %address, %why, "a name could not be resolved");
                    known.iter().filter(|member| member.found_by == index).map(|member| member.address).collect()
                }
            };
            for socket in of_this {
                if members.iter().all(|member| member.address != socket) {
                    let same = known.iter().find(|member| (member.address, member.found_by) == (socket, index));
                    members.push(same.map_or_else(|| Arc::new(Member::new(socket, index)), Arc::clone));
                }
            }
        }
        if members.len() > MAX_INSTANCES {
            tracing::warn!(service = self.service, found = members.len(), used = MAX_INSTANCES, "too many instances");
            members.truncate(MAX_INSTANCES);
        }
        let is_same = known.len() == members.len()
            && members.iter().all(|member| known.iter().any(|known| Arc::ptr_eq(known, member)));
        if !is_same {
            let instances: Vec<_> = members.iter().map(|member| member.address).collect();
            tracing::info!(service = self.service, ?instances, "the instances of a service");
            self.members.send_replace(members.into());
        }
    }
}
