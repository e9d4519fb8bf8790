//! Producers at a steady pace, each request sent once, that note how long it took.
//!
//! The time of a request counts from when it was due: one that waits behind a slow one is as late as its client sees it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use fastrand::Rng;
use futures::future::try_join_all;
use tokio::time::sleep;

use super::{Attempt, attempt};
use crate::cluster::host::{Host, live};
use crate::history::{Append, History, Item, Outcome};
use crate::observe::delay::quantile;
use crate::run::Run;

/// Beyond this a request counts as an error.
const REQUEST: Duration = Duration::from_secs(20);
const KEYS: u32 = 20;

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    pub topic: &'static str,
    pub producers: u32,
    /// Requests a second of each producer.
    pub rate: f64,
    /// Records of a request.
    pub batch: u32,
}

/// One request: when it was due, and how much later it was acknowledged.
pub type Timed = (Instant, Duration);

/// All requests, and those that were not acknowledged, in words.
#[derive(Debug, Default)]
pub struct Paced {
    pub times: Vec<Timed>,
    pub errors: Vec<String>,
}

impl Paced {
    /// A quantile of those that were due in a stretch of time, in milliseconds.
    pub fn quantile(&self, from: Instant, until: Instant, part: f64) -> Option<f64> {
        milliseconds(&self.times, from, until, part)
    }
}

/// A quantile of what happened in a stretch of time, in milliseconds.
pub fn milliseconds(times: &[Timed], from: Instant, until: Instant, part: f64) -> Option<f64> {
    let within = times.iter().filter(|(at, _)| (from..until).contains(at)).map(|(_, took)| *took);
    Some(quantile(within.collect(), part)?.as_secs_f64() * 1e3)
}

/// Runs until it is told to stop.
pub async fn paced(
    run: &Run,
    hosts: &[Arc<Host>],
    pace: Pace,
    history: &Arc<History>,
    stop: &Arc<AtomicBool>,
) -> Result<Paced> {
    let tasks = (0..pace.producers).map(|number| {
        let producer = Producer {
            number,
            pace,
            hosts: hosts.to_vec(),
            rng: run.rng(&format!("paced {} {number}", pace.topic)),
            history: history.clone(),
            paced: Paced::default(),
        };
        tokio::spawn(producer.run(stop.clone()))
    });
    let mut all = Paced::default();
    for paced in try_join_all(tasks).await? {
        all.times.extend(paced.times);
        all.errors.extend(paced.errors);
    }
    Ok(all)
}

struct Producer {
    number: u32,
    pace: Pace,
    hosts: Vec<Arc<Host>>,
    rng: Rng,
    history: Arc<History>,
    paced: Paced,
}

impl Producer {
    async fn run(mut self, stop: Arc<AtomicBool>) -> Paced {
        let every = Duration::from_secs_f64(1.0 / self.pace.rate);
        // Not all at once.
        let mut due = Instant::now() + every.mul_f64(self.rng.f64());
        let mut seq = 0;
        while !stop.load(Ordering::Relaxed) {
            sleep(due.saturating_duration_since(Instant::now())).await;
            self.send(seq, due).await;
            seq += 1;
            due += every;
        }
        self.paced
    }

    async fn send(&mut self, seq: u32, due: Instant) {
        let items: Vec<Item> = (0..self.pace.batch)
            .map(|place| {
                let n = seq * self.pace.batch + place;
                let id = u64::from(self.number) << 32 | u64::from(n);
                Item { id, key: self.number * KEYS + n % KEYS, n }
            })
            .collect();
        let body: String = items.iter().map(|item| item.payload() + "\n").collect();
        let identity = [
            ("tidemill-producer-id", format!("t{}", self.number)),
            ("tidemill-producer-seq", seq.to_string()),
        ];
        let answer = match live(&self.hosts, &mut self.rng).and_then(|host| host.url()) {
            Some(url) => attempt(&url, self.pace.topic, &identity, &body, REQUEST).await,
            None => Attempt::Open("no host is up".to_owned()),
        };
        let at = Instant::now();
        let outcome = match answer {
            Attempt::Ok(parts) => {
                self.paced.times.push((due, at - due));
                Outcome::Ok(parts)
            }
            Attempt::Refused(why) | Attempt::Open(why) => {
                self.paced.errors.push(format!("request {seq} of producer {}: {why}", self.number));
                Outcome::Unknown
            }
        };
        self.history.append(Append { items, outcome, sent: 1, at });
    }
}
