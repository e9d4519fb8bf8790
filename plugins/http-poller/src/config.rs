//! The stage's configuration.

use serde::Deserialize;

/// The JSON Schema of [`Config`].
pub const CONFIG_SCHEMA: &str = r#"{
  "type": "object",
  "additionalProperties": false,
  "required": ["url"],
  "properties": {
    "url": {
      "description": "What to ask; the stage's `http.allow` must cover it.",
      "type": "string",
      "pattern": "^https?://"
    },
    "every_ms": {
      "description": "How long to wait when there is nothing new, in milliseconds.",
      "type": "integer",
      "minimum": 10,
      "maximum": 86400000,
      "default": 60000
    },
    "cursor": {
      "description": "The answer is a list of items; each new one is a record.",
      "type": "object",
      "additionalProperties": false,
      "required": ["param", "field"],
      "properties": {
        "param": {
          "description": "The parameter of the query that names the last item.",
          "type": "string",
          "pattern": "^[A-Za-z0-9_.-]+$"
        },
        "field": {
          "description": "The field of an item that goes there: text or a number.",
          "type": "string"
        },
        "items": {
          "description": "The field of the answer that has the list, if the answer is not the list itself.",
          "type": "string"
        },
        "start": {
          "description": "What the first request names.",
          "type": "string"
        }
      }
    }
  }
}"#;

/// What to ask, and how often.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub url: String,
    /// Milliseconds, 10 to 86,400,000 (a day).
    #[serde(default = "minute")]
    pub every_ms: i64,
    pub cursor: Option<Cursor>,
}

/// How a list goes on.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    pub param: String,
    pub field: String,
    pub items: Option<String>,
    pub start: Option<String>,
}

fn minute() -> i64 {
    60_000
}

impl Config {
    /// # Errors
    /// Says which value is out of range and what is allowed.
    pub fn check(self) -> Result<Self, String> {
        if !(10..=86_400_000).contains(&self.every_ms) {
            return Err(format!("config: `every_ms` is {}, but must be 10 to 86400000", self.every_ms));
        }
        Ok(self)
    }

    /// Microseconds.
    pub fn every(&self) -> i64 {
        self.every_ms * 1_000
    }
}
