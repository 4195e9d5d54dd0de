//! Keeps requests from an instance that fails them.

use std::time::Duration;

use tokio::time::Instant;

/// How many failures in a row take an instance out.
const FAILURES: u32 = 3;
/// How long it stays out at first. Each failed trial doubles that.
const SHORTEST: Duration = Duration::from_secs(1);
/// How long it stays out at most.
const LONGEST: Duration = Duration::from_secs(30);

/// What one worker has seen of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Breaker {
    /// Requests pass. This many failed since the last answer.
    Closed { failures: u32 },
    /// No request passes before `until`; then one does, as a trial.
    Open { until: Instant, wait: Duration },
    /// The trial is on its way, and nothing else passes. `wait` is how long it was open before.
    Trial { wait: Duration },
}

impl Breaker {
    /// As it is after each answer.
    pub(super) const NEW: Self = Self::Closed { failures: 0 };

    /// How long from `now` no request passes. `None`: one may.
    pub(super) fn wait(self, now: impl FnOnce() -> Instant) -> Option<Duration> {
        match self {
            Self::Closed { .. } => None,
            Self::Open { until, .. } => Some(until.saturating_duration_since(now())).filter(|wait| !wait.is_zero()),
            Self::Trial { .. } => Some(SHORTEST),
        }
    }

    /// A request passes. Answers whether it is a trial, which has to end: with an answer, and so a new breaker,
    /// with [`Breaker::fail`] or with [`Breaker::give_up`].
    pub(super) fn pass(&mut self) -> bool {
        match *self {
            Self::Closed { .. } => false,
            Self::Open { wait, .. } | Self::Trial { wait } => {
                *self = Self::Trial { wait };
                true
            }
        }
    }

    /// The instance has failed a request. Answers for how long it is out, if that took it out.
    pub(super) fn fail(&mut self, is_trial: bool, now: Instant) -> Option<Duration> {
        let wait = match *self {
            Self::Closed { failures } if failures + 1 < FAILURES => {
                *self = Self::Closed { failures: failures + 1 };
                return None;
            }
            Self::Closed { .. } => SHORTEST,
            Self::Trial { wait } if is_trial => (wait * 2).min(LONGEST),
            // It was sent before the instance was taken out, and says nothing new.
            Self::Open { .. } | Self::Trial { .. } => return None,
        };
        *self = Self::Open { until: now + wait, wait };
        Some(wait)
    }

    /// The trial ended without showing anything, as when its client left: another may follow at once.
    pub(super) fn give_up(&mut self, now: Instant) {
        if let Self::Trial { wait } = *self {
            *self = Self::Open { until: now, wait };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The waits that `breaker` asks for while every trial fails.
    fn fail_on(breaker: &mut Breaker, mut now: Instant) -> impl Iterator<Item = u64> {
        std::iter::from_fn(move || {
            let is_trial = breaker.pass();
            let wait = breaker.fail(is_trial, now)?;
            now += wait;
            assert_eq!(breaker.wait(|| now), None);
            Some(wait.as_secs())
        })
    }

    #[test]
    fn failures_in_a_row_take_out_and_failed_trials_for_longer_and_longer() {
        let now = Instant::now();
        let mut breaker = Breaker::NEW;
        for _ in 1..FAILURES {
            assert_eq!((breaker.fail(false, now), breaker.wait(|| now)), (None, None));
        }
        let waits: Vec<_> = fail_on(&mut breaker, now).take(7).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
    }

    #[test]
    fn an_answer_makes_up_for_all_failures() {
        let now = Instant::now();
        let mut breaker = Breaker::NEW;
        for _ in 0..10 {
            for _ in 1..FAILURES {
                assert_eq!(breaker.fail(false, now), None);
            }
            breaker = Breaker::NEW;
        }
    }

    #[test]
    fn one_trial_at_a_time_passes() {
        let now = Instant::now();
        let mut breaker = Breaker::Open { until: now + SHORTEST, wait: SHORTEST };
        assert_eq!(breaker.wait(|| now), Some(SHORTEST));
        assert_eq!(breaker.wait(|| now + SHORTEST), None);
        assert!(breaker.pass());
        assert_eq!(breaker.wait(|| now + SHORTEST), Some(SHORTEST));
        // An older request that fails now is not the trial.
        assert_eq!(breaker.fail(false, now), None);

        breaker.give_up(now + SHORTEST);
        assert_eq!(breaker.wait(|| now + SHORTEST), None);
        assert!(breaker.pass());
    }
}
