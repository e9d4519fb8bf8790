//! `tidemill job enqueue`: one payload, or a job for each line of a file. Lines are sent in requests that are all or none; with
//! one request in flight, so that an ordered queue gets them in their order.

use std::path::{Path, PathBuf};

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use serde_json::{Map, Value, json};
use tokio::fs::File;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader, stdin};

use crate::cli::Invalid;
use crate::cli::client::{Client, ClientArgs};
use crate::cli::output::{count, print, print_json};
use crate::clock::{Clock, rfc3339};
use crate::config::units;

/// Bytes of one payload: what the host takes.
const PAYLOAD_MAX: u64 = 1 << 20;
/// Jobs and payload bytes of one request.
const REQUEST_JOBS: usize = 1_000;
const REQUEST_BYTES: usize = 2 << 20;

#[derive(Args, Debug)]
pub struct EnqueueArgs {
    /// The queue
    queue: String,
    /// What the job carries; - reads it from standard input
    #[arg(required_unless_present = "file", conflicts_with = "file")]
    payload: Option<String>,
    /// Make a job of each line of this file; - is standard input
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Its key: what queues with per_key or ordered go by
    #[arg(long)]
    key: Option<String>,
    /// 1 (first) to 4
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=4))]
    priority: Option<u8>,
    /// Not before this time, such as 2026-01-31T08:00:00Z
    #[arg(long, value_name = "TIME", conflicts_with = "delay")]
    run_at: Option<String>,
    /// Not before this has passed, such as 10m
    #[arg(long = "in", id = "delay", value_name = "DURATION")]
    delay: Option<String>,
    /// Put no second job with this key while the first has not ended
    #[arg(long, value_name = "KEY", conflicts_with = "file")]
    unique: Option<String>,
    /// Nor before this has passed since it was put, such as 1h
    #[arg(long, value_name = "DURATION", requires = "unique")]
    unique_for: Option<String>,
    /// Runs before it is dead; the queue's if left out
    #[arg(long, value_name = "RUNS", value_parser = clap::value_parser!(u32).range(1..=1000))]
    max_attempts: Option<u32>,
    /// A header; may be given more than once
    #[arg(long, value_name = "NAME=VALUE")]
    header: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    client: ClientArgs,
}

pub async fn run(args: EnqueueArgs) -> anyhow::Result<()> {
    let client = args.client.connect()?;
    let job = args.job()?;
    if let Some(file) = &args.file {
        return lines(&args, &client, &job, file).await;
    }
    let given = args.payload.as_deref().unwrap_or_default();
    let payload = if given == "-" { whole(stdin()).await? } else { given.as_bytes().to_vec() };
    let answer = send(&client, &args.queue, vec![carrying(&job, &payload)]).await?;
    if args.json {
        print_json(&answer)?;
        return Ok(());
    }
    let put = &answer["jobs"][0];
    let said = match put["created"] == true {
        true => format!("put job {}\n", put["id"]),
        false => format!("job {} has that unique key already\n", put["id"]),
    };
    print(&said)?;
    Ok(())
}

impl EnqueueArgs {
    /// All of a job but its payload.
    fn job(&self) -> Result<Map<String, Value>, Invalid> {
        let delay = self.delay.as_deref().map(|delay| units::duration(delay).map_err(Invalid)).transpose()?;
        let run_at = match delay {
            None => self.run_at.clone(),
            Some(delay) => {
                let micros = i64::try_from(delay.as_micros()).unwrap_or(i64::MAX);
                Some(rfc3339(Clock::system().now().saturating_add(micros)))
            }
        };
        let lasting = self.unique_for.as_deref().map(|lasting| units::duration(lasting).map_err(Invalid));
        let headers = self.header.iter().map(|header| match header.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok(json!([name, value])),
            _ => Err(Invalid(format!("--header {header:?} is not NAME=VALUE"))),
        });
        let members = [
            ("key", self.key.clone().map(Value::from)),
            ("priority", self.priority.map(Value::from)),
            ("run_at", run_at.map(Value::from)),
            ("unique", self.unique.clone().map(Value::from)),
            ("unique_for_s", lasting.transpose()?.map(|lasting| lasting.as_secs_f64().into())),
            ("max_attempts", self.max_attempts.map(Value::from)),
            ("headers", Some(Value::Array(headers.collect::<Result<_, _>>()?))),
        ];
        Ok(members.into_iter().filter_map(|(name, value)| Some((name.to_string(), value?))).collect())
    }
}

/// The job with a payload, byte for byte.
fn carrying(job: &Map<String, Value>, payload: &[u8]) -> Value {
    let mut job = job.clone();
    match std::str::from_utf8(payload) {
        Ok(text) => job.insert("text".to_string(), text.into()),
        Err(_) => job.insert("base64".to_string(), STANDARD.encode(payload).into()),
    };
    Value::Object(job)
}

