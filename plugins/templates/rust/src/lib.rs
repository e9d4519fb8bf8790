//! Passes on the reports of who flies low.

use serde::Deserialize;
use tidemill_plugin::{Descriptor, Emission, Failure, Message, Outcome, Plugin, Transform};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Feet above the sea.
    below_ft: f64,
}

#[derive(Deserialize)]
struct Report {
    altitude: f64,
}

pub struct LowFlyers {
    below_ft: f64,
}

impl Plugin for LowFlyers {
    type Config = Config;

    fn describe() -> Descriptor {
        Descriptor::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"), "Passes on the reports of who flies low")
            .config_schema(
                r#"{"type":"object","required":["below_ft"],"additionalProperties":false,"properties":{"below_ft":{"type":"number"}}}"#,
            )
    }

    fn new(config: Config) -> Result<Self, String> {
        Ok(LowFlyers { below_ft: config.below_ft })
    }
}

impl Transform for LowFlyers {
    fn process(&mut self, batch: Vec<Message>) -> Result<Outcome, Failure> {
        Ok(Outcome::each(&batch, |message, outcome| {
            let report: Report = message.json()?; // what is no report is refused, by the name of its field
            if report.altitude < self.below_ft {
                outcome.emit(Emission::copy_of(message.clone()));
            }
            Ok(())
        }))
    }
}

tidemill_plugin::export_transform!(LowFlyers);
