//! The stage's configuration.

use serde::Deserialize;

/// The JSON Schema of [`Config`]; a test holds the two together.
pub const CONFIG_SCHEMA: &str = r#"{
  "type": "object",
  "additionalProperties": false,
  "properties": {
    "approach_nm": {
      "description": "How near to a major airport an approach is, in nautical miles.",
      "type": "number",
      "exclusiveMinimum": 0,
      "maximum": 200,
      "default": 25
    },
    "approach_ft": {
      "description": "Below which height above the airport an approach is, in feet.",
      "type": "integer",
      "minimum": 1,
      "maximum": 60000,
      "default": 6000
    },
    "rapid_descent_fpm": {
      "description": "From which rate on a descent is rapid, in feet per minute downwards.",
      "type": "integer",
      "minimum": 1,
      "maximum": 60000,
      "default": 4000
    }
  }
}"#;

/// What counts as an approach and as a rapid descent.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Nautical miles from the airport, above 0 and at most 200.
    pub approach_nm: f64,
    /// Feet above the airport, 1 to 60,000.
    pub approach_ft: i64,
    /// Feet per minute downwards, 1 to 60,000.
    pub rapid_descent_fpm: i64,
}

impl Default for Config {
    fn default() -> Self {
        Config { approach_nm: 25.0, approach_ft: 6_000, rapid_descent_fpm: 4_000 }
    }
}

impl Config {
    /// # Errors
    /// Says which value is out of range and what is allowed.
    pub fn check(self) -> Result<Self, String> {
        if !(self.approach_nm > 0.0 && self.approach_nm <= 200.0) {
            return Err(format!(
                "config: `approach_nm` is {}, but must be above 0 and at most 200",
                self.approach_nm
            ));
        }
        for (name, value) in
            [("approach_ft", self.approach_ft), ("rapid_descent_fpm", self.rapid_descent_fpm)]
        {
            if !(1..=60_000).contains(&value) {
                return Err(format!("config: `{name}` is {value}, but must be 1 to 60000"));
            }
        }
        Ok(self)
    }
}
