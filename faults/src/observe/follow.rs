//! A reader that follows a topic in one stream from one host, and notes when each record came.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::task::AbortHandle;
use tokio::time::sleep;

use crate::cluster::host::Host;
use crate::history::{Item, Place, Read};
use crate::http;

const PAUSE: Duration = Duration::from_millis(100);

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

    /// All so far, in the order in which it came.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until so many have come.
    pub async fn until(&self, count: usize, patience: Duration) -> Result<()> {
        let since = Instant::now();
        loop {
            let now = self.seen.lock().unwrap_or_else(PoisonError::into_inner).len();
            if now >= count {
                return Ok(());
            }
            if since.elapsed() > patience {
                bail!("a follower got {now} of {count} records within {} s", patience.as_secs());
            }
            sleep(PAUSE).await;
        }
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
