//! The plugin host: WebAssembly components behind five typed calls.
//!
//! [`PluginEngine::load`] turns bytes into a [`Plugin`] whose type has been checked against the world of its kind;
//! [`Plugin::instantiate`] gives an [`Instance`], described and configured; its calls take and give whole batches.
//! The module knows no SQL and nothing of pipelines.
//!
//! What a guest cannot do, whatever it is:
//!
//! * delay the host: guests run on threads of their own, give way to each other every [`TICK`], and each call ends
//!   at its deadline, also if nobody waits for it any more;
//! * take more memory than [`Limits::memory`], summed over all its memories and tables, or hand back more than
//!   [`Limits::output_records`] and [`Limits::output_bytes`];
//! * reach files, sockets, the environment or the arguments: there are none behind its imports; nor state, time, chance
//!   or the web, unless its stage grants them ([`Plugin::granted`]);
//! * be entered again after a failure: the store is dropped at once and the instance is [poisoned](Instance::poisoned);
//! * hand the host something undeclared: ports, indices, tables, columns and types are checked before an answer
//!   leaves this module.
//!
//! Map: `bindings` the generated worlds and records, `engine` threads, clock tick and compiler, `load` from bytes to
//! a checked [`Plugin`], `grants` what it may import, `guest` what lives inside a store, `imports` and `wasi` what its
//! imports lead to (`context` time and chance, [`state`], [`http`]), `limits` its bounds, `log` what it prints, `instance`
//! the calls, `descriptor` and `output` the checks, `error` what can go wrong in a call, `vectors` the
//! test of a plugin by a file.

mod bindings;
mod context;
mod descriptor;
mod engine;
mod error;
mod grants;
mod guest;
pub mod http;
mod imports;
mod instance;
mod limits;
mod load;
mod log;
mod output;
pub mod state;
#[cfg(test)]
mod tests;
mod vectors;
mod wasi;

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

pub use bindings::materializer::exports::tidemill::plugin::materializing::{
    Change, Outcome as RowOutcome, RowChange, Value,
};
pub use bindings::producer::exports::tidemill::plugin::producing::{Poll, Production};
pub use bindings::shared::tidemill::plugin::types::{
    Column, ColumnType, Descriptor, Emission, Header, Message, Port, Refusal, Refused, Table,
};
pub use bindings::sink::exports::tidemill::plugin::delivering::Token;
pub use bindings::transform::exports::tidemill::plugin::transforming::Outcome;
pub use bindings::worker::exports::tidemill::plugin::working::{
    Job, Outcome as WorkOutcome, RetryJob, Verdict,
};
pub use context::{Context, Seed};
pub use descriptor::{check_config, config_validator};
pub use engine::{EngineError, EngineOptions, MAX_LIVE_INSTANCES, PluginEngine, TICK};
pub use error::{CallError, Excess};
pub use grants::{Grant, Grants};
pub use instance::Instance;
pub use limits::Limits;
pub use load::{LoadError, MAX_COMPONENT_BYTES, Plugin};
pub use vectors::{VectorError, Vectors};

/// The port of an emission that names none.
pub const DEFAULT_PORT: &str = "default";

/// What a plugin does; each kind is a world of its own in `wit/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PluginKind {
    /// Makes records out of something that is not a topic.
    Producer,
    /// Turns messages into records for its output ports.
    Transform,
    /// Turns messages into changes of declared tables.
    Materializer,
    /// Hands messages to something outside.
    Sink,
    /// Does jobs of a queue.
    Worker,
}

impl PluginKind {
    /// Every kind, in the order of the documentation.
    pub const ALL: [Self; 5] =
        [Self::Producer, Self::Transform, Self::Materializer, Self::Sink, Self::Worker];

    /// The lower-case name, as in pipeline files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Producer => "producer",
            Self::Transform => "transform",
            Self::Materializer => "materializer",
            Self::Sink => "sink",
            Self::Worker => "worker",
        }
    }

    /// The world that a component of this kind is built against.
    pub fn world(self) -> &'static str {
        match self {
            Self::Producer => "tidemill:plugin/producer@0.1.0",
            Self::Transform => "tidemill:plugin/transform@0.1.0",
            Self::Materializer => "tidemill:plugin/materializer@0.1.0",
            Self::Sink => "tidemill:plugin/sink@0.1.0",
            Self::Worker => "tidemill:plugin/worker@0.1.0",
        }
    }

    /// The exported interface, without its version, that makes a component one of this kind.
    fn interface(self) -> &'static str {
        match self {
            Self::Producer => "tidemill:plugin/producing",
            Self::Transform => "tidemill:plugin/transforming",
            Self::Materializer => "tidemill:plugin/materializing",
            Self::Sink => "tidemill:plugin/delivering",
            Self::Worker => "tidemill:plugin/working",
        }
    }

    /// Whether what it answers may hold records for ports.
    pub fn emits(self) -> bool {
        matches!(self, Self::Producer | Self::Transform | Self::Worker)
    }

    /// Whether a stage of this kind can grant it: jobs have no partition, so there is no state that a worker could own.
    pub fn can_be_granted(self, grant: Grant) -> bool {
        grant != Grant::State || self != Self::Worker
    }
}

impl fmt::Display for PluginKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The name of a plugin's exact bytes: `sha256:` and 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PluginDigest(String);

impl PluginDigest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(format!("sha256:{}", hex::encode(Sha256::digest(bytes))))
    }

    /// The whole name, prefix included.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first twelve hexadecimal digits, for logs and tables.
    pub fn short(&self) -> &str {
        let digits = self.0.strip_prefix("sha256:").unwrap_or(&self.0);
        digits.get(..12).unwrap_or(digits)
    }
}

impl fmt::Display for PluginDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A text that is not a [`PluginDigest`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a plugin digest: write sha256: and 64 lower-case hexadecimal digits")]
pub struct DigestError(String);

impl FromStr for PluginDigest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let valid = text.strip_prefix("sha256:").is_some_and(|digits| {
            digits.len() == 64 && digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
        });
        if valid { Ok(Self(text.to_owned())) } else { Err(DigestError(text.to_owned())) }
    }
}
