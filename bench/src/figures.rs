//! What many figures come to.

use std::fmt;
use std::time::Duration;

/// Figures of several rounds, at least one, by three of them: of two in the middle the upper one.
#[derive(Debug, Clone, Copy)]
pub struct Spread {
    /// A quarter is below it.
    pub lower: f64,
    pub median: f64,
    /// A quarter is above it.
    pub upper: f64,
}

impl Spread {
    /// Panics where there are none.
    #[must_use]
    pub fn of(figures: impl Iterator<Item = f64>) -> Self {
        let mut figures: Vec<_> = figures.collect();
        figures.sort_by(f64::total_cmp);
        let (count, last) = (figures.len(), figures.len() - 1);
        Self { lower: figures[count / 4], median: figures[count / 2], upper: figures[last - count / 4] }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lower, median, upper } = self;
        write!(f, "{median:.2} ({lower:.2} to {upper:.2})")
    }
}

/// What a share of sorted `times` is not above, in microseconds. Panics where there are none.
#[must_use]
pub fn quantile(times: &[Duration], share: f64) -> f64 {
    let place = (times.len() as f64 * share).ceil() as usize;
    times[place.clamp(1, times.len()) - 1].as_secs_f64() * 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_does_not_mind_what_is_far_off() {
        let Spread { lower, median, upper } = Spread::of([9.0, 1.0, 1.1, 0.9, 1.2, 0.1, 1.3].into_iter());
        assert_eq!((lower, median, upper), (0.9, 1.1, 1.3));
        let Spread { lower, median, upper } = Spread::of([1.0].into_iter());
        assert_eq!((lower, median, upper), (1.0, 1.0, 1.0));
    }

    #[test]
    fn a_quantile_is_one_of_the_times() {
        let times: Vec<_> = (1..=1000).map(Duration::from_micros).collect();
        for (share, expected) in [(0.5, 500.0), (0.999, 999.0), (1.0, 1000.0), (0.0, 1.0)] {
            assert!((quantile(&times, share) - expected).abs() < 1e-6, "{share}");
        }
    }
}
