//! Watches position reports for approaches to airports (port `default`) and for trouble (port `alerts`).
//!
//! A pure function of each report and the configuration: nothing is remembered, so any range of a topic can be
//! replayed with the same result. A report may lead to an approach, to an alert for its squawk and to an alert for its
//! rate of descent. What is written carries the report's key field `id` as its key, and the report's time.

mod alert;
mod approach;
mod config;
mod decimal;
mod report;

use serde::Serialize;
use tidemill_plugin::{Descriptor, Emission, Failure, Message, Outcome, Plugin, Refusal, Transform};

pub use crate::config::Config;
use crate::{alert::Alert, approach::Approach, config::CONFIG_SCHEMA, report::Report};

const ALERTS: &str = "alerts";

/// The plugin.
pub struct FlightWatch {
    config: Config,
}

impl Plugin for FlightWatch {
    type Config = Config;

    fn describe() -> Descriptor {
        Descriptor::new(
            env!("CARGO_PKG_NAME"),
            env!("CARGO_PKG_VERSION"),
            "Finds approaches to airports, emergencies and rapid descents in position reports",
        )
        .config_schema(CONFIG_SCHEMA)
        .port(ALERTS, "Emergency squawks and rapid descents, one record for each report that shows one")
    }

    fn new(config: Config) -> Result<Self, String> {
        let config = config.check()?;
        Ok(FlightWatch { config })
    }
}

impl Transform for FlightWatch {
    fn process(&mut self, batch: Vec<Message>) -> Result<Outcome, Failure> {
        Ok(Outcome::each(&batch, |message, outcome| {
            let report = Report::parse(message)?;
            if let Some(approach) = Approach::of(&report, &self.config) {
                outcome.emit(record(&report, &approach)?);
            }
            for alert in Alert::all_of(&report, &self.config) {
                outcome.emit(record(&report, &alert)?.port(ALERTS));
            }
            Ok(())
        }))
    }
}

fn record(report: &Report<'_>, value: &impl Serialize) -> Result<Emission, Refusal> {
    let emission = Emission::json(value)?;
    Ok(emission.key(report.id.as_bytes().to_vec()))
}

tidemill_plugin::export_transform!(FlightWatch);
