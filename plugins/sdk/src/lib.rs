//! The guest side of Tidemill's plugin interface (`wit/0.1.0`): a plugin is one type, two trait impls, and one macro.
//!
//! ```
//! use tidemill_plugin::{Descriptor, Emission, Failure, Message, NoConfig, Outcome, Plugin, Transform};
//!
//! /// Writes each payload in capitals.
//! pub struct Shout;
//!
//! impl Plugin for Shout {
//!     type Config = NoConfig;
//!
//!     fn describe() -> Descriptor {
//!         Descriptor::new("shout", "0.1.0", "Writes each payload in capitals")
//!     }
//!
//!     fn new(_: NoConfig) -> Result<Self, String> {
//!         Ok(Shout)
//!     }
//! }
//!
//! impl Transform for Shout {
//!     fn process(&mut self, batch: Vec<Message>) -> Result<Outcome, Failure> {
//!         Ok(Outcome::each(&batch, |message, outcome| {
//!             let shouted = message.text()?.to_uppercase();
//!             outcome.emit(Emission::new(shouted).key(message.key.clone()));
//!             Ok(())
//!         }))
//!     }
//! }
//!
//! tidemill_plugin::export_transform!(Shout);
//! # fn main() {}
//! ```
//!
//! | kind | trait | macro | returns |
//! | --- | --- | --- | --- |
//! | producer | [`Producer`] | [`export_producer!`] | records and an opaque position |
//! | transform | [`Transform`] | [`export_transform!`] | records for its ports, refusals |
//! | materializer | [`Materializer`] | [`export_materializer!`] | row changes, refusals |
//! | sink | [`Sink`] | [`export_sink!`] | refusals |
//! | worker | [`Worker`] | [`export_worker!`] | a verdict on each job, records for its ports |
//!
//! * All times are microseconds since the Unix epoch, UTC; all waits are microseconds.
//! * Nothing else is there unless the stage grants it: [`state`], [`clock`], [`random`], [`http`], [`metrics`]. A component
//!   needs the grants of the modules that it calls. Without any, a plugin is a function of its configuration and its input.
//! * A panic is a trap: nothing of the batch is committed, the instance is thrown away, and the panic's text goes to
//!   the host's log. Return a [`Refusal`] for a message that is wrong and a [`Failure`] for a batch that cannot go.
//! * The same crate builds natively, where [`mod@log`] keeps its lines for tests, the imports
//!   have stand-ins in memory, and no symbol is exported.

// The generated code names the crate from inside itself as plugins name it from outside.
extern crate self as tidemill_plugin;

pub mod clock;
mod descriptor;
pub mod http;
mod lifecycle;
pub mod log;
mod materializer;
pub mod metrics;
mod producer;
pub mod random;
mod record;
mod sink;
pub mod state;
mod transform;
mod worker;

pub use bindings::materializer::exports::tidemill::plugin::materializing::{
    Change, Outcome as Changes, RowChange, Value,
};
pub use bindings::producer::exports::tidemill::plugin::producing::{Poll, Production};
pub use bindings::sink::exports::tidemill::plugin::delivering::Token;
pub use bindings::transform::exports::tidemill::plugin::transforming::Outcome;
pub use bindings::transform::tidemill::plugin::types::{
    Column, ColumnType, Descriptor, Emission, Failure, Header, Message, Port, Refusal, Refused, RetryHint,
    Table, Timestamp,
};
pub use bindings::worker::exports::tidemill::plugin::working::{
    Job, Outcome as WorkOutcome, RetryJob, Verdict,
};
pub use lifecycle::{NoConfig, Plugin};
pub use materializer::Materializer;
pub use producer::Producer;
pub use sink::{Sink, refuse_each};
pub use transform::Transform;
pub use worker::Worker;

#[doc(hidden)]
pub mod bindings;
#[doc(hidden)]
pub use lifecycle::{Exported, Instance};
#[doc(hidden)]
pub use wit_bindgen;
