//! Producers over HTTP that behave as a careful client does: numbered requests, one after the other, and the same request
//! again, to any live host, until somebody says what became of it.
//!
//! Bound: a request is repeated for at most [`PATIENCE`]; then its outcome stays unknown, and the next one is sent.

pub mod paced;

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use fastrand::Rng;
use futures::future::try_join_all;
use reqwest::StatusCode;
use serde::Deserialize;
use tokio::time::sleep;

use crate::cluster::host::{Host, live};
use crate::history::{Append, History, Item, Outcome, Part};
use crate::http;
use crate::run::Run;

/// One request; a paused host must not hold up its producer for long.
const REQUEST: Duration = Duration::from_secs(5);
/// All repeats of one request.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between repeats, at most.
const PAUSE: Duration = Duration::from_millis(100);
/// Ids of one producer.
const IDS: u64 = 1 << 32;
/// Keys of one producer, at most.
const KEYS: u32 = 1_000;

/// What producers send.
#[derive(Clone, Debug)]
pub struct Load {
    pub topic: &'static str,
    pub producers: u32,
    /// Of all producers together.
    pub records: u64,
    pub batch: RangeInclusive<usize>,
    /// Of each producer.
    pub keys: u32,
    /// One request in so many has a line that is not JSON, so that all of it must be refused. 0: none.
    pub spoiled: u32,
    /// Records a second of each producer, at most.
    pub rate: Option<f64>,
}

impl Load {
    pub fn new(topic: &'static str, producers: u32, records: u64) -> Self {
        Self { topic, producers, records, batch: 1..=50, keys: 20, spoiled: 40, rate: None }
    }

    /// Until [`Progress::finish`].
    pub fn endless(topic: &'static str, producers: u32) -> Self {
        Self::new(topic, producers, u64::MAX)
    }
}

/// How far all producers are.
#[derive(Debug, Default)]
pub struct Progress {
    /// Records that were acknowledged.
    pub acknowledged: AtomicU64,
    finished: AtomicBool,
}

impl Progress {
    /// Producers end with the request they are at.
    pub fn finish(&self) {
        self.finished.store(true, Ordering::Relaxed);
    }
}

/// Runs all producers to their end.
pub async fn produce(
    run: &Run,
    hosts: &[Arc<Host>],
    load: &Load,
    history: &Arc<History>,
    progress: &Arc<Progress>,
) -> Result<()> {
    let each = load.records.div_ceil(u64::from(load.producers));
    let tasks = (0..load.producers).map(|number| {
        let producer = Producer {
            number,
            hosts: hosts.to_vec(),
            load: load.clone(),
            rng: run.rng(&format!("producer {number}")),
            history: history.clone(),
            progress: progress.clone(),
            sent: vec![0; load.keys.min(KEYS) as usize],
            next: 0,
            taken: 0,
        };
        tokio::spawn(producer.run(each))
    });
    try_join_all(tasks).await?;
    Ok(())
}

struct Producer {
    number: u32,
    hosts: Vec<Arc<Host>>,
    load: Load,
    rng: Rng,
    history: Arc<History>,
    progress: Arc<Progress>,
    /// Records of each key so far.
    sent: Vec<u32>,
    /// The next id.
    next: u64,
    /// Records that were not refused.
    taken: u64,
}

#[derive(Deserialize)]
struct Answer {
    partitions: Vec<Part>,
}

/// What one attempt says.
pub enum Attempt {
    Ok(Vec<Part>),
    /// None of it is stored, and it never will be.
    Refused(String),
    /// Try again.
    Open(String),
}

