//! A transform that emits every message as it came: the host's tests and benchmarks measure the boundary with it.

use tidemill_plugin::{Descriptor, Emission, Failure, Message, NoConfig, Outcome, Plugin, Transform};

/// The plugin.
pub struct Identity;

impl Plugin for Identity {
    type Config = NoConfig;

    fn describe() -> Descriptor {
        Descriptor::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"), "Emits every message as it came")
    }

    fn new(_: NoConfig) -> Result<Self, String> {
        Ok(Identity)
    }
}

impl Transform for Identity {
    fn process(&mut self, batch: Vec<Message>) -> Result<Outcome, Failure> {
        let mut outcome = Outcome::new();
        for (input, message) in (0..).zip(batch) {
            outcome.emit(Emission::copy_of(message).from_input(input));
        }
        Ok(outcome)
    }
}

tidemill_plugin::export_transform!(Identity);
