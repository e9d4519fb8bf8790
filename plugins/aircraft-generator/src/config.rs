//! The stage's configuration.

use serde::Deserialize;

/// The JSON Schema of [`Config`]; a test holds the two together.
pub const CONFIG_SCHEMA: &str = r#"{
  "type": "object",
  "additionalProperties": false,
  "properties": {
    "aircraft": {
      "description": "How many aircraft fly.",
      "type": "integer",
      "minimum": 1,
      "maximum": 50000,
      "default": 500
    },
    "rate": {
      "description": "Reports a second, of all aircraft together.",
      "type": "number",
      "exclusiveMinimum": 0,
      "maximum": 200000,
      "default": 1000
    },
    "seed": {
      "description": "Which fleet it is: the same seed gives the same aircraft on the same routes.",
      "type": "integer",
      "minimum": 0,
      "default": 1
    }
  }
}"#;

const MAX_AIRCRAFT: u32 = 50_000;
const MAX_RATE: f64 = 200_000.0;

/// What the pipeline file says about the fleet.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How many aircraft fly, 1 to 50,000.
    pub aircraft: u32,
    /// Reports a second of all aircraft together, above 0 and at most 200,000.
    pub rate: f64,
    /// Which fleet it is.
    pub seed: u64,
}

impl Default for Config {
    fn default() -> Self {
        Config { aircraft: 500, rate: 1_000.0, seed: 1 }
    }
}

impl Config {
    /// # Errors
    /// Says which value is out of range and what is allowed.
    pub fn check(self) -> Result<Self, String> {
        if !(1..=MAX_AIRCRAFT).contains(&self.aircraft) {
            return Err(format!("config: `aircraft` is {}, but must be 1 to {MAX_AIRCRAFT}", self.aircraft));
        }
        if !(self.rate > 0.0 && self.rate <= MAX_RATE) {
            return Err(format!(
                "config: `rate` is {}, but must be above 0 and at most {MAX_RATE}",
                self.rate
            ));
        }
        Ok(self)
    }
}
