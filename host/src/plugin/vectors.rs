//! Conformance vectors: batches and the answers to them, in a file to which every build of a plugin is held, in
//! whatever language. `plugins/conformance/README.md` tells the format.
//!
//! A worker gets jobs and answers with verdicts, all others get messages. Emissions are compared byte by byte. The reasons of refusals are for people: a vector names words that must be in
//! them, such as the field at fault.

mod jobs;

use serde::Deserialize;
use serde_json::Value as Json;

use super::state::{Memory, StateLimits};
use super::{
    CallError, Context, DEFAULT_PORT, Emission, Header, Instance, Limits, Message, Plugin, PluginKind,
    Refusal, Seed,
};

/// Bytes in a difference are cut past this many characters.
const MAX_SHOWN: usize = 400;

/// Bytes of the state of a run, and of one value in it.
const STATE_BYTES: u64 = 64 << 20;

/// A file that holds no vectors.
#[derive(Debug, thiserror::Error)]
#[error("these are no vectors: {0}")]
pub struct VectorError(#[from] serde_json::Error);

/// One file: a configuration, and batches that one instance gets one after the other.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vectors {
    /// What is shown, as a sentence.
    pub about: String,
    #[serde(default)]
    config: Json,
    /// Words in the reason for which the configuration is refused.
    #[serde(default)]
    config_refused: Option<String>,
    #[serde(default)]
    batches: Vec<Batch>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Batch {
    #[serde(default)]
    messages: Vec<Given>,
    /// In the place of messages, for a worker.
    #[serde(default)]
    jobs: Vec<jobs::Given>,
    #[serde(default)]
    emissions: Vec<Emitted>,
    #[serde(default)]
    refusals: Vec<Refused>,
    /// In the place of refusals, for a worker.
    #[serde(default)]
    verdicts: Vec<jobs::Expected>,
}

/// How many messages and jobs came before, for what does not say its own number.
#[derive(Debug, Default)]
struct Before {
    messages: u64,
    jobs: u64,
}

/// A message; what is left out has a usual value.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    #[serde(default)]
    partition: u32,
    /// Else the number of messages before it in the file.
    offset: Option<u64>,
    #[serde(default)]
    timestamp: i64,
    #[serde(default = "first")]
    attempt: u32,
    key: Option<Bytes>,
    #[serde(default)]
    headers: Vec<(String, Bytes)>,
    payload: Bytes,
}

fn first() -> u32 {
    1
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Emitted {
    input: Option<u32>,
    port: Option<String>,
    key: Option<Bytes>,
    #[serde(default)]
    headers: Vec<(String, Bytes)>,
    timestamp: Option<i64>,
    payload: Bytes,
}

#[derive(Debug, Clone, Deserialize)]
struct Refused {
    input: u32,
    #[serde(flatten)]
    how: How,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "lowercase")]
enum How {
    /// Words in the reason.
    Reject(String),
    /// Microseconds, or none.
    Retry(Option<u64>),
}

/// A string is its UTF-8; other bytes are `{"hex": "00ff"}`.
#[derive(Clone, PartialEq, Deserialize)]
#[serde(try_from = "Written")]
struct Bytes(Vec<u8>);

#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Text(String),
    Hex { hex: String },
}

impl TryFrom<Written> for Bytes {
    type Error = hex::FromHexError;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        Ok(Self(match written {
            Written::Text(text) => text.into_bytes(),
            Written::Hex { hex } => hex::decode(hex)?,
        }))
    }
}

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = match std::str::from_utf8(&self.0) {
            Ok(text) => text.to_owned(),
            Err(_) => format!("hex {}", hex::encode(&self.0)),
        };
        f.write_str(&super::log::printable(&shown, MAX_SHOWN))
    }
}

impl Vectors {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// With line and column, if the text does not have the format.
    pub fn parse(text: &str) -> Result<Self, VectorError> {
        Ok(serde_json::from_str(text)?)
    }

    /// Gives the batches to a fresh instance of a transform or a worker, and says in sentences what was not as it should be.
    ///
    /// # Errors
    ///
    /// A call that gave no answer; the batch at fault is named by the differences of a run that comes so far.
    pub async fn run(&self, plugin: &Plugin, limits: &Limits) -> Result<Vec<String>, CallError> {
        let mut instance = match plugin.instantiate("vectors", &self.config, limits).await {
            Ok(instance) => instance,
            Err(CallError::Configure(words)) => return Ok(self.check_refused_config(&words)),
            Err(error) => return Err(error),
        };
        if let Some(expected) = &self.config_refused {
            return Ok(vec![format!("the config was taken, but should be refused with `{expected}`")]);
        }
        let mut differences = Vec::new();
        let mut before = Before::default();
        // State begins empty, and is kept from batch to batch.
        let state = Memory::default();
        let space = state.space(state_limits(limits));
        if let Some(difference) = self.check_inputs(plugin.kind()) {
            return Ok(vec![difference]);
        }
        for (number, batch) in self.batches.iter().enumerate() {
            let now = batch.messages.last().map_or(0, |message| message.timestamp);
            let session = space.session(now);
            let seed = Seed::of(&[b"vectors", &(number as u64).to_be_bytes()]);
            instance.set_context(Context { now, seed, state: Some(session.clone()) });
            let found = batch.run(&mut instance, &mut before).await?;
            if let Some(writes) = session.take().await {
                state.commit(&writes);
            }
            differences.extend(found.into_iter().map(|difference| format!("batch {number}: {difference}")));
        }
        Ok(differences)
    }

