//! `[queues.NAME]` and the crons in it.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::stage::TIME;
use super::{Measure, Reader, tests};
use crate::config::document::Mark;
use crate::config::file;
use crate::config::key_path::KeyPath;
use crate::config::plan::{CronPlan, JobBackoff, QueuePlan};
use crate::config::units;
use crate::ids::{CronName, QueueName, TopicName};

const DAY: Duration = Duration::from_secs(86_400);
const LEASE: Duration = Duration::from_secs(30);
const MAX_ATTEMPTS: u32 = 10;
const KEEP: Duration = Duration::from_secs(3600);
/// Each is looked at in every round.
const MAX_CRONS: usize = 1_000;

pub fn read(reader: &mut Reader<'_>, path: &KeyPath, name: QueueName, queue: file::Queue) -> QueuePlan {
    let lease = within(Duration::from_secs(1)..=DAY);
    let keep = within(Duration::ZERO..=30 * DAY);
    if let (true, Some(per_key @ 2..)) = (queue.ordered, queue.per_key) {
        let message = format!("jobs of a key run in order, so not {per_key} at once");
        let help = "remove `per_key`, or `ordered`".to_string();
        reader.fail(&path.key("per_key"), Mark::Value, message, Some(help));
    }
    let place = path.key("history");
    let history = queue.history.as_deref();
    QueuePlan {
        lease: reader.measure(&path.key("lease"), queue.lease.as_deref(), &lease, LEASE),
        max_attempts: queue.max_attempts.unwrap_or(MAX_ATTEMPTS),
        backoff: backoff(reader, &path.key("backoff"), &queue.backoff),
        concurrency: queue.concurrency,
        per_key: queue.per_key,
        ordered: queue.ordered,
        keep: reader.measure(&path.key("keep"), queue.keep.as_deref(), &keep, KEEP),
        history: history.and_then(|topic| reader.name::<TopicName>(&place, Mark::Value, topic)),
        crons: crons(reader, &path.key("cron"), queue.ordered, queue.cron),
        name,
    }
}

fn within(range: RangeInclusive<Duration>) -> Measure<Duration> {
    Measure { parse: TIME, show: units::show_duration, range }
}

fn backoff(reader: &mut Reader<'_>, path: &KeyPath, written: &file::JobBackoff) -> JobBackoff {
    let default = JobBackoff::default();
    let shortest = Duration::from_millis(10);
    let first =
        reader.measure(&path.key("first"), written.first.as_deref(), &within(shortest..=DAY), default.first);
    let longest = within(shortest..=30 * DAY);
    let longest = match &written.longest {
        None => default.longest.max(first),
        Some(text) => reader.measure(&path.key("longest"), Some(text), &longest, default.longest),
    };
    if longest < first {
        let help = "make `longest` at least as long as `first`".to_string();
        let message = "the longest wait would be shorter than the first";
        reader.fail(&path.key("longest"), Mark::Value, message, Some(help));
    }
    JobBackoff { first, longest }
}

fn crons(
    reader: &mut Reader<'_>,
    path: &KeyPath,
    ordered: bool,
    written: BTreeMap<String, file::Cron>,
) -> BTreeMap<CronName, CronPlan> {
    if written.len() > MAX_CRONS {
        let message = format!("a queue has at most {MAX_CRONS} crons, this one has {}", written.len());
        reader.fail(path, Mark::Key, message, None);
    }
    let mut crons = BTreeMap::new();
    for (name, cron) in written {
        let path = path.key(&name);
        let name = reader.name::<CronName>(&path, Mark::Key, &name);
        let schedule = cron.schedule.parse().map_err(|error| format!("{error}"));
        let schedule = reader.take(&path.key("schedule"), schedule);
        if ordered && cron.priority.is_some() {
            let help = "remove `priority`".to_string();
            let message = "jobs of an ordered queue run in the order in which they came";
            reader.fail(&path.key("priority"), Mark::Key, message, Some(help));
        }
        if let Some((name, schedule)) = name.zip(schedule) {
            let payload = tests::text(cron.payload);
            crons.insert(name, CronPlan { schedule, payload, key: cron.key, priority: cron.priority });
        }
    }
    crons
}
