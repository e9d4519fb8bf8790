//! Sinks: batches of messages to something outside Postgres, at least once.

use crate::{
    Exported, Failure, Instance, Message, Plugin, Refusal, Refused, Token,
    bindings::sink::exports::tidemill::plugin::delivering, lifecycle,
};

/// Hands batches to something outside Postgres.
pub trait Sink: Plugin {
    /// Delivers a batch and says which messages were refused. A repeated delivery of the same messages carries the
    /// same token: pass it on as an idempotency key.
    ///
    /// # Errors
    /// A [`Failure`] concerns the whole batch: the offset does not move and the same batch comes again, or the stage
    /// stops.
    fn deliver(&mut self, token: Token, batch: Vec<Message>) -> Result<Vec<Refused>, Failure>;
}

/// Makes a component of the world `sink` out of a [`Sink`].
#[macro_export]
macro_rules! export_sink {
    ($plugin:ty) => {
        $crate::__instance!($plugin);

        #[cfg(target_family = "wasm")]
        const _: () = {
            type Exported = $crate::Exported<$plugin>;
            $crate::bindings::sink::export_sink_world!(Exported);
        };
    };
}

/// Runs `work` on each message and collects what it refuses.
pub fn refuse_each(batch: &[Message], mut work: impl FnMut(&Message) -> Result<(), Refusal>) -> Vec<Refused> {
    (0..)
        .zip(batch)
        .filter_map(|(input, message)| {
            let refusal = work(message).err()?;
            Some(Refused { input, refusal })
        })
        .collect()
}

impl<T: Sink + Instance> delivering::Guest for Exported<T> {
    fn deliver(token: Token, batch: Vec<Message>) -> Result<Vec<Refused>, Failure> {
        lifecycle::with(|plugin: &mut T| plugin.deliver(token, batch))
    }
}
