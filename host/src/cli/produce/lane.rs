//! One lane: an idempotent producer with one request in flight. Requests are repeated, with the same number, until they
//! are answered; the host recognises a repeat, so a lost answer stores nothing twice.

use std::time::{Duration, Instant};

use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, RequestBuilder};
use serde::Deserialize;
use tokio::sync::mpsc;

use super::lines::Batch;
use super::progress::Progress;
use crate::cli::client::{Client, ClientError};

/// An append waits for the disk of a busy host, so it gets more time than a question.
const APPEND_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a host may be away before the run gives up.
const GIVE_UP_AFTER: Duration = Duration::from_secs(60);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

pub struct Lane {
    pub client: Client,
    pub topic: String,
    /// Whether the topic's payloads are JSON.
    pub json: bool,
    pub producer_id: String,
    /// The producer has a name of the user's, so an earlier run may have stored batches already.
    pub named: bool,
    pub partition: Option<u32>,
    pub key_field: Option<String>,
    pub key_separator: Option<String>,
    pub progress: Progress,
}

/// What a lane came to.
#[derive(Debug, Default)]
pub struct Sent {
    pub stored: u64,
    /// Records that an earlier run had stored.
    pub repeated: u64,
}

#[derive(Deserialize)]
struct Answer {
    records: u64,
    duplicate: bool,
}

impl Lane {
    /// Sends batches until the queue closes.
    pub async fn run(self, mut batches: mpsc::Receiver<Batch>) -> anyhow::Result<Sent> {
        let mut sent = Sent::default();
        let mut sequence: i64 = 0;
        while let Some(batch) = batches.recv().await {
            let answer = self.append(&batch, sequence).await?;
            sequence += 1;
            if answer.duplicate && self.named {
                sent.repeated += answer.records;
            } else {
                sent.stored += answer.records;
                self.progress.stored(answer.records);
            }
            self.progress.advanced(batch.body.len() as u64);
        }
        Ok(sent)
    }

    async fn append(&self, batch: &Batch, sequence: i64) -> anyhow::Result<Answer> {
        let mut failing_since: Option<Instant> = None;
        let mut pause = FIRST_PAUSE;
        loop {
            let request = self.request(batch, sequence);
            let error = match self.client.send(request).await {
                Ok(response) => match response.json::<Answer>().await {
                    Ok(answer) => return Ok(answer),
                    Err(error) => self.client.lost(&error),
                },
                Err(error) => error,
            };
            if self.named && error.code() == Some("producer_out_of_sequence") {
                // Older than what the host can answer for, hence stored: this lane numbers its batches one by one.
                return Ok(Answer { records: batch.lines.len() as u64, duplicate: true });
            }
            let since = *failing_since.get_or_insert_with(Instant::now);
            if !error.is_transient() || since.elapsed() > GIVE_UP_AFTER {
                return Err(explain(error, batch));
            }
            self.progress.waiting(&error);
            let wait = match &error {
                ClientError::Refused { retry_after: Some(after), .. } => (*after).min(LONGEST_PAUSE),
                _ => pause.mul_f64(0.5 + fastrand::f64() / 2.0),
            };
            tokio::time::sleep(wait).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn request(&self, batch: &Batch, sequence: i64) -> RequestBuilder {
        let kind = if self.json { "application/x-ndjson" } else { "application/octet-stream" };
        let mut query: Vec<(&str, String)> = Vec::new();
        if let Some(partition) = self.partition {
            query.push(("partition", partition.to_string()));
        }
        if let Some(field) = &self.key_field {
            query.push(("key_field", field.clone()));
        }
        if let Some(separator) = &self.key_separator {
            query.push(("key_separator", separator.clone()));
        }
        self.client
            .request(Method::POST, &["v1", "topics", &self.topic, "records"])
            .query(&query)
            .header(CONTENT_TYPE, kind)
            .header("Tidemill-Producer-Id", &self.producer_id)
            .header("Tidemill-Producer-Epoch", "0")
            .header("Tidemill-Producer-Seq", sequence.to_string())
            .timeout(APPEND_TIMEOUT)
            .body(batch.body.clone())
    }
}

/// An error that names a line of the request is made to name the line of the input.
fn explain(error: ClientError, batch: &Batch) -> anyhow::Error {
    let ClientError::Refused { message, hint, line: Some(line), .. } = &error else {
        return anyhow::Error::new(error).context("the host did not take a batch");
    };
    let place = batch.lines.get((*line as usize).saturating_sub(1));
    let why = message.strip_prefix(&format!("line {line} "));
    match (place, why) {
        (Some(place), Some(why)) => {
            let hint = hint.as_deref().map(|hint| format!("; {hint}")).unwrap_or_default();
            anyhow::anyhow!("line {place} of the input {why}{hint}")
        }
        _ => anyhow::Error::new(error).context("the host did not take a batch"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_line_is_named_by_its_place_in_the_input() {
        let batch = Batch { body: bytes::Bytes::from_static(b"a\nb\n"), lines: vec![40, 52] };
        let refused = ClientError::Refused {
            status: 400,
            code: "bad_line".to_string(),
            message: "line 2 is not JSON: expected value".to_string(),
            hint: Some("nothing was stored".to_string()),
            line: Some(2),
            retry_after: None,
        };
        let text = explain(refused, &batch).to_string();
        assert_eq!(text, "line 52 of the input is not JSON: expected value; nothing was stored");
    }
}
