//! Tables that materializers keep: list, read, follow.
//!
//! Guarantee of the stream: a snapshot and the changes after it come from one position each, so the rows a client has
//! after an event are the table at that event's `id`. A client that comes back with its `id` gets what changed since, or
//! a new snapshot where that is no longer known.
//! Bound: changes are read when the client has taken the ones before, at most once an interval; of a row only its newest
//! state is sent.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::ApiState;
use super::error::ApiError;
use super::params::Params;
use super::path::Named;
use super::sse::{self, HEARTBEAT, Pieces};
use crate::ids::TableName;
use crate::replay::Position;
use crate::tables::Tables;
use crate::tables::feed::{TableFeed, Tail};

const DEFAULT_ROWS: u64 = 10_000;
const MAX_ROWS: u64 = 100_000;
/// Rows of one event.
const EVENT_ROWS: usize = 1_000;
const DEFAULT_INTERVAL: u64 = 250;

pub async fn list(State(state): State<ApiState>, uri: Uri) -> Result<Json<Value>, ApiError> {
    Params::read(&uri, &[])?;
    Ok(Json(json!({ "tables": state.tables.list().await? })))
}

pub async fn rows(
    State(state): State<ApiState>,
    Named(name): Named<TableName>,
    uri: Uri,
) -> Result<Json<Value>, ApiError> {
    let params = Params::read(&uri, &["limit"])?;
    let limit = params.number("limit", 1, MAX_ROWS)?.unwrap_or(DEFAULT_ROWS);
    let snapshot = state.tables.snapshot(name.as_str(), u32::try_from(limit).ok()).await?;
    Ok(Json(json!({
        "table": name,
        "key": snapshot.key,
        "rows": snapshot.rows,
        "position": snapshot.position.to_string(),
    })))
}

pub async fn follow(
    State(state): State<ApiState>,
    Named(name): Named<TableName>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let params = Params::read(&uri, &["interval"])?;
    let interval = params.number("interval", 50, 10_000)?.unwrap_or(DEFAULT_INTERVAL);
    // An id that is no position of ours is no reason to refuse: the client gets everything.
    let since = sse::last_event_id(&headers)?.and_then(|id| id.parse::<Position>().ok());
    // Asked before the answer begins, so that an unknown table is a 404.
    state.tables.get(name.as_str()).await?;
    let permit = state.streams.enter()?;
    Ok(sse::events(TableEvents {
        tables: state.tables.clone(),
        name,
        interval: Duration::from_millis(interval),
        tail: since.map_or(Next::Snapshot, Next::Since),
        waiting: VecDeque::from([sse::opening()]),
        last_sent: Instant::now(),
        over: false,
        shutdown: state.shutdown.clone(),
        _permit: permit,
    }))
}

struct TableEvents {
    tables: Tables,
    name: TableName,
    interval: Duration,
    tail: Next,
    /// Events of one read that the client has not taken yet.
    waiting: VecDeque<Bytes>,
    last_sent: Instant,
    over: bool,
    shutdown: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

/// What to do when the client has taken all.
enum Next {
    Snapshot,
    Since(Position),
    Follow(Box<TableFeed>),
}

impl Pieces for TableEvents {
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                self.last_sent = Instant::now();
                return Some(Ok(event));
            }
            if self.over {
                return None;
            }
            let shutdown = self.shutdown.clone();
            let made = tokio::select! {
                biased;
                () = shutdown.cancelled() => return None,
                made = self.make() => made,
            };
            if let Err(error) = made {
                self.over = true;
                self.waiting.push_back(sse::failure(&error));
            }
        }
    }
}

