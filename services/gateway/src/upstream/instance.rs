//! One instance of a service, as one worker thread sees it.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::breaker::Breaker;
use super::error::Fault;
use super::fleet::{Fleet, Member, Members};
use super::pool::Pool;

/// An instance with the connections, the load and the failures that this worker knows of.
pub(super) struct Instance {
    service: &'static str,
    member: Arc<Member>,
    pool: Pool,
    in_flight: Cell<usize>,
    breaker: Cell<Breaker>,
    /// [`Member::returns`] when it was taken out: if it has come back since, that is forgiven.
    returns: Cell<u32>,
}

impl Instance {
    fn new(service: &'static str, member: Arc<Member>) -> Self {
        Self {
            service,
            member,
            pool: Pool::default(),
            in_flight: Cell::new(0),
            breaker: Cell::new(Breaker::NEW),
            returns: Cell::new(0),
        }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.member.address()
    }

    /// How long no request may go there. `None`: one may.
    fn wait(&self, probe_every: Duration) -> Option<Duration> {
        if !self.member.is_ready() {
            return Some(probe_every);
        }
        let wait = self.breaker.get().wait(Instant::now)?;
        if self.member.returns() == self.returns.get() {
            return Some(wait);
        }
        self.breaker.set(Breaker::NEW);
        None
    }
}

/// The instances of a service, as one worker thread sees them.
pub(super) struct Instances {
    fleet: Arc<Fleet>,
    known: RefCell<Known>,
    /// Where the search for the one with the least to do begins: those with as little take turns.
    turn: Cell<usize>,
}

struct Known {
    members: watch::Receiver<Members>,
    instances: Vec<Rc<Instance>>,
}

impl Known {
    /// Takes over what has changed in the fleet since the last time.
    fn update(&mut self, service: &'static str) {
        // An error means that the fleet is gone, which this worker holds.
        if !self.members.has_changed().unwrap_or_default() {
            return;
        }
        let members = self.members.borrow_and_update();
        let known = std::mem::take(&mut self.instances);
        // One that is no longer there ends with the last of its exchanges.
        self.instances = members
            .iter()
            .map(|member| {
                let same = known.iter().find(|instance| Arc::ptr_eq(&instance.member, member));
                same.map_or_else(|| Rc::new(Instance::new(service, Arc::clone(member))), Rc::clone)
            })
            .collect();
    }
}

impl Instances {
    pub(super) fn new(fleet: Arc<Fleet>) -> Self {
        let mut members = fleet.members();
        members.mark_changed();
        let known = RefCell::new(Known { members, instances: Vec::new() });
        Self { fleet, known, turn: Cell::new(0) }
    }

    pub(super) fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// The instance with the least requests in flight that may be asked and is not among `tried`, and how many there are
    /// to choose from. The error says how soon there may be one.
    pub(super) fn least_busy(&self, tried: &[InFlight]) -> Result<(InFlight, u32), Fault> {
        let mut known = self.known.borrow_mut();
        known.update(self.fleet.service());
        let instances = &known.instances;
        let turn = self.turn.get().checked_rem(instances.len()).unwrap_or_default();
        self.turn.set(turn + 1);
        let (before, from) = instances.split_at(turn);
        let mut least: Option<&Rc<Instance>> = None;
        let mut choices = 0;
        let mut retry_after = None;
        for instance in from.iter().chain(before) {
            if tried.iter().any(|tried| Rc::ptr_eq(&tried.instance, instance)) {
                continue;
            }
            if let Some(wait) = instance.wait(self.fleet.probe_every()) {
                retry_after = Some(retry_after.map_or(wait, |other: Duration| other.min(wait)));
                continue;
            }
            choices += 1;
            if least.is_none_or(|least| instance.in_flight.get() < least.in_flight.get()) {
                least = Some(instance);
            }
        }
        match least {
            Some(instance) => Ok((InFlight::new(Rc::clone(instance)), choices)),
            None => Err(Fault::NoInstance { retry_after: retry_after.unwrap_or(self.fleet.probe_every()) }),
        }
    }

    /// The instance that calls itself `name`, if it is there.
    pub(super) fn named(&self, name: u64) -> Option<InFlight> {
        let mut known = self.known.borrow_mut();
        known.update(self.fleet.service());
        let instance = known.instances.iter().find(|instance| instance.member.goes_on_as(name))?;
        instance.breaker.get().wait(Instant::now).is_none().then(|| InFlight::new(Rc::clone(instance)))
    }

    /// Ready once the service's name was looked up, if it was not yet and so nobody can be asked.
    pub(super) async fn find_first(&self) {
        self.fleet.find_first().await;
    }
}

/// Counts as a request that its instance has in flight, until it is dropped.
pub struct InFlight {
    instance: Rc<Instance>,
    is_trial: bool,
}

impl InFlight {
    fn new(instance: Rc<Instance>) -> Self {
        instance.in_flight.set(instance.in_flight.get() + 1);
        let mut breaker = instance.breaker.get();
        let is_trial = breaker.pass();
        if is_trial {
            instance.breaker.set(breaker);
        }
        Self { instance, is_trial }
    }

    /// Where the instance is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.instance.address()
    }

    /// The instance was let alone, and nothing but this request goes there until it has ended.
    pub(super) fn is_trial(&self) -> bool {
        self.is_trial
    }

    pub(super) fn pool(&self) -> &Pool {
        &self.instance.pool
    }

    /// The instance has answered.
    pub(super) fn succeed(&mut self) {
        if self.instance.breaker.get() != Breaker::NEW {
            self.instance.breaker.set(Breaker::NEW);
        }
        self.is_trial = false;
    }

    /// The request has come to nothing, and `fault` says why.
    pub(super) fn fail(&mut self, fault: &Fault) {
        if !fault.is_the_instances() {
            return;
        }
        let Instance { service, breaker, returns, .. } = &*self.instance;
        let mut changed = breaker.get();
        let wait = changed.fail(std::mem::take(&mut self.is_trial), Instant::now());
        breaker.set(changed);
        if let Some(wait) = wait {
            returns.set(self.instance.member.returns());
            let cause = common::problem::chain(fault);
            tracing::warn!(service, instance = %self.address(), ?wait, cause, "an instance fails and is let alone");
        }
    }

    /// Nothing was learnt of the instance.
    pub(super) fn give_up(&mut self) {
        if std::mem::take(&mut self.is_trial) {
            let mut breaker = self.instance.breaker.get();
            breaker.give_up(Instant::now());
            self.instance.breaker.set(breaker);
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.instance.in_flight.set(self.instance.in_flight.get() - 1);
        self.give_up();
    }
}
