//! The stage's configuration.

use serde::Deserialize;
use tidemill_plugin::Timestamp;

/// The JSON Schema of [`Config`].
pub const CONFIG_SCHEMA: &str = r#"{
  "type": "object",
  "additionalProperties": false,
  "required": ["field", "window_s"],
  "properties": {
    "field": {
      "description": "The field of the JSON payload to count by.",
      "type": "string",
      "minLength": 1
    },
    "window_s": {
      "description": "Length of a window in seconds.",
      "type": "integer",
      "minimum": 1,
      "maximum": 604800
    },
    "lateness_s": {
      "description": "How much later than the newest message one may come and still be counted, in seconds.",
      "type": "integer",
      "minimum": 0,
      "maximum": 604800,
      "default": 0
    }
  }
}"#;

const LONGEST_S: i64 = 604_800;

/// What to count, and in which windows.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Of the JSON payload.
    pub field: String,
    /// Seconds, 1 to 604,800 (a week).
    pub window_s: i64,
    /// Seconds, 0 to 604,800.
    #[serde(default)]
    pub lateness_s: i64,
}

impl Config {
    /// # Errors
    /// Says which value is out of range and what is allowed.
    pub fn check(self) -> Result<Self, String> {
        if self.field.is_empty() {
            return Err("config: `field` is empty".to_owned());
        }
        for (name, value, least) in [("window_s", self.window_s, 1), ("lateness_s", self.lateness_s, 0)] {
            if !(least..=LONGEST_S).contains(&value) {
                return Err(format!("config: `{name}` is {value}, but must be {least} to {LONGEST_S}"));
            }
        }
        Ok(self)
    }

    /// Microseconds.
    pub fn window(&self) -> Timestamp {
        self.window_s * 1_000_000
    }

    /// Microseconds.
    pub fn lateness(&self) -> Timestamp {
        self.lateness_s * 1_000_000
    }

    /// Where the window of a time begins: windows are counted from 1970.
    pub fn start_of(&self, at: Timestamp) -> Timestamp {
        at.saturating_sub(at.rem_euclid(self.window()))
    }
}
