//! The breaker of one partition: a plugin that fails on most of its messages is given fewer of them.
//!
//! Closed, it counts. It opens when within the window at least `failures` messages were given up on because the plugin
//! trapped, ran out of time or memory or answered with nonsense, and these are more than `share` of the messages that were
//! done with; or when for a whole window calls have failed and no message has got through. Open, its task takes no batch, and
//! nothing is committed. After a wait it is half-open: one message is tried alone. If the plugin answers, it closes; if not, it
//! opens again for twice as long. So a broken plugin makes dead letters of one message for each `max_attempts` waits, and not
//! of its topic. What a plugin refuses does not count: that is an answer.
//! Bound: counts are kept in [`BUCKETS`] parts of the window. They are the memory of the partition's owner: with another
//! owner, or after a restart, they begin anew. Another version closes the breaker at once.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::config::plan::Breaker as Rules;

/// Parts of the window that are counted apart, and forgotten one by one.
const BUCKETS: u32 = 60;

/// Counts what becomes of calls and messages. Pure: time is handed in.
#[derive(Debug)]
pub struct Breaker {
    /// None: it never opens.
    rules: Option<Rules>,
    phase: Phase,
    buckets: VecDeque<Bucket>,
    /// Since when calls have failed and nothing has got through.
    failing_since: Option<Instant>,
    /// Times that it has opened without a quiet window in between.
    opened: u32,
    closed_at: Option<Instant>,
    /// Why it opened last.
    why: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Closed,
    Open { until: Instant },
    HalfOpen,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    began: Instant,
    failed_calls: u64,
    given_up: u64,
    passed: u64,
}

impl Breaker {
    pub fn new(rules: Option<Rules>) -> Self {
        Self {
            rules,
            phase: Phase::Closed,
            buckets: VecDeque::new(),
            failing_since: None,
            opened: 0,
            closed_at: None,
            why: String::new(),
        }
    }

    /// How long it is still open, and why it opened; None if it is not open.
    pub fn open_for(&self, now: Instant) -> Option<(Duration, &str)> {
        let Phase::Open { until } = self.phase else { return None };
        Some((until.saturating_duration_since(now), &self.why))
    }

    /// How long no batch is to be taken; None: go on. An open breaker whose time is up is half-open from then on.
    pub fn holds(&mut self, now: Instant) -> Option<Duration> {
        let Phase::Open { until } = self.phase else { return None };
        let left = until.saturating_duration_since(now);
        if left.is_zero() {
            self.phase = Phase::HalfOpen;
            return None;
        }
        Some(left)
    }

    /// Whether the next message is to be tried alone.
    pub fn is_half_open(&self) -> bool {
        self.phase == Phase::HalfOpen
    }

    /// Messages were processed, or refused: the plugin answers.
    pub fn passed(&mut self, messages: usize, now: Instant) {
        self.failing_since = None;
        match self.phase {
            Phase::Closed => self.count(now, |bucket| bucket.passed += messages as u64),
            _ => {
                self.phase = Phase::Closed;
                self.closed_at = Some(now);
                self.buckets.clear();
            }
        }
    }

    /// A call failed by the plugin's fault. True if that opens the breaker.
    pub fn failed(&mut self, now: Instant) -> bool {
        let Some(rules) = self.rules else { return false };
        if self.phase == Phase::HalfOpen {
            self.open(now, &rules, "the message that was tried made it fail as well".to_string());
            return true;
        }
        let since = *self.failing_since.get_or_insert(now);
        self.count(now, |bucket| bucket.failed_calls += 1);
        let failed: u64 = self.buckets.iter().map(|bucket| bucket.failed_calls).sum();
        let stuck =
            now.saturating_duration_since(since) >= rules.window && failed >= u64::from(rules.failures);
        if stuck {
            let seconds = rules.window.as_secs();
            self.open(now, &rules, format!("{failed} calls failed and none got through for {seconds} s"));
        }
        stuck
    }

    /// A message was given up on after that. True if that opens the breaker.
    pub fn gave_up(&mut self, now: Instant) -> bool {
        let Some(rules) = self.rules.filter(|_| self.phase == Phase::Closed) else { return false };
        self.count(now, |bucket| bucket.given_up += 1);
        let sum = |of: fn(&Bucket) -> u64| self.buckets.iter().map(of).sum::<u64>();
        let (given_up, passed) = (sum(|bucket| bucket.given_up), sum(|bucket| bucket.passed));
        let share = given_up as f64 / (given_up + passed) as f64;
        let storm = given_up >= u64::from(rules.failures) && share > rules.share;
        if storm {
            let (all, seconds) = (given_up + passed, rules.window.as_secs());
            self.open(
                now,
                &rules,
                format!("it failed on {given_up} of the {all} messages of the last {seconds} s"),
            );
        }
        storm
    }

    /// Forgets everything: another version runs.
    pub fn reset(&mut self) {
        *self = Self::new(self.rules);
    }

