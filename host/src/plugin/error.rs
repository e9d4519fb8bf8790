//! What can go wrong in a call, and how a wasmtime error becomes a sentence.

use std::time::Duration;

use bytesize::ByteSize;
use wasmtime::{Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use super::PluginKind;
use super::grants::Grant;
use super::guest::Guest;
use super::log::printable;

/// A trap message is cut past this many characters.
const MAX_MESSAGE: usize = 2_000;

/// Why a call gave no result.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CallError {
    /// The guest trapped: a panic, an abort, an access out of bounds, an exhausted stack.
    #[error("the plugin trapped: {message}")]
    Trap {
        /// What wasmtime said, and the guest's last lines on standard error.
        message: String,
    },
    /// The guest did not answer in time.
    #[error(
        "the plugin was stopped after {}: it did not answer before its deadline; raise the limit `deadline`, or \
         give it smaller batches",
        humantime::format_duration(*.after)
    )]
    Deadline {
        /// The limit.
        after: Duration,
    },
    /// The guest failed after it was refused more memory.
    #[error("the plugin needs more than its limit of {} of memory; raise the limit `memory`", ByteSize::b(*.limit))]
    Memory {
        /// The limit, in bytes.
        limit: u64,
    },
    /// The answer is larger than allowed.
    #[error("the plugin's answer is too large: {0}")]
    OutputTooLarge(Excess),
    /// The answer breaks the contract of the plugin's own descriptor.
    #[error("the plugin's answer is wrong: {message}")]
    BadOutput {
        /// What is wrong with which record.
        message: String,
    },
    /// The descriptor cannot be used.
    #[error("the plugin's description of itself is wrong: {}", .problems.join("; "))]
    BadDescriptor {
        /// One sentence for each problem.
        problems: Vec<String>,
    },
    /// The plugin, or its config schema, refuses the stage's `config`.
    #[error("the plugin refuses its config: {0}")]
    Configure(String),
    /// The plugin asks for the same batch again.
    #[error("the plugin asks for the batch again: {reason}")]
    Retry {
        /// The plugin's words.
        reason: String,
        /// Not before this has passed; none leaves it to the host's back-off.
        after: Option<Duration>,
    },
    /// The plugin says that trying again will not help.
    #[error("the plugin gave up: {0}")]
    Fatal(String),
    /// The caller had no more use for the answer.
    #[error("the call was stopped, since nobody can use its answer any more")]
    Interrupted,
    /// The call does not belong to the instance's kind.
    #[error("a {kind} has no `{function}`")]
    WrongKind {
        /// What the instance is.
        kind: PluginKind,
        /// What was called.
        function: &'static str,
    },
    /// The instance failed before, or a call into it was abandoned.
    #[error("the plugin instance was thrown away after a failed call; make a new one")]
    Poisoned,
    /// The process is full.
    #[error(
        "there are already {limit} plugin instances in this process; stop a pipeline or lower its parallelism"
    )]
    TooManyInstances {
        /// How many there may be.
        limit: usize,
    },
    /// The stage has as many instances as it may.
    #[error("there are already {limit} instances of this stage's plugin; raise the limit `instances`")]
    StageFull {
        /// How many there may be.
        limit: u32,
    },
    /// The plugin needs what it was not given.
    #[error(
        "the plugin imports {}, which the stage does not grant; add it to `grants`",
        super::grants::list(.missing)
    )]
    NotGranted {
        /// What would have to be granted as well.
        missing: Vec<Grant>,
    },
    /// A fault of the host, not of the plugin.
    #[error("internal error of the plugin host: {message}")]
    Internal {
        /// What happened.
        message: String,
    },
}

/// How an answer is too large.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Excess {
    /// Too many records.
    #[error("{got} records, allowed are {limit}; raise the limit `output_records`, or give smaller batches")]
    Records {
        /// How many came.
        got: usize,
        /// How many may come.
        limit: u32,
    },
    /// Too many bytes.
    #[error("more than {} in one call; raise the limit `output_bytes`, or give smaller batches", ByteSize::b(*.limit))]
    Bytes {
        /// How many may come.
        limit: u64,
    },
}

impl CallError {
    /// Whether the plugin's code is at fault, so that another version of it may do better with the same batch.
    pub fn is_plugin_fault(&self) -> bool {
        match self {
            Self::Trap { .. }
            | Self::Deadline { .. }
            | Self::Memory { .. }
            | Self::OutputTooLarge(_)
            | Self::BadOutput { .. }
            | Self::BadDescriptor { .. } => true,
            Self::Configure(_)
            | Self::Retry { .. }
            | Self::Fatal(_)
            | Self::Interrupted
            | Self::WrongKind { .. }
            | Self::Poisoned
            | Self::TooManyInstances { .. }
            | Self::StageFull { .. }
            | Self::NotGranted { .. }
            | Self::Internal { .. } => false,
        }
    }
}

/// Names the cause of a call that ended in a wasmtime error.
pub(super) fn explain(error: &wasmtime::Error, guest: &Guest) -> CallError {
    if guest.ledger().refused() {
        return CallError::Memory { limit: guest.ledger().limit() };
    }
    // wasmtime keeps the type of this error to itself.
    if error.chain().any(|cause| cause.to_string().contains("fuel allocated for hostcalls")) {
        return CallError::OutputTooLarge(Excess::Bytes { limit: guest.output_bytes() });
    }
    let mut message = cause(error);
    if let Some(function) = top_function(error) {
        message.push_str(&format!(" in `{function}`"));
    }
    let last_words = guest.last_words();
    if !last_words.is_empty() {
        message.push_str(": ");
        message.push_str(&last_words);
    }
    CallError::Trap { message: printable(&message, MAX_MESSAGE) }
}

fn cause(error: &wasmtime::Error) -> String {
    if let Some(I32Exit(code)) = error.downcast_ref::<I32Exit>() {
        return format!("it called exit({code})");
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::UnreachableCodeReached) => "it panicked or aborted".to_owned(),
        Some(trap) => trap.to_string(),
        None => format!("{}", error.root_cause()),
    }
}

/// The innermost guest function that has a name.
fn top_function(error: &wasmtime::Error) -> Option<&str> {
    error.downcast_ref::<WasmBacktrace>()?.frames().iter().find_map(|frame| frame.func_name())
}
