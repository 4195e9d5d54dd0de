//! How long requests take, by route and status.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Duration;

use foldhash::fast::RandomState;
use metrics::Histogram;

/// The histograms that a worker thread has used, as to look one up by its labels costs more than all else here.
///
/// Bounded, as routes, methods and statuses are.
#[derive(Default)]
pub struct Metrics {
    known: RefCell<HashMap<(&'static str, &'static str, u16), Histogram, RandomState>>,
}

impl Metrics {
    /// `route`: its pattern. `method`: one of a few, see [`chassis::http::label_of`].
    pub fn record(&self, route: &'static str, method: &'static str, status: u16, took: Duration) {
        let mut known = self.known.borrow_mut();
        let histogram = known.entry((route, method, status)).or_insert_with(|| {
            metrics::histogram!(
                "http_request_duration_seconds",
                "service" => "gateway", "method" => method, "route" => route, "status" => status.to_string(),
            )
        });
        histogram.record(took.as_secs_f64());
    }
}
