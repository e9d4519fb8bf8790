//! Waiting longer after each failure, with jitter so that many tasks do not come back at once.

use std::time::Duration;

/// The first wait.
const FIRST: Duration = Duration::from_millis(200);

/// The longest wait.
const LONGEST: Duration = Duration::from_secs(30);

/// Doubles from 0.2 s to 30 s; each wait is between half of that and all of it.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// The wait before the next try.
    pub fn pause(&mut self) -> Duration {
        let wait = after(self.failures);
        self.failures = self.failures.saturating_add(1);
        wait
    }

    /// The wait that a plugin asked for, or the next one. What many ask for at once comes spread over a tenth more.
    pub fn pause_for(&mut self, asked: Option<Duration>) -> Duration {
        asked.map_or_else(|| self.pause(), spread)
    }
}

/// The wait after so many failures.
pub fn after(failures: u32) -> Duration {
    let full = FIRST.saturating_mul(1 << failures.min(10)).min(LONGEST);
    full.mul_f64(0.5 + fastrand::f64() / 2.0)
}

/// No sooner than asked for, and up to a tenth later.
pub fn spread(asked: Duration) -> Duration {
    asked.mul_f64(1.0 + fastrand::f64() / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_limit_and_start_again() {
        let mut backoff = Backoff::default();
        let waits: Vec<Duration> = (0..20).map(|_| backoff.pause()).collect();
        assert!(waits[0] <= FIRST && waits[0] >= FIRST / 2);
        assert!(waits.iter().all(|wait| *wait <= LONGEST));
        assert!(waits[19] >= LONGEST / 2);
        backoff.reset();
        assert!(backoff.pause() <= FIRST);
    }

    #[test]
    fn a_wait_that_was_asked_for_is_kept_and_spread() {
        let mut backoff = Backoff::default();
        let second = Duration::from_secs(1);
        let waits: Vec<Duration> = (0..100).map(|_| backoff.pause_for(Some(second))).collect();
        assert!(waits.iter().all(|wait| *wait >= second && *wait <= second.mul_f64(1.1)));
        assert!(waits.iter().max() > waits.iter().min());
        assert!(backoff.pause_for(None) <= FIRST, "it was no failure of ours");
    }
}
