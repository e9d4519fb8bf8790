//! A topic as server-sent events.
//!
//! Guarantee: the `id` of an event is the position after its records, so a client that comes back with `Last-Event-ID`
//! gets each record after that once: none twice, none left out, also within a batch. Where records were dropped before
//! the client read them it is told so, and not given a gap.

use std::io;

use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
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
use crate::ids::{Partition, TopicName};

/// Records of one event with `batch=true`.
const BATCH: usize = 1_000;

pub async fn follow(
    State(state): State<ApiState>,
    Named(name): Named<TopicName>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let params = Params::read(&uri, &["from", "partition", "batch"])?;
    let topic = state.log.topic(name.as_str()).await?;
    let only = params.parsed::<Partition>("partition")?;
    let start = match sse::last_event_id(&headers)? {
        Some(id) => Start::Position(id.parse().map_err(|_| {
            ApiError::bad_request("bad_header", format!("Last-Event-ID {id:?} is no position of this stream"))
                .hint("it looks like 0:120,1:99; leave it out to begin anew")
        })?),
        None => params.parsed::<Start>("from")?.unwrap_or_default(),
    };
    let permit = state.streams.enter()?;
    let begin = start::resolve(&state, &topic, &start, only).await?;
    let writer = RecordWriter::new(Payload::of(topic.format));
    Ok(sse::events(TopicEvents {
        reading: Reading::begin(&state, topic, begin, None, true),
        writer,
        batch: params.flag("batch")?,
        shutdown: state.shutdown.clone(),
        phase: Phase::Opening,
        _permit: permit,
    }))
}

struct TopicEvents {
    reading: Reading,
    writer: RecordWriter,
    batch: bool,
    shutdown: CancellationToken,
    phase: Phase,
    _permit: OwnedSemaphorePermit,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Opening,
    Following,
    Over,
}

impl Pieces for TopicEvents {
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        match self.phase {
            Phase::Opening => {
                self.phase = Phase::Following;
                return Some(Ok(sse::opening()));
            }
            Phase::Over => return None,
            Phase::Following => {}
        }
        let step = tokio::select! {
            biased;
            () = self.shutdown.cancelled() => return None,
            step = self.reading.next(HEARTBEAT, BATCH, CHUNK) => step,
        };
        match step {
            Ok(Step::Records(piece)) => Some(Ok(self.write(&piece))),
            Ok(Step::Quiet) => Some(Ok(sse::heartbeat())),
            Ok(Step::End) => None,
            Err(error) => {
                self.phase = Phase::Over;
                Some(Ok(sse::failure(&error)))
            }
        }
    }
}

impl TopicEvents {
    fn write(&mut self, piece: &Piece) -> Bytes {
        let mut out = Vec::with_capacity(CHUNK);
        if self.batch {
            self.writer.out.push(b'[');
            for (index, record) in piece.records().iter().enumerate() {
                if index > 0 {
                    self.writer.out.push(b',');
                }
                self.writer.record(record);
                self.reading.passed(record);
            }
            self.writer.out.push(b']');
            sse::event(&mut out, "records", Some(self.reading.position()), &self.writer.out);
            self.writer.out.clear();
        } else {
            for record in piece.records() {
                self.writer.record(record);
                self.reading.passed(record);
                sse::event(&mut out, "record", Some(self.reading.position()), &self.writer.out);
                self.writer.out.clear();
            }
        }
        out.into()
    }
}
