//! A transform that never comes back from `describe`, which is called before any configuration could ask for it.

use tidemill_plugin::{Descriptor, Failure, Message, NoConfig, Outcome, Plugin, Transform};

/// The plugin.
pub struct SpinDescribe;

impl Plugin for SpinDescribe {
    type Config = NoConfig;

    fn describe() -> Descriptor {
        loop {
            std::hint::spin_loop();
        }
    }

    fn new(_: NoConfig) -> Result<Self, String> {
        Ok(SpinDescribe)
    }
}

impl Transform for SpinDescribe {
    fn process(&mut self, _: Vec<Message>) -> Result<Outcome, Failure> {
        Ok(Outcome::new())
    }
}

tidemill_plugin::export_transform!(SpinDescribe);
