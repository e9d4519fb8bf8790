//! The stage's configuration.

use serde::Deserialize;

/// The JSON Schema of [`Config`].
pub const CONFIG_SCHEMA: &str = r#"{
  "type": "object",
  "additionalProperties": false,
  "required": ["url"],
  "properties": {
    "url": {
      "description": "Where to post to; the stage's `http.allow` must cover it.",
      "type": "string",
      "pattern": "^https?://"
    },
    "format": {
      "description": "What a line is: the payload alone, or a record of partition, offset, timestamp, key and payload.",
      "enum": ["payloads", "records"],
      "default": "payloads"
    },
    "on_client_error": {
      "description": "What an answer of 400 to 499 means, beside 408, 425 and 429.",
      "enum": ["auto", "reject", "retry", "stop"],
      "default": "auto"
    }
  }
}"#;

/// Where to post to, and how.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub url: String,
    #[serde(default)]
    pub format: Format,
    #[serde(default)]
    pub on_client_error: OnClientError,
}

/// What a line is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// The payload, which must be JSON.
    #[default]
    Payloads,
    /// An object with the payload in it; one that is not JSON is there as text.
    Records,
}

/// What an answer of 400 to 499 means.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnClientError {
    /// By the status: a message is wrong, or the set-up is.
    #[default]
    Auto,
    Reject,
    Retry,
    Stop,
}
