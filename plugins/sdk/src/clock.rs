//! The time of the batch, by the grant `clock`: when its last message was appended, and for a producer `poll.now`. It is the
//! same whenever the same batch is run again, and stands still during a call.
//!
//! In a native build it is what [`set`] says, at first 0.

#[cfg(not(target_family = "wasm"))]
use crate::Timestamp;

#[cfg(target_family = "wasm")]
pub use crate::bindings::imports::tidemill::plugin::clock::now;

#[cfg(not(target_family = "wasm"))]
pub use stand_in::{now, set};

#[cfg(not(target_family = "wasm"))]
mod stand_in {
    use std::cell::Cell;

    use super::Timestamp;

    thread_local! {
        static NOW: Cell<Timestamp> = const { Cell::new(0) };
    }

    /// Microseconds since the Unix epoch.
    #[must_use]
    pub fn now() -> Timestamp {
        NOW.get()
    }

    /// Sets the time of this thread. Only in native builds.
    pub fn set(now: Timestamp) {
        NOW.set(now);
    }
}
