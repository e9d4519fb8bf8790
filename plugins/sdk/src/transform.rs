//! Transforms: batches of messages into records for output ports.

use crate::{
    Emission, Exported, Failure, Instance, Message, Outcome, Plugin, Refusal, Refused,
    bindings::transform::exports::tidemill::plugin::transforming, lifecycle,
};

/// Turns batches of messages into records for its ports.
pub trait Transform: Plugin {
    /// Called once for each batch; the outputs and the input's offsets are committed together.
    ///
    /// # Errors
    /// A [`Failure`] concerns the whole batch, of which nothing is then committed. For single messages put
    /// refusals into the outcome.
    fn process(&mut self, batch: Vec<Message>) -> Result<Outcome, Failure>;
}

/// Makes a component of the world `transform` out of a [`Transform`].
#[macro_export]
macro_rules! export_transform {
    ($plugin:ty) => {
        $crate::__instance!($plugin);

        #[cfg(target_family = "wasm")]
        const _: () = {
            type Exported = $crate::Exported<$plugin>;
            $crate::bindings::transform::export_transform_world!(Exported);
        };
    };
}

impl Outcome {
    /// Nothing emitted, nothing refused.
    #[must_use]
    pub fn new() -> Self {
        Outcome { emissions: Vec::new(), refusals: Vec::new() }
    }

    /// Runs `work` on each message. Its emissions get the message's index as their input unless they name one, and
    /// a message that `work` refuses leaves no emissions behind.
    pub fn each(
        batch: &[Message],
        mut work: impl FnMut(&Message, &mut Outcome) -> Result<(), Refusal>,
    ) -> Self {
        let mut outcome = Outcome::new();
        for (input, message) in (0..).zip(batch) {
            let before = outcome.emissions.len();
            match work(message, &mut outcome) {
                Ok(()) => outcome.emissions[before..]
                    .iter_mut()
                    .for_each(|emission| emission.input = emission.input.or(Some(input))),
                Err(refusal) => {
                    outcome.emissions.truncate(before);
                    outcome.refuse(input, refusal);
                }
            }
        }
        outcome
    }

    /// Adds a record to be written.
    pub fn emit(&mut self, emission: Emission) {
        self.emissions.push(emission);
    }

    /// Refuses the message at index `input` of the batch.
    pub fn refuse(&mut self, input: u32, refusal: Refusal) {
        self.refusals.push(Refused { input, refusal });
    }
}

impl Default for Outcome {
    fn default() -> Self {
        Outcome::new()
    }
}

impl<T: Transform + Instance> transforming::Guest for Exported<T> {
    fn process(batch: Vec<Message>) -> Result<Outcome, Failure> {
        lifecycle::with(|plugin: &mut T| plugin.process(batch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(payload: &str) -> Message {
        Message {
            partition: 0,
            offset: 0,
            timestamp: 0,
            attempt: 1,
            key: None,
            headers: Vec::new(),
            payload: payload.into(),
        }
    }

    #[test]
    fn each_names_the_input_and_a_refused_message_leaves_no_emissions() {
        let batch = ["1", "x", "2"].map(message);
        let outcome = Outcome::each(&batch, |message, outcome| {
            outcome.emit(Emission::new("before"));
            let number: u32 = message.json()?;
            outcome.emit(Emission::new(number.to_string()).from_input(0));
            Ok(())
        });
        let emitted: Vec<_> =
            outcome.emissions.iter().map(|emission| (emission.input, emission.payload.as_slice())).collect();
        let expected: [(Option<u32>, &[u8]); 4] =
            [(Some(0), b"before"), (Some(0), b"1"), (Some(2), b"before"), (Some(0), b"2")];
        assert_eq!(emitted, expected);
        assert_eq!(outcome.refusals.len(), 1);
        assert_eq!(outcome.refusals[0].input, 1);
    }
}