    fn check_inputs(&self, kind: PluginKind) -> Option<String> {
        let wrong = |batch: &Batch| match kind {
            PluginKind::Worker => !batch.messages.is_empty() || !batch.refusals.is_empty(),
            _ => !batch.jobs.is_empty() || !batch.verdicts.is_empty(),
        };
        let number = self.batches.iter().position(wrong)?;
        Some(match kind {
            PluginKind::Worker => {
                format!(
                    "batch {number}: a worker takes `jobs` and gives `verdicts`, not messages and refusals"
                )
            }
            kind => format!("batch {number}: a {kind} takes `messages`, not jobs and verdicts"),
        })
    }

    fn check_refused_config(&self, words: &str) -> Vec<String> {
        match &self.config_refused {
            Some(expected) if words.contains(expected) => Vec::new(),
            Some(expected) => {
                vec![format!("the config should be refused with `{expected}`, not with `{words}`")]
            }
            None => vec![format!("the config was refused: {words}")],
        }
    }
}

fn state_limits(limits: &Limits) -> StateLimits {
    StateLimits {
        quota: STATE_BYTES,
        value: STATE_BYTES,
        call_bytes: limits.output_bytes,
        call_entries: limits.output_records as usize,
    }
}

impl Batch {
    /// One call, and in sentences what was not as it should be.
    async fn run(&self, instance: &mut Instance, before: &mut Before) -> Result<Vec<String>, CallError> {
        if instance.kind() == PluginKind::Worker {
            let outcome = instance.work(self.jobs(before)).await?;
            let mut differences = self.compare_emissions(outcome.emissions);
            differences.extend(jobs::compare(&self.verdicts, &outcome.verdicts));
            return Ok(differences);
        }
        let outcome = instance.process(self.messages(before)).await?;
        let mut differences = self.compare_emissions(outcome.emissions);
        for index in 0..outcome.refusals.len().max(self.refusals.len()) {
            let (wanted, got) = (self.refusals.get(index), outcome.refusals.get(index));
            let agree = wanted.zip(got).is_some_and(|(wanted, got)| wanted.agrees(got));
            if !agree {
                differences.push(format!("refusal {index}: expected {}, got {}", shown(wanted), shown(got)));
            }
        }
        Ok(differences)
    }

    fn messages(&self, before: &mut Before) -> Vec<Message> {
        let message = |given: &Given| {
            let message = given.message(before.messages);
            before.messages += 1;
            message
        };
        self.messages.iter().map(message).collect()
    }

    fn compare_emissions(&self, emissions: Vec<Emission>) -> Vec<String> {
        let emitted = emissions.into_iter().map(|emission| self.normal(Emitted::from(emission)));
        let emitted = Vec::from_iter(emitted);
        let expected = Vec::from_iter(self.emissions.iter().cloned().map(|emission| self.normal(emission)));
        let mut differences = Vec::new();
        for index in 0..emitted.len().max(expected.len()) {
            let (wanted, got) = (expected.get(index), emitted.get(index));
            if wanted != got {
                differences.push(format!("emission {index}: expected {}, got {}", shown(wanted), shown(got)));
            }
        }
        differences
    }

    /// No port is the default port, and no time is the time of the message.
    fn normal(&self, mut emission: Emitted) -> Emitted {
        let message = emission.input.and_then(|input| self.messages.get(input as usize));
        emission.timestamp = emission.timestamp.or(message.map(|message| message.timestamp));
        emission.port = Some(emission.port.unwrap_or_else(|| DEFAULT_PORT.to_owned()));
        emission
    }
}

fn shown(value: Option<&impl std::fmt::Debug>) -> String {
    value.map_or_else(|| "none".to_owned(), |value| format!("{value:?}"))
}

impl Given {
    fn message(&self, offset: u64) -> Message {
        let headers = self.headers.iter().cloned();
        Message {
            partition: self.partition,
            offset: self.offset.unwrap_or(offset),
            timestamp: self.timestamp,
            attempt: self.attempt,
            key: self.key.clone().map(|key| key.0),
            headers: headers.map(|(name, value)| Header { name, value: value.0 }).collect(),
            payload: self.payload.0.clone(),
        }
    }
}

impl From<Emission> for Emitted {
    fn from(emission: Emission) -> Self {
        let headers = emission.headers.into_iter();
        Self {
            input: emission.input,
            port: emission.port,
            key: emission.key.map(Bytes),
            headers: headers.map(|header| (header.name, Bytes(header.value))).collect(),
            timestamp: emission.timestamp,
            payload: Bytes(emission.payload),
        }
    }
}

impl Refused {
    fn agrees(&self, got: &super::Refused) -> bool {
        let same = match (&self.how, &got.refusal) {
            (How::Reject(words), Refusal::Reject(reason)) => reason.contains(words),
            (How::Retry(wanted), Refusal::Retry(after)) => wanted == after,
            _ => false,
        };
        same && self.input == got.input
    }
}
