//! Counts messages by a field, in tumbling windows of event time, with time for late ones. Needs the grant `state`.
//!
//! A window is closed when the watermark has reached its end: the greatest timestamp seen in the partition, less the
//! lateness. Then one record with its count goes out for each value of the field, and the window is forgotten. A message
//! whose window is closed goes to the port `late` as it came. Counts and watermark are state, committed with the messages
//! they cover: each message counts once and each window is written once, whatever is killed.
//!
//! Partitions count by themselves. A window closes only when a later message comes; one without an end stays open.

mod config;
mod window;

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use tidemill_plugin::state::{self, Write};
use tidemill_plugin::{
    Descriptor, Emission, Failure, Message, Outcome, Plugin, Refusal, Timestamp, Transform,
};

pub use crate::config::Config;
use crate::{config::CONFIG_SCHEMA, window::Cell};

const LATE: &str = "late";
/// Longer values make longer keys than the state takes.
const MAX_VALUE: usize = 500;
/// Entries that are read or written at once.
const PORTION: usize = 1_000;

/// The plugin.
pub struct WindowCounts {
    config: Config,
}

/// The count of one window.
#[derive(Serialize)]
struct Count<'a> {
    value: &'a str,
    /// Milliseconds since the Unix epoch.
    from: i64,
    until: i64,
    count: u64,
}

impl Plugin for WindowCounts {
    type Config = Config;

    fn describe() -> Descriptor {
        Descriptor::new(
            env!("CARGO_PKG_NAME"),
            env!("CARGO_PKG_VERSION"),
            "Counts messages by a field in tumbling windows of event time",
        )
        .config_schema(CONFIG_SCHEMA)
        .port(LATE, "Messages that came after their window was closed, as they came")
    }

    fn new(config: Config) -> Result<Self, String> {
        Ok(WindowCounts { config: config.check()? })
    }
}

impl Transform for WindowCounts {
    fn process(&mut self, batch: Vec<Message>) -> Result<Outcome, Failure> {
        let before = window::watermark()?;
        let mut watermark = before;
        let mut added: BTreeMap<Cell, u64> = BTreeMap::new();
        let mut outcome = Outcome::each(&batch, |message, outcome| {
            let value = self.value(message)?;
            let start = self.config.start_of(message.timestamp);
            if self.closes(start, watermark) {
                outcome.emit(Emission::copy_of(message.clone()).port(LATE));
            } else {
                *added.entry(Cell { start, value }).or_default() += 1;
            }
            watermark = watermark.max(message.timestamp.saturating_sub(self.config.lateness()));
            Ok(())
        });
        add(&added)?;
        if watermark > before {
            state::set_many(&[window::watermark_write(watermark)])?;
            self.close(watermark, &mut outcome)?;
        }
        Ok(outcome)
    }
}

impl WindowCounts {
    /// The field of the message, as text.
    fn value(&self, message: &Message) -> Result<String, Refusal> {
        let payload: Value = message.json()?;
        let value = match payload.get(&self.config.field) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            Some(Value::Bool(flag)) => flag.to_string(),
            _ => {
                return Err(Refusal::reject(format!(
                    "payload: no text in the field `{}`",
                    self.config.field
                )));
            }
        };
        if value.len() > MAX_VALUE {
            return Err(Refusal::reject(format!(
                "payload: more than {MAX_VALUE} bytes in `{}`",
                self.config.field
            )));
        }
        Ok(value)
    }

    fn closes(&self, start: Timestamp, watermark: Timestamp) -> bool {
        start.saturating_add(self.config.window()) <= watermark
    }

    /// Writes out and forgets every window that ends by the watermark, in the order of time and value.
    fn close(&self, watermark: Timestamp, outcome: &mut Outcome) -> Result<(), Failure> {
        let mut after: Option<Vec<u8>> = None;
        loop {
            let entries = state::scan(window::PREFIX, after.as_deref(), PORTION as u32)?;
            let whole = entries.len() == PORTION;
            let mut gone = Vec::new();
            for entry in entries {
                let cell = Cell::from_key(&entry.key)?;
                if !self.closes(cell.start, watermark) {
                    return Ok(state::delete_many(&gone)?);
                }
                outcome.emit(self.record(&cell, window::count(&entry.value)?)?);
                gone.push(entry.key);
            }
            after = gone.last().cloned();
            state::delete_many(&gone)?;
            if !whole {
                return Ok(());
            }
        }
    }

    fn record(&self, cell: &Cell, count: u64) -> Result<Emission, Failure> {
        let until = cell.start.saturating_add(self.config.window());
        let count = Count { value: &cell.value, from: cell.start / 1_000, until: until / 1_000, count };
        let payload = serde_json::to_vec(&count).map_err(|error| Failure::fatal(error.to_string()))?;
        Ok(Emission::new(payload).key(cell.value.clone().into_bytes()).at(until))
    }
}

/// Adds to the counts that are there.
fn add(added: &BTreeMap<Cell, u64>) -> Result<(), Failure> {
    let cells: Vec<(&Cell, &u64)> = added.iter().collect();
    for portion in cells.chunks(PORTION) {
        let keys: Vec<Vec<u8>> = portion.iter().map(|(cell, _)| cell.key()).collect();
        let counts = state::get_many(&keys)?;
        let mut writes = Vec::with_capacity(keys.len());
        for ((key, (_, more)), count) in keys.into_iter().zip(portion).zip(counts) {
            let count = count.as_deref().map_or(Ok(0), window::count)?;
            writes.push(Write::new(key, (count + **more).to_be_bytes()));
        }
        state::set_many(&writes)?;
    }
    Ok(())
}

tidemill_plugin::export_transform!(WindowCounts);
