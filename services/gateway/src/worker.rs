//! What the gateway has in common, and what each worker thread has for itself.

use std::rc::Rc;
use std::sync::Arc;

use actix_web::HttpRequest;
use chassis::access_log::AccessLog;
use chassis::health::Health;
use common::{Problem, SharedClock, Verifier};
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Fleets, Service};
use crate::docs::Documents;
use crate::metrics::Metrics;
use crate::problems::NOT_INSTALLED;
use crate::rate::Limiter;
use crate::router::{Router, TableError};
use crate::table::ROUTES;
use crate::upstream::{Fleet, Upstream};

/// The gateway, as all its worker threads share it.
pub struct Gateway {
    pub config: Config,
    pub fleets: Fleets,
    pub router: Router,
    pub verifier: Verifier,
    pub health: Health,
    pub clock: SharedClock,
    pub access_log: AccessLog,
    pub per_address: Arc<Limiter>,
    pub per_user: Arc<Limiter>,
    /// Cancelled when answers without an end have to end.
    pub stopping: CancellationToken,
}

impl Gateway {
    /// Fails if the routing table contradicts itself.
    pub fn new(
        config: Config,
        fleets: Fleets,
        verifier: Verifier,
        health: Health,
        clock: SharedClock,
        access_log: AccessLog,
    ) -> Result<Self, TableError> {
        let limiter = |name, rate| Arc::new(Limiter::new(name, rate, Arc::clone(&clock)));
        Ok(Self {
            router: Router::new(ROUTES)?,
            per_address: limiter("address", config.rate_per_address),
            per_user: limiter("user", config.rate_per_user),
            config,
            fleets,
            verifier,
            health,
            clock,
            access_log,
            stopping: CancellationToken::new(),
        })
    }
}

/// The gateway, as one worker thread sees it: nothing that changes with every request is shared with another thread, save
/// the counts of rates.
pub struct Worker {
    pub gateway: Arc<Gateway>,
    pub documents: Documents,
    pub metrics: Metrics,
    /// In the order of [`Service::ALL`].
    upstreams: [Option<Rc<Upstream>>; Service::ALL.len()],
}

impl Worker {
    #[must_use]
    pub fn new(gateway: Arc<Gateway>) -> Self {
        let upstream = |fleet: &Arc<Fleet>| Rc::new(Upstream::new(Arc::clone(fleet), gateway.config.patience));
        let upstreams = gateway.fleets.each_ref().map(|fleet| fleet.as_ref().map(upstream));
        Self { documents: Documents::default(), metrics: Metrics::default(), upstreams, gateway }
    }

    /// The worker that a page of ours is made by.
    pub fn of(request: &HttpRequest) -> Result<&Rc<Self>, Problem> {
        request.app_data().ok_or_else(|| Problem::internal("the pages were started without their worker"))
    }

    /// Where requests to `service` go. A problem if the installation does without it.
    pub fn upstream(&self, service: Service) -> Result<&Rc<Upstream>, Problem> {
        self.upstreams[service as usize].as_ref().ok_or_else(|| {
            NOT_INSTALLED.say(format!("the {} service is not part of this installation", service.name()))
        })
    }
}
