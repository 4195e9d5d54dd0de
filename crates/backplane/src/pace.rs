//! How often something may be tried.

use std::time::Duration;

/// So many tries at once; from then on each is followed by a pause, which doubles every time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// The pauses begin after this many tries.
    pub free: u32,
    /// The first pause.
    pub first: Duration,
    /// No pause is longer.
    pub longest: Duration,
    /// All tries are forgotten so long after the last. Longer than `longest`, or pauses would not grow.
    pub forget: Duration,
}

impl Pace {
    /// The pause after the `tries`th try, if there is one.
    pub(crate) fn pause(&self, tries: u32) -> Option<Duration> {
        let doublings = tries.checked_sub(self.free.max(1))?;
        let factor = 1u32.checked_shl(doublings).unwrap_or(u32::MAX);
        Some(self.first.saturating_mul(factor).min(self.longest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_begin_after_the_free_tries_and_double_up_to_the_longest() {
        let seconds = Duration::from_secs;
        let pace = Pace { free: 3, first: seconds(2), longest: seconds(10), forget: seconds(60) };
        let pauses = [1, 2, 3, 4, 5, 6, 100].map(|tries| pace.pause(tries).map(|pause| pause.as_secs()));
        assert_eq!(pauses, [None, None, Some(2), Some(4), Some(8), Some(10), Some(10)]);
    }
}
