//! The smallest sink: one line in the host's log for each delivery, with the start of its first payload.
//!
//! Payloads that are not UTF-8 are rejected, since a log line cannot show them. The counts are those of this instance
//! and start anew with it; a repeated delivery counts again, as any sink without a memory of its tokens would have it.

use tidemill_plugin::{
    Descriptor, Failure, Message, NoConfig, Plugin, Refused, Sink, Token, log, refuse_each,
};

/// How many characters of a payload a line shows.
const SHOWN: usize = 80;

/// The plugin.
pub struct LogSink {
    messages: usize,
    deliveries: usize,
}

impl Plugin for LogSink {
    type Config = NoConfig;

    fn describe() -> Descriptor {
        Descriptor::new(
            env!("CARGO_PKG_NAME"),
            env!("CARGO_PKG_VERSION"),
            "Writes a line to the host's log for each batch",
        )
    }

    fn new(_: NoConfig) -> Result<Self, String> {
        Ok(LogSink { messages: 0, deliveries: 0 })
    }
}

impl Sink for LogSink {
    fn deliver(&mut self, token: Token, batch: Vec<Message>) -> Result<Vec<Refused>, Failure> {
        let mut first = None;
        let refused = refuse_each(&batch, |message| {
            let text = message.text()?;
            first.get_or_insert_with(|| text.chars().take(SHOWN).collect::<String>());
            Ok(())
        });
        self.deliveries += 1;
        self.messages += batch.len() - refused.len();
        log::info(format_args!(
            "{} of {} messages from {}/{} offsets {}..{}; {} messages in {} deliveries so far; first: {}",
            batch.len() - refused.len(),
            batch.len(),
            token.topic,
            token.partition,
            token.first,
            token.next,
            self.messages,
            self.deliveries,
            first.as_deref().unwrap_or("none"),
        ));
        Ok(refused)
    }
}

tidemill_plugin::export_sink!(LogSink);