async fn send(client: &Client, queue: &str, jobs: Vec<Value>) -> anyhow::Result<Value> {
    Ok(client.post(&["v1", "queues", queue, "jobs"], &Value::Array(jobs)).await?)
}

async fn whole(input: impl AsyncRead + Unpin) -> anyhow::Result<Vec<u8>> {
    let mut payload = Vec::new();
    input.take(PAYLOAD_MAX + 1).read_to_end(&mut payload).await.context("cannot read standard input")?;
    match payload.len() as u64 > PAYLOAD_MAX {
        true => Err(too_long("the input").into()),
        false => Ok(payload),
    }
}

fn too_long(what: &str) -> Invalid {
    let most = units::show_size(PAYLOAD_MAX);
    Invalid(format!("{what} is larger than {most}: store large things elsewhere and send where they are"))
}

async fn lines(
    args: &EnqueueArgs,
    client: &Client,
    job: &Map<String, Value>,
    file: &Path,
) -> anyhow::Result<()> {
    let input: Box<dyn AsyncRead + Unpin + Send> = match file == Path::new("-") {
        true => Box::new(stdin()),
        false => Box::new(File::open(file).await.with_context(|| format!("cannot read {}", file.display()))?),
    };
    let mut input = BufReader::new(input);
    let (mut put, mut number) = (0u64, 0u64);
    loop {
        let (mut jobs, mut bytes) = (Vec::new(), 0);
        while jobs.len() < REQUEST_JOBS && bytes < REQUEST_BYTES {
            number += 1;
            let line = line(&mut input, number).await;
            let Some(line) = line.with_context(|| stopped(put))? else { break };
            if !line.is_empty() {
                bytes += line.len();
                jobs.push(carrying(job, &line));
            }
        }
        if jobs.is_empty() {
            break;
        }
        let count = jobs.len() as u64;
        send(client, &args.queue, jobs).await.with_context(|| stopped(put))?;
        put += count;
    }
    match args.json {
        true => print_json(&json!({ "jobs": put }))?,
        false => print(&format!("put {} jobs\n", count(put)))?,
    };
    Ok(())
}

fn stopped(put: u64) -> String {
    format!("stopped after {} jobs were put", count(put))
}

/// The next line without its end; None at the end of the input.
async fn line(input: &mut (impl AsyncBufRead + Unpin), number: u64) -> anyhow::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    if input.take(PAYLOAD_MAX + 2).read_until(b'\n', &mut line).await? == 0 {
        return Ok(None);
    }
    while line.last().is_some_and(|end| matches!(end, b'\n' | b'\r')) {
        line.pop();
    }
    match line.len() as u64 > PAYLOAD_MAX {
        true => Err(too_long(&format!("line {number}")).into()),
        false => Ok(Some(line)),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: EnqueueArgs,
    }

    fn job(line: &[&str]) -> Result<Map<String, Value>, String> {
        let words = ["job", "reports"].iter().chain(line);
        let parsed = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        parsed.args.job().map_err(|error| error.to_string())
    }

    #[test]
    fn flags_become_members_of_the_job() {
        let made = job(&[
            "x",
            "--key",
            "a1",
            "--priority",
            "1",
            "--unique",
            "u",
            "--unique-for",
            "1h",
            "--header",
            "h=v=w",
        ]);
        let expected = json!({ "key": "a1", "priority": 1, "unique": "u", "unique_for_s": 3600.0, "headers": [["h", "v=w"]] });
        assert_eq!(made.map(Value::Object), Ok(expected));
        assert!(job(&["x", "--in", "10m"]).is_ok_and(|job| job["run_at"].is_string()));
        for bad in [
            &["x", "--in", "soon"][..],
            &["x", "--header", "h"],
            &["x", "--priority", "5"],
            &[],
            &["x", "--in", "1m", "--run-at", "2026-01-31T08:00:00Z"],
            &["--file", "f", "--unique", "u"],
        ] {
            assert!(job(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn payloads_travel_byte_for_byte() {
        assert_eq!(carrying(&Map::new(), b"{\"a\": 1}"), json!({ "text": "{\"a\": 1}" }));
        assert_eq!(carrying(&Map::new(), b"\xff"), json!({ "base64": "/w==" }));
    }

    #[tokio::test]
    async fn lines_end_anyhow_and_are_bounded() {
        let mut input = &b"a\r\n\nb"[..];
        let mut read = Vec::new();
        while let Some(next) = line(&mut input, 1).await.unwrap() {
            read.push(next);
        }
        assert_eq!(read, [&b"a"[..], b"", b"b"]);
        let long = vec![b'x'; PAYLOAD_MAX as usize + 1];
        assert!(line(&mut &long[..], 7).await.is_err_and(|error| error.to_string().contains("line 7")));
    }
}
