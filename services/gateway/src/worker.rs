//! What each worker thread has for itself.

use std::rc::Rc;
use std::sync::Arc;

use actix_web::HttpRequest;
use common::{Problem, Verifier};

use crate::config::{Config, Fleets, Service};
use crate::docs::Documents;
use crate::router::Router;
use crate::upstream::Upstream;

/// The gateway, as one worker thread sees it: nothing that changes is shared with another thread, so
/// no thread waits for another.
pub struct Worker {
    pub router: Arc<Router>,
    pub verifier: Verifier,
    pub documents: Documents,
    /// How clients reach the gateway: `http` or `https`.
    pub scheme: &'static str,
    /// In the order of [`Service::ALL`].
    upstreams: [Rc<Upstream>; Service::ALL.len()],
}

impl Worker {
    #[must_use]
    pub fn new(config: &Config, fleets: &Fleets, router: Arc<Router>, verifier: Verifier) -> Self {
        let upstream = |fleet: &Arc<_>| Rc::new(Upstream::new(Arc::clone(fleet), config.patience));
        Self {
            router,
            verifier,
            documents: Documents::default(),
            scheme: config.scheme,
            upstreams: fleets.each_ref().map(upstream),
        }
    }

    /// Where requests to `service` go.
    #[must_use]
    pub fn upstream(&self, service: Service) -> &Rc<Upstream> {
        &self.upstreams[service as usize]
    }

    /// The worker that handles `request`.
    pub fn of(request: &HttpRequest) -> Result<&Rc<Self>, Problem> {
        request.app_data().ok_or_else(|| Problem::internal("the gateway was started without its worker"))
    }
}
