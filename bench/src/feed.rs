//! What is measured with: the position reports of the sample pipeline's 500 aircraft, 1,000 a second of simulated time.
//!
//! The generator runs natively here and is never part of what is timed. The same numbers come out in every run.

use aircraft_generator::Generator;
use aircraft_generator::config::Config;
use anyhow::{Result, anyhow};
use tidemill::record::NewRecord;
use tidemill_plugin::{Plugin, Poll, Producer};

/// The time of the first report: one and the same in all runs.
const START: i64 = 1_790_000_000_000_000;
/// Simulated time between two calls; the generator leaves out what is due for longer than a second.
const STEP: i64 = 500_000;
const CALL_RECORDS: u32 = 1_000;

pub struct Feed {
    generator: Generator,
    position: Option<Vec<u8>>,
    now: i64,
    /// Generated and not yet given.
    ready: Vec<NewRecord>,
}

impl Feed {
    pub fn new() -> Result<Self> {
        let config = Config { aircraft: 500, rate: 1_000.0, seed: 1 };
        let generator = Generator::new(config).map_err(|error| anyhow!(error))?;
        Ok(Self { generator, position: None, now: START, ready: Vec::new() })
    }

    /// The next `count` reports, keyed by their aircraft.
    pub fn take(&mut self, count: usize) -> Result<Vec<NewRecord>> {
        while self.ready.len() < count {
            let poll = Poll { position: self.position.take(), now: self.now, max_records: CALL_RECORDS };
            let production = self.generator.produce(poll).map_err(|error| anyhow!("{error:?}"))?;
            self.ready.extend(production.emissions.into_iter().map(|emission| NewRecord {
                key: emission.key.map(Into::into),
                timestamp: emission.timestamp,
                payload: emission.payload.into(),
                ..NewRecord::default()
            }));
            self.position = Some(production.position);
            self.now += STEP;
        }
        let rest = self.ready.split_off(count);
        Ok(std::mem::replace(&mut self.ready, rest))
    }

    /// Payloads alone, which is what a row of the published table holds.
    pub fn payloads(&mut self, count: usize) -> Result<Vec<NewRecord>> {
        let only = |record: NewRecord| NewRecord { payload: record.payload, ..NewRecord::default() };
        Ok(self.take(count)?.into_iter().map(only).collect())
    }
}
