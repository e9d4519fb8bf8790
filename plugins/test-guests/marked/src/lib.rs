//! A transform that says in each record which build made it. The host's tests write another mark over the one in the
//! component's bytes: each copy is then a version of its own, with a digest of its own, and what it puts out proves which
//! one really ran.
//!
//! The letter after `tidemill-mark:` says what the version does wrong: `n` nothing, `s` it panics when it is configured,
//! `l` it panics in its third batch, `w` it never comes back from its first, `m` it allocates without end, `r` it rejects
//! every message.

use std::hint::black_box;

use tidemill_plugin::{
    Descriptor, Emission, Failure, Message, NoConfig, Outcome, Plugin, Refusal, Transform,
};

/// Read through [`black_box`], so that the bytes stay in the component in one piece.
static MARK: [u8; 32] = *b"tidemill-mark:n:0000000000000000";
/// Where the letter is, and where the name begins.
const FAULT: usize = 14;
const NAME: usize = 16;

fn mark() -> [u8; 32] {
    *black_box(&MARK)
}

/// The plugin.
pub struct Marked {
    name: Vec<u8>,
    batches: u32,
}

impl Plugin for Marked {
    type Config = NoConfig;

    fn describe() -> Descriptor {
        Descriptor::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"), "Says which build of it ran")
    }

    fn new(_: NoConfig) -> Result<Self, String> {
        let mark = mark();
        assert!(mark[FAULT] != b's', "asked to panic at the start");
        Ok(Marked { name: mark[NAME..].to_vec(), batches: 0 })
    }
}

impl Transform for Marked {
    fn process(&mut self, batch: Vec<Message>) -> Result<Outcome, Failure> {
        self.batches += 1;
        let fault = mark()[FAULT];
        match fault {
            b'l' if self.batches >= 3 => panic!("asked to panic later"),
            b'w' => loop {
                std::hint::spin_loop();
            },
            b'm' => {
                let mut hoard: Vec<Vec<u8>> = Vec::new();
                loop {
                    hoard.push(black_box(vec![1; 1 << 20]));
                }
            }
            _ => {}
        }
        Ok(Outcome::each(&batch, |message, outcome| {
            if fault == b'r' {
                return Err(Refusal::reject("asked to reject"));
            }
            outcome.emit(Emission::copy_of(message.clone()).header("mark", self.name.clone()));
            Ok(())
        }))
    }
}

tidemill_plugin::export_transform!(Marked);
