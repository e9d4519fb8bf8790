//! Records through a component, in batches of 1,000, beside the same crate called natively.
//!
//! Natively the batch is handed over as it is, and only the function is timed. Through the component it is copied into the
//! guest's memory, the answer is copied out and checked, and a thread is changed twice: all of what a stage pays.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use flight_watch::FlightWatch;
use serde_json::json;
use test_identity::Identity;
use tidemill::plugin::{EngineOptions, Instance, Limits, Message, PluginEngine, PluginKind};
use tidemill::record::NewRecord;
use tidemill_plugin::{NoConfig, Plugin as _, Transform};

use crate::feed::Feed;
use crate::findings::{Findings, Row};
use crate::meter::Sample;
use crate::rounds::interleaved;
use crate::scale::Scale;

const BATCH: usize = 1_000;
/// Different batches that take turns.
const BATCHES: usize = 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Function {
    Identity,
    FlightWatch,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Component,
    Native,
}

const ARMS: [(Function, How); 4] = [
    (Function::Identity, How::Component),
    (Function::Identity, How::Native),
    (Function::FlightWatch, How::Component),
    (Function::FlightWatch, How::Native),
];

pub async fn run(scale: &Scale) -> Result<Findings> {
    let mut feed = Feed::new()?;
    let batches: Vec<Vec<NewRecord>> = (0..BATCHES).map(|_| feed.take(BATCH)).collect::<Result<_>>()?;
    let mut bench = Bench {
        identity: component("test-identity").await?,
        flight_watch: component("flight-watch").await?,
        messages: batches.iter().map(|batch| Arc::new(batch.iter().map(message).collect())).collect(),
        native: batches.iter().map(|batch| batch.iter().map(native_message).collect()).collect(),
    };
    let emitted = async |bench: &mut Bench, arm| Ok::<_, anyhow::Error>(bench.run(arm, BATCHES).await?.1);
    for pair in ARMS.chunks(2) {
        let (component, native) = (emitted(&mut bench, pair[0]).await?, emitted(&mut bench, pair[1]).await?);
        ensure!(
            component == native,
            "{:?}: {component} emissions of the component, {native} natively",
            pair[0].0
        );
    }
    let samples =
        interleaved(&ARMS, scale.rounds, async |arm| Ok(bench.run(*arm, scale.transformed).await?.0)).await?;
    let row = |((function, how), samples): (&(Function, How), &Vec<Sample>)| {
        let function = match function {
            Function::Identity => "identity",
            Function::FlightWatch => "flight-watch",
        };
        let how = match how {
            How::Component => "component",
            How::Native => "native",
        };
        Row::rate("transform", format!("{function}, {how}"), samples)
    };
    let mut rows: Vec<Row> = ARMS.iter().zip(&samples).map(row).collect();
    for (component, native) in [(0, 1), (2, 3)] {
        let ratio = rows[component].value.median / rows[native].value.median;
        rows[component].note = format!("{:.0} % of native", ratio * 100.0);
    }
    Ok(Findings { rows, bars: Vec::new() })
}

struct Bench {
    identity: Instance,
    flight_watch: Instance,
    messages: Vec<Arc<Vec<Message>>>,
    native: Vec<Vec<tidemill_plugin::Message>>,
}

impl Bench {
    /// The sample, and how many records came out.
    async fn run(&mut self, (function, how): (Function, How), batches: usize) -> Result<(Sample, usize)> {
        match (function, how) {
            (Function::Identity, How::Component) => {
                through(&mut self.identity, &self.messages, batches).await
            }
            (Function::FlightWatch, How::Component) => {
                through(&mut self.flight_watch, &self.messages, batches).await
            }
            (Function::Identity, How::Native) => {
                natively(Identity::new(NoConfig {}).map_err(|error| anyhow!(error))?, &self.native, batches)
            }
            (Function::FlightWatch, How::Native) => {
                let config = flight_watch::Config::default();
                natively(FlightWatch::new(config).map_err(|error| anyhow!(error))?, &self.native, batches)
            }
        }
    }
}

async fn through(
    instance: &mut Instance,
    messages: &[Arc<Vec<Message>>],
    batches: usize,
) -> Result<(Sample, usize)> {
    let (mut took, mut emitted) = (Duration::ZERO, 0);
    for batch in messages.iter().cycle().take(batches) {
        let started = Instant::now();
        let outcome = instance.process(batch.clone()).await?;
        took += started.elapsed();
        ensure!(outcome.refusals.is_empty(), "refused: {:?}", outcome.refusals.first());
        emitted += outcome.emissions.len();
    }
    Ok((Sample::timed((batches * BATCH) as u64, took), emitted))
}

fn natively<T: Transform>(
    mut plugin: T,
    messages: &[Vec<tidemill_plugin::Message>],
    batches: usize,
) -> Result<(Sample, usize)> {
    let (mut took, mut emitted) = (Duration::ZERO, 0);
    for batch in messages.iter().cycle().take(batches) {
        let batch = batch.clone();
        let started = Instant::now();
        let outcome = plugin.process(batch).map_err(|failure| anyhow!("{failure:?}"))?;
        took += started.elapsed();
        ensure!(outcome.refusals.is_empty(), "refused: {:?}", outcome.refusals.first());
        emitted += outcome.emissions.len();
    }
    Ok((Sample::timed((batches * BATCH) as u64, took), emitted))
}

async fn component(name: &str) -> Result<Instance> {
    let file: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../plugins/dist/{name}.wasm"));
    let bytes =
        std::fs::read(&file).with_context(|| format!("{}; `make plugins` builds it", file.display()))?;
    let plugin = PluginEngine::new(EngineOptions::default())?.load(bytes, PluginKind::Transform).await?;
    Ok(plugin.instantiate("bench", &json!({}), &Limits::default()).await?)
}

fn message(record: &NewRecord) -> Message {
    Message {
        partition: 0,
        offset: 0,
        timestamp: record.timestamp.unwrap_or_default(),
        attempt: 1,
        key: record.key.as_ref().map(|key| key.to_vec()),
        headers: Vec::new(),
        payload: record.payload.to_vec(),
    }
}

fn native_message(record: &NewRecord) -> tidemill_plugin::Message {
    let Message { partition, offset, timestamp, attempt, key, headers: _, payload } = message(record);
    tidemill_plugin::Message { partition, offset, timestamp, attempt, key, headers: Vec::new(), payload }
}
