//! How fast topics grow and groups move, averaged over the last seconds, from what Postgres holds: so the numbers are the
//! same whichever host did the work. Also keeps the gauges of `/metrics`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::{ApiState, metrics};
use crate::archive::picture;
use crate::log::LogError;

const EVERY: Duration = Duration::from_secs(1);
/// Queues are counted less often: it is a count of rows.
const QUEUES_EVERY: u32 = 5;
/// Samples that a rate spans.
const WINDOW: usize = 11;

/// What counts up: a topic's end, or a group's place in a topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Counted {
    Topic(String),
    Group(String, String),
}

#[derive(Clone, Debug, Default)]
pub struct Rates(Arc<Mutex<BTreeMap<Counted, Samples>>>);

/// What was counted when, oldest first.
type Samples = VecDeque<(Instant, u64)>;

impl Rates {
    pub fn of_topic(&self, topic: &str) -> Option<f64> {
        self.of(&Counted::Topic(topic.to_string()))
    }

    pub fn of_group(&self, group: &str, topic: &str) -> Option<f64> {
        self.of(&Counted::Group(group.to_string(), topic.to_string()))
    }

    fn of(&self, counted: &Counted) -> Option<f64> {
        let samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let samples = samples.get(counted)?;
        let ((then, before), (now, after)) = (samples.front()?, samples.back()?);
        let seconds = now.duration_since(*then).as_secs_f64();
        // A group that was moved back counts from there.
        (seconds > 0.0).then(|| (after.saturating_sub(*before) as f64 / seconds * 10.0).round() / 10.0)
    }

    /// Adds a sample of everything there is; what is gone is forgotten.
    fn add(&self, now: Instant, counts: BTreeMap<Counted, u64>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|counted, _| counts.contains_key(counted));
        for (counted, count) in counts {
            let samples = all.entry(counted).or_default();
            if samples.back().is_some_and(|(_, last)| *last > count) {
                samples.clear();
            }
            samples.push_back((now, count));
            if samples.len() > WINDOW {
                samples.pop_front();
            }
        }
    }
}

/// Takes a sample each second until the token is cancelled. A sample that fails is left out.
pub async fn sample(state: ApiState, shutdown: CancellationToken) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for round in 0u32.. {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let counts = tokio::select! {
            () = shutdown.cancelled() => return,
            counts = look(&state) => counts,
        };
        match counts {
            Ok(counts) => state.rates.add(Instant::now(), counts),
            Err(error) => tracing::debug!(%error, "a sample of the rates was left out"),
        }
        if round.is_multiple_of(QUEUES_EVERY) {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = look_at_queues(&state) => {}
            }
        }
        metrics::upkeep(state.streams.open());
    }
}

async fn look(state: &ApiState) -> Result<BTreeMap<Counted, u64>, LogError> {
    let mut counts = BTreeMap::new();
    for topic in state.log.topics().await? {
        let bounds = state.log.bounds(topic.id).await?;
        let end: u64 = bounds.iter().map(|bound| bound.next).sum();
        metrics::topic_end(topic.name.as_str(), end);
        counts.insert(Counted::Topic(topic.name.to_string()), end);
    }
    for lag in state.groups.list().await? {
        metrics::group_lag(&lag.group, &lag.topic, lag.lag);
        let place = lag.partitions.iter().map(|partition| partition.offset).sum();
        counts.insert(Counted::Group(lag.group, lag.topic), place);
    }
    let (segments, seconds) = picture::waiting(state.log.pool()).await?;
    metrics::archive_lag(segments, seconds);
    Ok(counts)
}

async fn look_at_queues(state: &ApiState) {
    match state.queues().infos(None).await {
        Ok(queues) => queues.iter().for_each(metrics::queue),
        Err(error) => tracing::debug!(%error, "queues were not counted"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_an_average_that_survives_a_seek() {
        let rates = Rates::default();
        let group = Counted::Group("g".into(), "t".into());
        let mut now = Instant::now();
        for (count, expected) in
            [(100, None), (200, Some(100.0)), (600, Some(250.0)), (50, None), (60, Some(10.0))]
        {
            rates.add(now, BTreeMap::from([(group.clone(), count)]));
            assert_eq!(rates.of_group("g", "t"), expected);
            now += Duration::from_secs(1);
        }
        rates.add(now, BTreeMap::new());
        assert_eq!(rates.of_group("g", "t"), None, "what is gone is forgotten");
    }

    #[test]
    fn the_window_moves_on() {
        let rates = Rates::default();
        let start = Instant::now();
        for second in 0..100u64 {
            let count = if second < 50 { second * 1000 } else { 50_000 };
            let now = start + Duration::from_secs(second);
            rates.add(now, BTreeMap::from([(Counted::Topic("t".into()), count)]));
        }
        assert_eq!(rates.of_topic("t"), Some(0.0));
    }
}
