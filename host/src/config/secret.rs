//! Secrets of a stage's `config`: `{ env = "NAME" }` and `{ file = "PATH" }`, read when the file is loaded.
//!
//! What was read goes to the plugin and nowhere else: not into messages, not into `Debug`, not into what is serialised.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};
use serde_json::Value;

/// A secret file larger than this is not one.
const MAX_BYTES: u64 = 64 << 10;
const MASK: &str = "***";

/// Text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Text from the file itself, for places where a secret may stand as well.
    pub fn plain(text: &str) -> Self {
        Self(text.to_string())
    }

    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("the environment variable {0} is not set")]
    NotSet(String),
    #[error("cannot read the secret from {file:?}: {source}")]
    Unreadable { file: PathBuf, source: std::io::Error },
    #[error("the secret file {file:?} has more than {MAX_BYTES} bytes")]
    TooLarge { file: PathBuf },
    #[error("the secret file {file:?} is not text in UTF-8")]
    NotText { file: PathBuf },
}

/// Where secrets come from.
pub struct Vault<'a> {
    /// Looks an environment variable up.
    pub env: &'a dyn Fn(&str) -> Option<String>,
}

impl Vault<'_> {
    pub fn from_env(&self, name: &str) -> Result<Secret, SecretError> {
        (self.env)(name).map(Secret).ok_or_else(|| SecretError::NotSet(name.to_string()))
    }

    /// Without the line break that editors put at the end of a file.
    pub fn from_file(&self, folder: &Path, file: &str) -> Result<Secret, SecretError> {
        let file = folder.join(file);
        let unreadable = |source| SecretError::Unreadable { file: file.clone(), source };
        if std::fs::metadata(&file).map_err(unreadable)?.len() > MAX_BYTES {
            return Err(SecretError::TooLarge { file });
        }
        let bytes = std::fs::read(&file).map_err(unreadable)?;
        let text = String::from_utf8(bytes).map_err(|_| SecretError::NotText { file })?;
        let text = text.strip_suffix('\n').unwrap_or(&text);
        Ok(Secret(text.strip_suffix('\r').unwrap_or(text).to_string()))
    }
}

/// A stage's `config`: an object in which some strings are secrets. Shows itself with `***` in their place.
#[derive(Clone, Debug, PartialEq)]
pub struct StageConfig {
    masked: Value,
    /// By JSON pointer.
    secrets: Vec<(String, Secret)>,
}

impl Default for StageConfig {
    fn default() -> Self {
        Self { masked: Value::Object(serde_json::Map::new()), secrets: Vec::new() }
    }
}

impl StageConfig {
    /// `values` is an object; what stands at the pointers of `secrets` is masked.
    pub fn new(mut values: Value, secrets: Vec<(String, Secret)>) -> Self {
        for (pointer, _) in &secrets {
            if let Some(place) = values.pointer_mut(pointer) {
                *place = Value::String(MASK.to_string());
            }
        }
        Self { masked: values, secrets }
    }

    /// The object with the secrets in it, for the plugin only.
    pub fn reveal(&self) -> Value {
        let mut values = self.masked.clone();
        for (pointer, secret) in &self.secrets {
            if let Some(place) = values.pointer_mut(pointer) {
                *place = Value::String(secret.reveal().to_string());
            }
        }
        values
    }

    /// The object as it may be shown.
    pub fn masked(&self) -> &Value {
        &self.masked
    }

    /// A text of the plugin without what it repeats of the secrets.
    pub fn scrub(&self, text: &str) -> String {
        let secrets = self.secrets.iter().map(|(_, secret)| secret.reveal());
        secrets.filter(|secret| !secret.is_empty()).fold(text.to_string(), |text, s| text.replace(s, MASK))
    }
}

impl Serialize for StageConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.masked.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_secret_is_revealed_on_request_only() {
        let config = StageConfig::new(
            json!({"url": "x", "auth": {"key": null}}),
            vec![("/auth/key".to_string(), Secret("hunter2".to_string()))],
        );
        assert_eq!(config.reveal(), json!({"url": "x", "auth": {"key": "hunter2"}}));
        assert_eq!(config.scrub("no login with hunter2 at x"), "no login with *** at x");
        let shown = format!("{config:?} {}", json!(config));
        assert!(!shown.contains("hunter2") && shown.contains("***"), "{shown}");
    }

    #[test]
    fn a_changed_secret_is_a_changed_config() {
        let with = |secret: &str| {
            StageConfig::new(json!({"k": null}), vec![("/k".to_string(), Secret(secret.to_string()))])
        };
        assert_eq!(with("a"), with("a"));
        assert_ne!(with("a"), with("b"));
    }

    #[test]
    fn a_secret_file_loses_its_line_break_and_has_a_limit() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("key"), "hunter2\r\n")?;
        std::fs::write(folder.path().join("large"), vec![b'x'; 70_000])?;
        std::fs::write(folder.path().join("binary"), [0xff, 0xfe])?;
        let vault = Vault { env: &|_| None };
        let read = |name: &str| vault.from_file(folder.path(), name);
        assert_eq!(read("key")?.reveal(), "hunter2");
        assert!(matches!(read("large"), Err(SecretError::TooLarge { .. })));
        assert!(matches!(read("binary"), Err(SecretError::NotText { .. })));
        assert!(matches!(read("gone"), Err(SecretError::Unreadable { .. })));
        assert!(matches!(vault.from_env("KEY"), Err(SecretError::NotSet(_))));
        Ok(())
    }
}