    fn open(&mut self, now: Instant, rules: &Rules, why: String) {
        let quiet = self.closed_at.is_some_and(|at| now.saturating_duration_since(at) >= rules.window);
        if self.phase == Phase::Closed && quiet {
            self.opened = 0;
        }
        let wait = rules.wait.saturating_mul(1 << self.opened.min(20)).min(rules.longest);
        self.opened += 1;
        self.phase = Phase::Open { until: now + wait };
        self.buckets.clear();
        self.failing_since = None;
        self.why = why;
    }

    fn count(&mut self, now: Instant, add: impl FnOnce(&mut Bucket)) {
        let Some(rules) = self.rules else { return };
        let oldest = |bucket: &Bucket| now.saturating_duration_since(bucket.began) >= rules.window;
        while self.buckets.front().is_some_and(oldest) {
            self.buckets.pop_front();
        }
        let span = rules.window / BUCKETS;
        let fresh = |bucket: &&mut Bucket| now.saturating_duration_since(bucket.began) < span;
        match self.buckets.back_mut().filter(fresh) {
            Some(bucket) => add(bucket),
            None => {
                let mut bucket = Bucket { began: now, failed_calls: 0, given_up: 0, passed: 0 };
                add(&mut bucket);
                self.buckets.push_back(bucket);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker() -> Breaker {
        Breaker::new(Some(Rules::default()))
    }

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    /// Gives up on messages one after the other, a second each; which one opened it.
    fn storm(breaker: &mut Breaker, mut now: Instant) -> Option<(usize, Instant)> {
        for n in 1..=100 {
            if breaker.gave_up(now) {
                return Some((n, now));
            }
            now += seconds(1);
        }
        None
    }

    #[test]
    fn twenty_messages_in_a_row_open_it_and_waits_double() {
        let (mut breaker, now) = (breaker(), Instant::now());
        let (count, mut now) = storm(&mut breaker, now).unwrap();
        assert_eq!(count, 20);
        for wait in [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
            assert_eq!(breaker.holds(now), Some(seconds(wait)));
            assert!(!breaker.is_half_open());
            now += seconds(wait);
            assert_eq!(breaker.holds(now), None);
            assert!(breaker.is_half_open());
            assert!(breaker.failed(now));
        }
    }

    #[test]
    fn an_answer_closes_it_and_a_quiet_window_forgets_how_often_it_was_open() {
        let (mut breaker, now) = (breaker(), Instant::now());
        let (_, now) = storm(&mut breaker, now).unwrap();
        assert_eq!(breaker.holds(now + seconds(1)), None);
        breaker.passed(1, now + seconds(1));
        assert!(!breaker.is_half_open());
        let (count, soon) = storm(&mut breaker, now + seconds(2)).unwrap();
        assert_eq!((count, breaker.holds(soon)), (20, Some(seconds(2))));
        assert_eq!(breaker.holds(soon + seconds(2)), None);
        breaker.passed(1, soon + seconds(2));
        let (_, late) = storm(&mut breaker, soon + seconds(200)).unwrap();
        assert_eq!(breaker.holds(late), Some(seconds(1)));
    }

    #[test]
    fn poison_among_good_messages_never_opens_it() {
        let (mut breaker, mut now) = (breaker(), Instant::now());
        for _ in 0..1_000 {
            assert!(!breaker.failed(now));
            assert!(!breaker.gave_up(now));
            breaker.passed(2, now);
            now += Duration::from_millis(100);
        }
        // A few at the very beginning neither, however many calls it takes to find them.
        let mut breaker = Breaker::new(Some(Rules::default()));
        for _ in 0..10 {
            for _ in 0..15 {
                assert!(!breaker.failed(now));
                now += Duration::from_millis(300);
            }
            assert!(!breaker.gave_up(now));
        }
        breaker.passed(1_000, now);
    }

    #[test]
    fn calls_that_all_fail_for_a_window_open_it_before_a_message_is_given_up() {
        let (mut breaker, start) = (breaker(), Instant::now());
        let opened = (0..100).find(|n| breaker.failed(start + seconds(2 * n)));
        assert_eq!(opened, Some(30));
    }

    #[test]
    fn old_failures_are_forgotten_and_off_is_off() {
        let (mut breaker, mut now) = (breaker(), Instant::now());
        for _ in 0..100 {
            assert!(!breaker.gave_up(now));
            now += seconds(4);
        }
        assert!(breaker.buckets.len() <= BUCKETS as usize + 1);
        let mut off = Breaker::new(None);
        assert!(storm(&mut off, now).is_none() && !off.failed(now) && off.holds(now).is_none());
    }

    #[test]
    fn another_version_closes_it() {
        let (mut breaker, now) = (breaker(), Instant::now());
        let (_, now) = storm(&mut breaker, now).unwrap();
        breaker.reset();
        assert_eq!((breaker.holds(now), breaker.is_half_open()), (None, false));
    }
}
