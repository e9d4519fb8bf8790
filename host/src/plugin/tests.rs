//! The plugin host against real components: the samples of `plugins/dist`, and hostile ones written in text form.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use super::*;

mod answers;
mod files;
mod hostile;
mod reach;
mod samples;
mod workers;

fn engine() -> PluginEngine {
    PluginEngine::new(EngineOptions::default()).unwrap()
}

fn message(offset: u64, payload: impl Into<Vec<u8>>) -> Message {
    Message {
        partition: 3,
        offset,
        timestamp: 1_000_000 + offset as i64,
        attempt: 1,
        key: None,
        headers: Vec::new(),
        payload: payload.into(),
    }
}

/// A component that `make plugins` built.
fn built(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/dist").join(format!("{name}.wasm"));
    std::fs::read(&path).unwrap_or_else(|error| {
        panic!("cannot read {}: {error}; build the sample plugins with `make plugins`", path.display())
    })
}