impl TableEvents {
    /// Looks once for more, and puts what there is into `waiting`. May be cancelled, and then has done nothing.
    async fn make(&mut self) -> Result<(), ApiError> {
        match &mut self.tail {
            Next::Snapshot => {
                let snapshot = self.tables.snapshot(self.name.as_str(), None).await?;
                let feed = self.tables.feed(self.name.as_str(), snapshot.position.clone()).await?;
                self.waiting = snapshot_events(&snapshot.rows, &snapshot.position);
                self.tail = Next::Follow(Box::new(feed));
            }
            Next::Since(position) => {
                let feed = self.tables.feed(self.name.as_str(), position.clone()).await?;
                self.tail = Next::Follow(Box::new(feed));
            }
            Next::Follow(feed) => {
                tokio::time::sleep_until(self.last_sent + self.interval).await;
                match feed.next(HEARTBEAT.saturating_sub(self.last_sent.elapsed())).await? {
                    Tail::Changed(changes) => {
                        self.waiting = change_events(&changes.upserts, &changes.deletes, &changes.position);
                    }
                    Tail::Quiet if self.last_sent.elapsed() >= HEARTBEAT => {
                        self.waiting.push_back(sse::heartbeat());
                    }
                    Tail::Quiet => {}
                    Tail::TooOld => self.tail = Next::Snapshot,
                }
            }
        }
        Ok(())
    }
}

/// Only the last event has the id: a client that loses its connection before it begins anew.
fn snapshot_events(rows: &[Value], position: &Position) -> VecDeque<Bytes> {
    let pieces: Vec<&[Value]> = if rows.is_empty() { vec![&[]] } else { rows.chunks(EVENT_ROWS).collect() };
    let count = pieces.len();
    let event = |(index, rows): (usize, &[Value])| {
        let last = index + 1 == count;
        event("snapshot", &json!({ "rows": rows, "last": last }), last.then_some(position))
    };
    pieces.into_iter().enumerate().map(event).collect()
}

/// Deletions come first: a key that went and came back is among both.
fn change_events(upserts: &[Value], deletes: &[Value], position: &Position) -> VecDeque<Bytes> {
    let mut pieces: Vec<(&[Value], &[Value])> = deletes.chunks(EVENT_ROWS).map(|d| (&[][..], d)).collect();
    pieces.extend(upserts.chunks(EVENT_ROWS).map(|u| (u, &[][..])));
    if let [(_, deletes), (upserts, _)] = pieces[..] {
        pieces = vec![(upserts, deletes)];
    }
    let count = pieces.len();
    let event = |(index, (upserts, deletes)): (usize, (&[Value], &[Value]))| {
        let data = json!({ "upserts": upserts, "deletes": deletes });
        event("change", &data, (index + 1 == count).then_some(position))
    };
    pieces.into_iter().enumerate().map(event).collect()
}

fn event(name: &str, data: &Value, id: Option<&Position>) -> Bytes {
    let mut out = Vec::new();
    sse::event(&mut out, name, id.map(|id| id as &dyn std::fmt::Display), data.to_string().as_bytes());
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(events: VecDeque<Bytes>) -> Vec<String> {
        events.iter().map(|e| String::from_utf8_lossy(e).into_owned()).collect()
    }

    #[test]
    fn only_the_last_event_of_a_read_moves_the_position() {
        let position: Position = "0:5,1:7".parse().unwrap();
        let rows: Vec<Value> = (0..2500).map(|n| json!({ "n": n })).collect();
        let events = texts(snapshot_events(&rows, &position));
        assert_eq!(events.len(), 3);
        assert!(events[..2].iter().all(|e| !e.contains("\nid: ") && e.contains("\"last\":false")));
        assert!(events[2].contains("\nid: 0:5,1:7\n") && events[2].contains("\"last\":true"));

        let events = texts(change_events(&rows, &rows[..1], &position));
        assert_eq!(events.iter().filter(|e| e.contains("\nid: ")).count(), 1);
        assert!(events[0].contains("\"deletes\":[{\"n\":0}]") && events.last().unwrap().contains("\nid: "));
        let both = texts(change_events(&rows[..1], &rows[1..2], &position));
        assert_eq!(both.len(), 1, "{both:?}");
    }

    #[test]
    fn an_empty_table_has_a_snapshot_too() {
        let events = texts(snapshot_events(&[], &"0:0".parse().unwrap()));
        assert_eq!(events, ["event: snapshot\nid: 0:0\ndata: {\"last\":true,\"rows\":[]}\n\n"]);
    }
}
