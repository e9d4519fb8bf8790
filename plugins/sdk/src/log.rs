//! Lines for the host's log, which labels them with the stage.
//!
//! The host bounds the length and the number of lines and counts what it drops, so log per batch, not per message.
//! In a native build, as in tests, the newest [`KEPT`] lines of the thread are kept for [`take`].

use std::fmt::Display;

pub use crate::bindings::transform::tidemill::plugin::log::Level;

/// How many lines a native build keeps for each thread.
pub const KEPT: usize = 1_000;

/// Something only a developer of the plugin wants to see.
pub fn trace(line: impl Display) {
    write(Level::Trace, &line.to_string());
}

/// Something that helps to find a fault.
pub fn debug(line: impl Display) {
    write(Level::Debug, &line.to_string());
}

/// Something worth knowing in normal running.
pub fn info(line: impl Display) {
    write(Level::Info, &line.to_string());
}

/// Something that a person should look at some time.
pub fn warn(line: impl Display) {
    write(Level::Warn, &line.to_string());
}

/// Something that a person should look at now.
pub fn error(line: impl Display) {
    write(Level::Error, &line.to_string());
}

#[cfg(target_family = "wasm")]
use crate::bindings::transform::tidemill::plugin::log::write;

#[cfg(not(target_family = "wasm"))]
pub use kept::take;

#[cfg(not(target_family = "wasm"))]
use kept::write;

#[cfg(not(target_family = "wasm"))]
mod kept {
    use std::{cell::RefCell, collections::VecDeque};

    use super::{KEPT, Level};

    thread_local! {
        static LINES: RefCell<VecDeque<(Level, String)>> = const { RefCell::new(VecDeque::new()) };
    }

    pub(super) fn write(level: Level, line: &str) {
        LINES.with_borrow_mut(|lines| {
            if lines.len() == KEPT {
                lines.pop_front();
            }
            lines.push_back((level, line.to_owned()));
        });
    }

    /// Takes the lines that this thread has logged, oldest first. Only in native builds.
    #[must_use]
    pub fn take() -> Vec<(Level, String)> {
        LINES.take().into()
    }
}
