//! Asks a URL again and again, and writes what is new. Needs the grant `http` for the URL's origin.
//!
//! Without `cursor` the document behind the URL is one record each time it has changed, known by its `ETag` (sent back as
//! `If-None-Match`) and by a hash of its bytes. With `cursor` the answer is a list, each new item is a record, and the next
//! request names the last item that was taken: `?since=<id>`.
//!
//! The position (entity tag, hash, cursor) is committed with the records: after a restart, however the host ended, polling
//! goes on where the log ends, and no item is written twice or left out.

mod config;
mod position;

use serde_json::Value;
use serde_json::value::RawValue;
use tidemill_plugin::http::{self, Request, Response};
use tidemill_plugin::{Descriptor, Emission, Failure, Plugin, Poll, Producer, Production};

use crate::config::CONFIG_SCHEMA;
pub use crate::config::{Config, Cursor};
use crate::position::{Position, fingerprint};

/// A server cannot silence a stage for longer than this with one answer, in microseconds.
const LONGEST_WAIT: u64 = 600_000_000;

/// The plugin.
pub struct HttpPoller {
    config: Config,
}

impl Plugin for HttpPoller {
    type Config = Config;

    fn describe() -> Descriptor {
        Descriptor::new(
            env!("CARGO_PKG_NAME"),
            env!("CARGO_PKG_VERSION"),
            "Polls a URL and writes its document when it changes, or the new items of its list",
        )
        .config_schema(CONFIG_SCHEMA)
    }

    fn new(config: Config) -> Result<Self, String> {
        Ok(HttpPoller { config: config.check()? })
    }
}

impl Producer for HttpPoller {
    fn produce(&mut self, poll: Poll) -> Result<Production, Failure> {
        let position = Position::read(poll.position.as_deref())?;
        let response = http::send(&self.request(&position))?;
        let later = poll.now.saturating_add(self.config.every());
        if response.status == 304 {
            return Ok(Production { emissions: Vec::new(), position: position.to_bytes(), next: later });
        }
        check(&response)?;
        match &self.config.cursor {
            None => Ok(self.document(response, &position, later)),
            Some(cursor) => {
                let (emissions, position, more) =
                    items(&response, cursor, position, poll.max_records as usize)?;
                let next = if more { poll.now } else { later };
                Ok(Production { emissions, position: position.to_bytes(), next })
            }
        }
    }
}

impl HttpPoller {
    fn request(&self, position: &Position) -> Request {
        let Some(cursor) = &self.config.cursor else {
            let request = Request::get(&self.config.url);
            return match &position.etag {
                Some(etag) => request.header("if-none-match", etag.as_str()),
                None => request,
            };
        };
        match position.cursor.as_ref().or(cursor.start.as_ref()) {
            Some(since) => {
                let joint = if self.config.url.contains('?') { '&' } else { '?' };
                Request::get(&format!("{}{joint}{}={}", self.config.url, cursor.param, escaped(since)))
            }
            None => Request::get(&self.config.url),
        }
    }

    /// One record if the document is another than the last.
    fn document(&self, response: Response, before: &Position, next: i64) -> Production {
        let position = Position {
            etag: response.header("etag").map(str::to_owned),
            hash: Some(fingerprint(&response.body)),
            cursor: None,
        };
        let emissions = if position.hash == before.hash {
            Vec::new()
        } else {
            vec![Emission::new(response.body).key(self.config.url.clone().into_bytes())]
        };
        Production { emissions, position: position.to_bytes(), next }
    }
}

/// Anything but success is a failure: one that passes, or one of the set-up.
fn check(response: &Response) -> Result<(), Failure> {
    let reason = || format!("the server answered {}", response.status);
    match response.status {
        200..=299 => Ok(()),
        408 | 425 | 429 | 500..=599 => {
            Err(Failure::retry(reason(), response.retry_after().map(|wait| wait.min(LONGEST_WAIT))))
        }
        300..=399 => {
            let place = response.header("location").unwrap_or("nowhere");
            Err(Failure::fatal(format!("{} and points to {place}: set `url` to where it is", reason())))
        }
        _ => Err(Failure::fatal(reason())),
    }
}

/// The items after the cursor, as many as may be; the position after them; whether there may be more at once.
fn items(
    response: &Response,
    cursor: &Cursor,
    mut position: Position,
    most: usize,
) -> Result<(Vec<Emission>, Position, bool), Failure> {
    let list = list(&response.body, cursor.items.as_deref())?;
    let ids: Vec<String> = list.iter().map(|item| id(item, &cursor.field)).collect::<Result<_, _>>()?;
    // A server may count the item that the cursor names among those after it.
    let known = position.cursor.as_ref().and_then(|last| ids.iter().rposition(|id| id == last));
    let fresh = known.map_or(0, |known| known + 1);
    let taken = list.len().min(fresh + most);
    let emissions = list
        .iter()
        .zip(&ids)
        .take(taken)
        .skip(fresh)
        .map(|(item, id)| Emission::new(item.get()).key(id.clone().into_bytes()))
        .collect();
    if taken > fresh {
        position.cursor = ids.get(taken - 1).cloned();
    }
    Ok((emissions, position, taken > fresh))
}

fn list(body: &[u8], field: Option<&str>) -> Result<Vec<Box<RawValue>>, Failure> {
    let wrong = |error: serde_json::Error| {
        Failure::retry(format!("the answer is not the list it should be: {error}"), None)
    };
    let Some(field) = field else {
        return serde_json::from_slice(body).map_err(wrong);
    };
    let mut object: std::collections::BTreeMap<String, Box<RawValue>> =
        serde_json::from_slice(body).map_err(wrong)?;
    let list =
        object.remove(field).ok_or_else(|| Failure::fatal(format!("the answer has no field `{field}`")))?;
    serde_json::from_str(list.get()).map_err(wrong)
}

fn id(item: &RawValue, field: &str) -> Result<String, Failure> {
    let item: Value =
        serde_json::from_str(item.get()).map_err(|error| Failure::retry(error.to_string(), None))?;
    match item.get(field) {
        Some(Value::String(id)) => Ok(id.clone()),
        Some(Value::Number(id)) => Ok(id.to_string()),
        _ => Err(Failure::fatal(format!("an item has no text or number in the field `{field}`"))),
    }
}

/// For a query: all but letters, digits and `-._~` as `%XX` (RFC 3986, section 2.3).
fn escaped(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut escaped, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                escaped.push(char::from(byte))
            }
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
        escaped
    })
}

tidemill_plugin::export_producer!(HttpPoller);
