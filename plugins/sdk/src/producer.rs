//! Producers: records out of something that is not a topic.

use crate::{
    Exported, Failure, Instance, Plugin, Poll, Production,
    bindings::producer::exports::tidemill::plugin::producing, lifecycle,
};

/// Makes records out of something that is not a topic.
///
/// The host commits the records together with the position and hands the position back in the next poll, so a
/// producer whose output depends only on its configuration and the poll is exactly-once across restarts.
pub trait Producer: Plugin {
    /// At most `poll.max_records` records, the position after them, and the time of the next call.
    ///
    /// # Errors
    /// A [`Failure`]; nothing of this call is committed, and a retry gets the same position.
    fn produce(&mut self, poll: Poll) -> Result<Production, Failure>;
}

/// Makes a component of the world `producer` out of a [`Producer`].
#[macro_export]
macro_rules! export_producer {
    ($plugin:ty) => {
        $crate::__instance!($plugin);

        #[cfg(target_family = "wasm")]
        const _: () = {
            type Exported = $crate::Exported<$plugin>;
            $crate::bindings::producer::export_producer_world!(Exported);
        };
    };
}

impl<T: Producer + Instance> producing::Guest for Exported<T> {
    fn produce(poll: Poll) -> Result<Production, Failure> {
        lifecycle::with(|plugin: &mut T| plugin.produce(poll))
    }
}