impl Producer {
    async fn run(mut self, records: u64) {
        let started = Instant::now();
        let mut seq = 0;
        while self.taken < records && !self.progress.finished.load(Ordering::Relaxed) {
            let spoiled = self.load.spoiled > 0 && self.rng.u32(..self.load.spoiled) == 0;
            let items = self.items(records);
            let mut body: String = items.iter().map(|item| item.payload() + "\n").collect();
            if spoiled {
                body.push_str("{\"id\": this is not JSON}\n");
            }
            let (outcome, sent) = self.send(seq, &body, spoiled).await;
            if outcome == Outcome::Fail {
                // What was refused was never sent, as far as the order of keys goes.
                for item in &items {
                    let sent = &mut self.sent[(item.key - self.number * KEYS) as usize];
                    *sent = (*sent).min(item.n);
                }
            } else {
                self.taken += items.len() as u64;
                seq += 1;
            }
            if matches!(outcome, Outcome::Ok(_)) {
                self.progress.acknowledged.fetch_add(items.len() as u64, Ordering::Relaxed);
            }
            self.history.append(Append { items, outcome, sent, at: Instant::now() });
            if let Some(rate) = self.load.rate {
                let due = Duration::from_secs_f64(self.taken as f64 / rate);
                sleep(due.saturating_sub(started.elapsed())).await;
            }
        }
    }

    fn items(&mut self, records: u64) -> Vec<Item> {
        let count = self
            .rng
            .usize(self.load.batch.clone())
            .min(usize::try_from(records - self.taken).unwrap_or(usize::MAX));
        (0..count)
            .map(|_| {
                let key = self.rng.usize(..self.sent.len());
                let n = self.sent[key];
                self.sent[key] += 1;
                let id = u64::from(self.number) * IDS + self.next;
                self.next += 1;
                Item { id, key: self.number * KEYS + key as u32, n }
            })
            .collect()
    }

    /// Sends until it is known what became of it.
    async fn send(&mut self, seq: u64, body: &str, spoiled: bool) -> (Outcome, u32) {
        let deadline = Instant::now() + PATIENCE;
        let (mut sent, mut last) = (0, "no host was up".to_owned());
        loop {
            let url = live(&self.hosts, &mut self.rng).and_then(|host| host.url());
            if let Some(url) = url {
                sent += 1;
                let identity = self.identity(seq);
                match attempt(&url, self.load.topic, &identity, body, REQUEST).await {
                    Attempt::Ok(parts) if !spoiled => return (Outcome::Ok(parts), sent),
                    Attempt::Refused(_) if spoiled => return (Outcome::Fail, sent),
                    Attempt::Ok(_) => {
                        self.history.surprise("a body with a bad line was taken".to_owned());
                        return (Outcome::Unknown, sent);
                    }
                    Attempt::Refused(why) => {
                        self.history.surprise(format!("producer {} request {seq}: {why}", self.number));
                        return (Outcome::Unknown, sent);
                    }
                    Attempt::Open(why) => last = why,
                }
            }
            if Instant::now() > deadline {
                self.history.surprise(format!("producer {} gave up on request {seq}: {last}", self.number));
                return (Outcome::Unknown, sent);
            }
            sleep(PAUSE.mul_f64(self.rng.f64())).await;
        }
    }

    /// Half of the producers give each request a name, half number them.
    fn identity(&self, seq: u64) -> Vec<(&'static str, String)> {
        if self.number % 2 == 1 {
            vec![("idempotency-key", format!("p{}-{seq}", self.number))]
        } else {
            vec![
                ("tidemill-producer-id", format!("p{}", self.number)),
                ("tidemill-producer-seq", seq.to_string()),
            ]
        }
    }
}

/// Sends a body of lines once.
pub async fn attempt(
    url: &str,
    topic: &str,
    identity: &[(&'static str, String)],
    body: &str,
    patience: Duration,
) -> Attempt {
    let mut request = http::client()
        .post(format!("{url}/v1/topics/{topic}/records?key_field=id"))
        .header("content-type", "application/x-ndjson")
        .timeout(patience)
        .body(body.to_owned());
    for (name, value) in identity {
        request = request.header(*name, value);
    }
    let answer = match request.send().await {
        Ok(answer) => answer,
        Err(error) => return Attempt::Open(error.to_string()),
    };
    let status = answer.status();
    let text = match answer.text().await {
        Ok(text) => text,
        Err(error) => return Attempt::Open(error.to_string()),
    };
    match status {
        StatusCode::OK => match serde_json::from_str::<Answer>(&text) {
            Ok(answer) => Attempt::Ok(answer.partitions),
            Err(error) => Attempt::Open(format!("{error}: {text}")),
        },
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => Attempt::Open(text),
        status if status.is_client_error() => Attempt::Refused(format!("{status} {text}")),
        status => Attempt::Open(format!("{status} {text}")),
    }
}
