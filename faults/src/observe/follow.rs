//! A reader that follows a topic in one stream from one host, and notes when each record came.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;
use tokio::task::AbortHandle;
use tokio::time::sleep;

use crate::check::skipped;
use crate::cluster::host::Host;
use crate::history::{Item, Place, Read};
use crate::http;

const PAUSE: Duration = Duration::from_millis(100);
/// For what is still to come when everything is written.
const PATIENCE: Duration = Duration::from_secs(45);

/// A record, and when it came.
pub type Seen = (Read, Instant);

/// Ends when it is dropped.
pub struct Follower {
    seen: Arc<Mutex<Vec<Seen>>>,
    task: AbortHandle,
}

impl Follower {
    /// Follows from the earliest record on. When the stream ends it is asked for again from where it ended.
    pub fn start(host: Arc<Host>, topic: &'static str) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let kept = seen.clone();
        let task = tokio::spawn(async move {
            loop {
                // Whatever ends it, the next stream goes on behind the last record.
                let _ = stream(&host, topic, &kept).await;
                sleep(PAUSE).await;
            }
        });
        Self { seen, task: task.abort_handle() }
    }

    /// Waits a while until so many have come; gives all, in the order in which it came, and what is wrong with that.
    pub async fn finish(self, count: usize) -> (Vec<Seen>, Vec<String>) {
        let since = Instant::now();
        while self.count() < count && since.elapsed() < PATIENCE {
            sleep(PAUSE).await;
        }
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let reads: Vec<Read> = seen.iter().map(|(read, _)| *read).collect();
        let mut wrong = skipped(&reads);
        if seen.len() != count {
            let (got, within) = (seen.len(), PATIENCE.as_secs());
            wrong.push(format!("a follower got {got} of {count} records within {within} s"));
        }
        (seen, wrong)
    }

    fn count(&self) -> usize {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn stream(host: &Host, topic: &str, seen: &Mutex<Vec<Seen>>) -> Result<()> {
    let url = host.url().context("it is down")?;
    let from = position(&seen.lock().unwrap_or_else(PoisonError::into_inner));
    let request = http::client().get(format!("{url}/v1/topics/{topic}/records")).query(&[
        ("format", "json"),
        ("follow", "true"),
        ("from", &from),
    ]);
    let mut answer = request.send().await?.error_for_status()?;
    let mut held = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        held.extend_from_slice(&chunk);
        let Some(end) = held.iter().rposition(|byte| *byte == b'\n') else { continue };
        let now = Instant::now();
        for line in held[..end].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let read = parse(line)?;
            seen.lock().unwrap_or_else(PoisonError::into_inner).push((read, now));
        }
        held.drain(..=end);
    }
    Ok(())
}

fn parse(line: &[u8]) -> Result<Read> {
    let record: Value = serde_json::from_slice(line)?;
    let number = |name: &str| record[name].as_u64().with_context(|| format!("a record has {name}"));
    let place = Place { partition: u32::try_from(number("partition")?)?, offset: number("offset")? };
    let item = Item::parse(&serde_json::to_vec(&record["value"])?).context("a record of ours")?;
    Ok(Read { place, item })
}

/// Behind everything that was seen.
fn position(seen: &[Seen]) -> String {
    let mut next = std::collections::BTreeMap::new();
    for (read, _) in seen {
        next.insert(read.place.partition, read.place.offset + 1);
    }
    if next.is_empty() {
        return "earliest".to_owned();
    }
    let parts: Vec<String> =
        next.into_iter().map(|(partition, offset)| format!("{partition}:{offset}")).collect();
    parts.join(",")
}
