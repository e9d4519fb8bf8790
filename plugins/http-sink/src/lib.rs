//! Posts each batch to a web hook as lines of JSON. Needs the grant `http` for the hook's origin.
//!
//! Delivery is at least once. Each request carries an `Idempotency-Key` made of group, topic, partition and the offsets it
//! covers; the same messages in the same portion carry the same key, so a receiver that remembers keys takes them once. A
//! restart may cut portions differently: a receiver that must be exact looks at the offsets, which `format = "records"`
//! puts into each line and the `tidemill-*` headers into each request.
//!
//! | answer | what happens |
//! | --- | --- |
//! | 2xx | delivered |
//! | 408, 425, 429, 5xx, no whole answer | the batch comes again, after `retry-after` if the hook says so |
//! | 400, 413, 415, 422 | the portion is halved down to the message at fault, which is rejected |
//! | other 3xx, 4xx | the stage stops: the hook or the stage is set up wrong |
//!
//! `on_client_error` treats the last two alike: all as rejects, as retries, or as a stop.

mod config;
mod line;

use std::collections::HashMap;

use tidemill_plugin::http::{self, Error, Request, Response};
use tidemill_plugin::{Descriptor, Failure, Message, Plugin, Refusal, Refused, Sink, Token};

use crate::config::CONFIG_SCHEMA;
pub use crate::config::{Config, Format, OnClientError};

/// A hook cannot hold a stage up for longer than this with one answer, in microseconds.
const LONGEST_WAIT: u64 = 600_000_000;
/// Characters of an answer that are quoted.
const QUOTED: usize = 200;

/// The plugin.
pub struct HttpSink {
    config: Config,
    progress: Progress,
}

/// What the hook has answered on portions of the batch in hand, so that a batch that comes again goes on where it was. A
/// cache: without it, as in a new instance, the batch begins anew.
#[derive(Default)]
struct Progress {
    token: Option<Token>,
    portions: HashMap<(u64, u64), Verdict>,
}

/// A message that has a line.
struct Line {
    input: u32,
    offset: u64,
    text: Vec<u8>,
}

/// What an answer means.
#[derive(Clone)]
enum Verdict {
    Delivered,
    /// A message of the portion is wrong, for this reason.
    Wrong(String),
}

impl Plugin for HttpSink {
    type Config = Config;

    fn describe() -> Descriptor {
        Descriptor::new(
            env!("CARGO_PKG_NAME"),
            env!("CARGO_PKG_VERSION"),
            "Posts batches to a web hook as lines of JSON, with an idempotency key",
        )
        .config_schema(CONFIG_SCHEMA)
    }

    fn new(config: Config) -> Result<Self, String> {
        Ok(HttpSink { config, progress: Progress::default() })
    }
}

impl Sink for HttpSink {
    fn deliver(&mut self, token: Token, batch: Vec<Message>) -> Result<Vec<Refused>, Failure> {
        let mut refused = Vec::new();
        let mut lines = Vec::with_capacity(batch.len());
        for (input, message) in (0..).zip(&batch) {
            match line::of(message, self.config.format) {
                Ok(text) => lines.push(Line { input, offset: message.offset, text }),
                Err(refusal) => refused.push(Refused { input, refusal }),
            }
        }
        if self.progress.token.as_ref() != Some(&token) {
            self.progress = Progress { token: Some(token.clone()), portions: HashMap::new() };
        }
        if !lines.is_empty() {
            self.send(&token, &lines, (token.first, token.next), &mut refused)?;
        }
        refused.sort_unstable_by_key(|refused| refused.input);
        Ok(refused)
    }
}

impl HttpSink {
    /// Sends a portion; halves it if a message in it is at fault. A portion is halved alike whenever it comes again, so its
    /// parts keep their keys.
    fn send(
        &mut self,
        token: &Token,
        lines: &[Line],
        (first, next): (u64, u64),
        refused: &mut Vec<Refused>,
    ) -> Result<(), Failure> {
        let verdict = match self.progress.portions.get(&(first, next)) {
            Some(known) => known.clone(),
            None => {
                let verdict = self.ask(&self.request(token, lines, first, next))?;
                self.progress.portions.insert((first, next), verdict.clone());
                verdict
            }
        };
        let reason = match verdict {
            Verdict::Delivered => return Ok(()),
            Verdict::Wrong(reason) => reason,
        };
        if let [line] = lines {
            refused.push(Refused { input: line.input, refusal: Refusal::reject(reason) });
            return Ok(());
        }
        let (left, right) = lines.split_at(lines.len() / 2);
        let middle = right.first().map_or(next, |line| line.offset);
        self.send(token, left, (first, middle), refused)?;
        self.send(token, right, (middle, next), refused)
    }

    fn ask(&self, request: &Request) -> Result<Verdict, Failure> {
        match http::send(request) {
            Ok(response) => self.judge(&response),
            Err(Error::TooLarge(reason)) => Ok(Verdict::Wrong(reason)),
            // The next call may send as many again, and goes on from here.
            Err(Error::Exhausted(reason)) => Err(Failure::retry(reason, Some(0))),
            Err(error) => Err(error.into()),
        }
    }

    fn request(&self, token: &Token, lines: &[Line], first: u64, next: u64) -> Request {
        let mut body = Vec::with_capacity(lines.iter().map(|line| line.text.len() + 1).sum());
        for line in lines {
            body.extend_from_slice(&line.text);
            body.push(b'\n');
        }
        let Token { group, topic, partition, .. } = token;
        Request::post(&self.config.url, body)
            .header("content-type", "application/x-ndjson")
            .header("idempotency-key", format!("{group}/{topic}/{partition}/{first}-{next}"))
            .header("tidemill-group", group.as_str())
            .header("tidemill-topic", topic.as_str())
            .header("tidemill-partition", partition.to_string())
            .header("tidemill-first-offset", first.to_string())
            .header("tidemill-next-offset", next.to_string())
    }

    fn judge(&self, response: &Response) -> Result<Verdict, Failure> {
        let status = response.status;
        let reason = || {
            let text = String::from_utf8_lossy(&response.body);
            let quoted: String = text.trim().chars().take(QUOTED).collect();
            format!("the hook answered {status}{}{quoted}", if quoted.is_empty() { "" } else { ": " })
        };
        let again = || {
            let wait = response.retry_after().map(|wait| wait.min(LONGEST_WAIT));
            Failure::retry(reason(), wait)
        };
        match (status, self.config.on_client_error) {
            (200..=299, _) => Ok(Verdict::Delivered),
            (408 | 425 | 429 | 500..=599, _) | (400..=499, OnClientError::Retry) => Err(again()),
            (400 | 413 | 415 | 422, OnClientError::Auto) | (400..=499, OnClientError::Reject) => {
                Ok(Verdict::Wrong(reason()))
            }
            (300..=399, _) => {
                let place = response.header("location").unwrap_or("nowhere");
                Err(Failure::fatal(format!(
                    "the hook answered {status} and points to {place}: set `url` to where it is"
                )))
            }
            _ => Err(Failure::fatal(reason())),
        }
    }
}

tidemill_plugin::export_sink!(HttpSink);
