//! A transform that goes wrong in the way its configuration asks for, for the host's tests of its limits.
//!
//! | config | does |
//! | --- | --- |
//! | `{"fault":"none"}` | emits every message as it came |
//! | `{"fault":"spin","when":"process"}` | never returns; `when` may be `configure` |
//! | `{"fault":"hog","when":"process","bytes":1073741824}` | allocates and touches that much, 1 MiB at a time |
//! | `{"fault":"trap"}` | panics at a payload that contains `trap`, passes the others |
//! | `{"fault":"flood","records":10,"bytes":1000000}` | emits so many records of so many bytes for each batch |
//! | `{"fault":"refuse"}` | rejects payloads with `bad`, retries those with `later` after 1 ms, passes the others |
//! | `{"fault":"fail","retry":true}` | fails each batch, to be tried again or fatally |
//! | `{"fault":"stray-port"}` | emits to a port that it has not declared |
//! | `{"fault":"stray-input"}` | names an input that is not in the batch |
//! | `{"fault":"chatter","lines":100000}` | logs so many lines for each batch, then passes it |

use serde::Deserialize;
use tidemill_plugin::{Descriptor, Emission, Failure, Message, Outcome, Plugin, Refusal, Transform, log};

const CONFIG_SCHEMA: &str = r#"{
  "type": "object",
  "required": ["fault"],
  "additionalProperties": false,
  "properties": {
    "fault": {
      "enum": ["none", "spin", "hog", "trap", "flood", "refuse", "fail", "stray-port", "stray-input", "chatter"]
    },
    "when": { "enum": ["configure", "process"] },
    "bytes": { "type": "integer", "minimum": 0 },
    "records": { "type": "integer", "minimum": 0 },
    "lines": { "type": "integer", "minimum": 0 },
    "retry": { "type": "boolean" }
  }
}"#;

const MIB: usize = 1 << 20;

/// How to go wrong.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "fault", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Fault {
    None,
    Spin { when: When },
    Hog { when: When, bytes: usize },
    Trap,
    Flood { records: usize, bytes: usize },
    Refuse,
    Fail { retry: bool },
    StrayPort,
    StrayInput,
    Chatter { lines: usize },
}

/// In which call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum When {
    Configure,
    Process,
}

/// The plugin.
pub struct Misbehave {
    fault: Fault,
}

impl Plugin for Misbehave {
    type Config = Fault;

    fn describe() -> Descriptor {
        Descriptor::new(
            env!("CARGO_PKG_NAME"),
            env!("CARGO_PKG_VERSION"),
            "Goes wrong as its configuration asks for",
        )
        .config_schema(CONFIG_SCHEMA)
    }

    fn new(fault: Fault) -> Result<Self, String> {
        let plugin = Misbehave { fault };
        plugin.exhaust(When::Configure);
        Ok(plugin)
    }
}

impl Transform for Misbehave {
    fn process(&mut self, batch: Vec<Message>) -> Result<Outcome, Failure> {
        self.exhaust(When::Process);
        match self.fault {
            Fault::Flood { records, bytes } => return Ok(flood(records, bytes)),
            Fault::Fail { retry: true } => return Err(Failure::retry("asked to fail", None)),
            Fault::Fail { retry: false } => return Err(Failure::fatal("asked to fail")),
            Fault::Chatter { lines } => (0..lines).for_each(log::info),
            _ => {}
        }
        Ok(Outcome::each(&batch, |message, outcome| {
            outcome.emit(self.answer(message)?);
            Ok(())
        }))
    }
}

impl Misbehave {
    fn answer(&self, message: &Message) -> Result<Emission, Refusal> {
        let emission = Emission::copy_of(message.clone());
        let has = |word: &str| message.payload.windows(word.len()).any(|window| window == word.as_bytes());
        match self.fault {
            Fault::Trap if has("trap") => panic!("asked to trap at offset {}", message.offset),
            Fault::Refuse if has("bad") => Err(Refusal::reject("it is bad")),
            Fault::Refuse if has("later") => Err(Refusal::retry_after(1_000)),
            Fault::StrayPort => Ok(emission.port("nowhere")),
            Fault::StrayInput => Ok(emission.from_input(u32::MAX)),
            _ => Ok(emission),
        }
    }

    fn exhaust(&self, now: When) {
        match self.fault {
            Fault::Spin { when } if when == now => loop {
                std::hint::spin_loop();
            },
            Fault::Hog { when, bytes } if when == now => {
                let hoard: Vec<Vec<u8>> = (0..bytes.div_ceil(MIB)).map(|_| vec![1; MIB]).collect();
                std::hint::black_box(hoard);
            }
            _ => {}
        }
    }
}

fn flood(records: usize, bytes: usize) -> Outcome {
    let mut outcome = Outcome::new();
    for _ in 0..records {
        outcome.emit(Emission::new(vec![b'x'; bytes]).from_input(0));
    }
    outcome
}

tidemill_plugin::export_transform!(Misbehave);

#[cfg(test)]
mod tests {
    use super::*;

    fn message(payload: &str) -> Message {
        Message {
            partition: 0,
            offset: 7,
            timestamp: 0,
            attempt: 1,
            key: None,
            headers: Vec::new(),
            payload: payload.into(),
        }
    }

    fn plugin(config: &str) -> Misbehave {
        Misbehave::new(serde_json::from_str(config).unwrap()).unwrap()
    }

    #[test]
    fn refuse_sorts_a_batch_into_passed_rejected_and_retried() {
        let batch = ["fine", "a bad one", "do it later", "fine again"].map(message);
        let outcome = plugin(r#"{"fault":"refuse"}"#).process(batch.into()).unwrap();
        let passed: Vec<_> = outcome.emissions.iter().map(|e| e.input).collect();
        let refused: Vec<_> = outcome.refusals.iter().map(|r| r.input).collect();
        assert_eq!(passed, [Some(0), Some(3)]);
        assert_eq!(refused, [1, 2]);
        assert_eq!(outcome.refusals[1].refusal, Refusal::Retry(Some(1_000)));
    }

    #[test]
    fn flood_emits_as_much_as_asked() {
        let mut plugin = plugin(r#"{"fault":"flood","records":3,"bytes":5}"#);
        let outcome = plugin.process(vec![message("")]).unwrap();
        assert_eq!(outcome.emissions.len(), 3);
        assert_eq!(outcome.emissions[0].payload, b"xxxxx");
    }

    #[test]
    #[should_panic(expected = "asked to trap at offset 7")]
    fn trap_panics_at_its_word_only() {
        let mut plugin = plugin(r#"{"fault":"trap"}"#);
        assert_eq!(plugin.process(vec![message("fine")]).unwrap().emissions.len(), 1);
        let _ = plugin.process(vec![message("trap")]);
    }
}
