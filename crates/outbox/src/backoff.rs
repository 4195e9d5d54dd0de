//! How long to wait before the next try.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// Waits that double, with jitter so that processes which failed together do not come back together.
pub(crate) struct Backoff {
    builder: ExponentialBuilder,
    waits: ExponentialBackoff,
    longest: Duration,
}

impl Backoff {
    /// The first wait is between `first` and twice that; none is longer than twice `longest`.
    pub(crate) fn new(first: Duration, longest: Duration) -> Self {
        let builder =
            ExponentialBuilder::new().with_min_delay(first).with_max_delay(longest).without_max_times().with_jitter();
        Self { builder, waits: builder.build(), longest }
    }

    /// For a dependency that is away: soon at first, then every few seconds.
    pub(crate) fn for_outage() -> Self {
        Self::new(Duration::from_millis(100), Duration::from_secs(3))
    }

    pub(crate) fn next(&mut self) -> Duration {
        self.waits.next().unwrap_or(self.longest)
    }

    /// It worked: the next failure starts with the first wait again.
    pub(crate) fn reset(&mut self) {
        self.waits = self.builder.build();
    }
}
