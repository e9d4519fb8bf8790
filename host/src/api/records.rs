//! Reading a topic: one page, or a chunked stream of JSON lines or of payloads.

use std::io;
use std::time::Duration;

use axum::extract::State;
use axum::http::Uri;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

use super::ApiState;
use super::encode::{Payload, RecordWriter};
use super::error::ApiError;
use super::params::Params;
use super::path::Named;
use super::reading::{Piece, Reading, Step};
use super::sse::{self, CHUNK, HEARTBEAT, Pieces};
use super::start::{self, Start};
use crate::ids::{GroupName, Partition, TopicName};
use crate::replay::Position;

const DEFAULT_PAGE: u64 = 100;
const MAX_PAGE: u64 = 10_000;
/// Bytes of payload after which a page ends early; `next` says where to go on.
const PAGE_BYTES: usize = 4 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Page,
    Json,
    Raw,
}

pub async fn read(
    State(state): State<ApiState>,
    Named(name): Named<TopicName>,
    uri: Uri,
) -> Result<Response, ApiError> {
    let known = ["from", "partition", "max", "format", "follow", "group", "payload", "appended"];
    let params = Params::read(&uri, &known)?;
    let shape = shape(&params)?;
    let follow = params.flag("follow")?;
    let most = if shape == Shape::Page { MAX_PAGE } else { u64::MAX };
    let max = params.number("max", 1, most)?;
    if follow && shape == Shape::Page {
        return Err(ApiError::bad_request("bad_parameter", "a page cannot follow")
            .hint("use format=json or format=raw, or the route /stream"));
    }
    let topic = state.log.topic(name.as_str()).await?;
    let payload = payload(&params, Payload::of(topic.format))?;
    let start = params.parsed::<Start>("from")?.unwrap_or_default();
    let only = params.parsed::<Partition>("partition")?;
    let mut begin = start::resolve(&state, &topic, &start, only).await?;
    let group = params.parsed::<GroupName>("group")?;
    if let Some(group) = &group {
        start::of_group(&state, &topic, group, &mut begin).await?;
    }
    let writer = RecordWriter::new(payload);
    let appended = params.flag("appended")?;
    if appended && shape != Shape::Json {
        return Err(ApiError::bad_request("bad_parameter", "appended=true goes with format=json"));
    }
    if shape == Shape::Page {
        let end = Position::from(begin.end.clone());
        let reading = Reading::begin(&state, topic, begin, Some(max.unwrap_or(DEFAULT_PAGE)), false);
        return page(reading, writer, &end).await;
    }
    let permit = state.streams.enter()?;
    let lines = RecordLines {
        reading: Reading::begin(&state, topic, begin, max, follow),
        writer,
        raw: shape == Shape::Raw,
        appended,
        epochs: group.is_some(),
        follow,
        shutdown: state.shutdown.clone(),
        _permit: permit,
    };
    Ok(sse::chunked(
        lines,
        if shape == Shape::Raw { "application/octet-stream" } else { "application/x-ndjson" },
    ))
}

fn shape(params: &Params) -> Result<Shape, ApiError> {
    match params.text("format") {
        None | Some("page") => Ok(Shape::Page),
        Some("json") => Ok(Shape::Json),
        Some("raw") => Ok(Shape::Raw),
        Some(other) => Err(ApiError::bad_request(
            "bad_parameter",
            format!("format={other} cannot be used: it is page, json or raw"),
        )),
    }
}

fn payload(params: &Params, default: Payload) -> Result<Payload, ApiError> {
    match params.text("payload") {
        None => Ok(default),
        Some("value") => Ok(Payload::Embedded),
        Some("text") => Ok(Payload::Text),
        Some(other) => Err(ApiError::bad_request(
            "bad_parameter",
            format!("payload={other} cannot be used: it is value or text"),
        )),
    }
}

async fn page(mut reading: Reading, mut writer: RecordWriter, end: &Position) -> Result<Response, ApiError> {
    writer.out.extend_from_slice(b"{\"records\":[");
    let (mut count, mut size) = (0, 0);
    while let Step::Records(piece) = reading.next(Duration::ZERO, usize::MAX, PAGE_BYTES).await? {
        for record in piece.records() {
            if count > 0 {
                writer.out.push(b',');
            }
            writer.record(record);
            reading.passed(record);
            count += 1;
            size += record.size();
        }
        if size >= PAGE_BYTES {
            break;
        }
    }
    let next = reading.position().to_string();
    writer.out.extend_from_slice(format!("],\"next\":\"{next}\",\"end\":\"{end}\"}}").as_bytes());
    Ok(([(CONTENT_TYPE, "application/json")], writer.take()).into_response())
}

/// A line for each record.
struct RecordLines {
    reading: Reading,
    writer: RecordWriter,
    raw: bool,
    /// With the time of the append.
    appended: bool,
    /// With the epoch of the log, for a reader that will commit.
    epochs: bool,
    follow: bool,
    shutdown: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

impl Pieces for RecordLines {
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        loop {
            let step = tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return self.stopping(),
                step = self.reading.next(HEARTBEAT, usize::MAX, CHUNK) => step,
            };
            match step {
                Ok(Step::Records(piece)) => return Some(Ok(self.write(&piece))),
                // Lines have no room for a sign of life.
                Ok(Step::Quiet) => {}
                Ok(Step::End) => return None,
                Err(error) => {
                    tracing::warn!(%error, "a reader's stream was cut");
                    return Some(Err(io::Error::other(error.message)));
                }
            }
        }
    }
}

impl RecordLines {
    /// Who follows is served as long as the host runs; who wants all there is must not think this was all.
    fn stopping(&self) -> Option<io::Result<Bytes>> {
        match self.follow {
            true => None,
            false => Some(Err(io::Error::other("the host stops"))),
        }
    }

    fn write(&mut self, piece: &Piece) -> Bytes {
        self.writer.out.reserve(CHUNK + piece.records().len());
        for record in piece.records() {
            self.reading.passed(record);
            if self.epochs {
                let place = self.reading.position().place(record.partition);
                self.writer.log_epoch = place.and_then(|place| place.epoch);
            }
            match (self.raw, self.appended) {
                (true, _) => self.writer.out.extend_from_slice(&record.payload),
                (false, true) => self.writer.appended(record, piece.appended_at),
                (false, false) => self.writer.record(record),
            }
            self.writer.out.push(b'\n');
        }
        self.writer.take().into()
    }
}
