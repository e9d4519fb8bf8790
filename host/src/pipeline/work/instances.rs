//! What the calls of a worker run on: an instance for each, kept for the next call, of the version that the stage runs.
//!
//! A version is taken over between two calls of an instance. If the new one cannot be instantiated, the one before goes on.
//! Bound: as many instances as calls run at a time.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::pipeline::stage::{Stage, StageError};
use crate::pipeline::version::Version;
use crate::plugin::{CallError, Instance};

/// How long a version that could not be instantiated is left alone.
const TRY_AGAIN: Duration = Duration::from_secs(1);

pub(super) struct Instances {
    stage: Arc<Stage>,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    idle: Vec<Seat>,
    /// Numbers of seats that are taken or idle.
    numbers: BTreeSet<u32>,
    /// When a version may be tried again that could not be instantiated.
    not_before: Option<Instant>,
}

/// An instance that can be called.
pub(super) struct Seat {
    /// Its place in the status.
    number: u32,
    pub version: Arc<Version>,
    pub instance: Instance,
}

impl Instances {
    /// With one instance, which shows that the component starts and takes its config.
    pub async fn start(stage: &Arc<Stage>) -> Result<Self, StageError> {
        let instances = Self { stage: stage.clone(), kept: Mutex::default() };
        let seat = instances.take().await.map_err(|error| stage.cannot_start(&error))?;
        instances.give(seat);
        Ok(instances)
    }

    pub async fn take(&self) -> Result<Seat, CallError> {
        let wanted = self.stage.version();
        let (idle, waits) = {
            let mut kept = self.kept();
            (kept.idle.pop(), kept.not_before.is_some_and(|time| Instant::now() < time))
        };
        let Some(mut seat) = idle else {
            let instance = self.stage.instantiate(&wanted).await?;
            return Ok(Seat { number: self.number(), version: wanted, instance });
        };
        if seat.version.digest() == wanted.digest() {
            seat.version = wanted;
            return Ok(seat);
        }
        if waits {
            return Ok(seat);
        }
        match self.stage.instantiate(&wanted).await {
            Ok(instance) => {
                self.stage.cell.runs(super::TASK, wanted.digest());
                self.let_go(&wanted);
                Ok(Seat { number: seat.number, version: wanted, instance })
            }
            Err(error) => {
                let error = self.stage.words(&error);
                let (stage, digest) = (self.stage.label(), wanted.digest());
                tracing::warn!(
                    stage,
                    digest,
                    error,
                    "the version cannot be instantiated; the one before goes on"
                );
                self.kept().not_before = Some(Instant::now() + TRY_AGAIN);
                Ok(seat)
            }
        }
    }

    /// Keeps it for the next call, unless the last one ended it.
    pub fn give(&self, seat: Seat) {
        let poisoned = seat.instance.poisoned();
        self.stage.cell.observe(seat.number, (!poisoned).then_some(&seat.instance));
        let mut kept = self.kept();
        if poisoned {
            kept.numbers.remove(&seat.number);
        } else {
            kept.idle.push(seat);
        }
    }

    /// Drops idle instances of other versions, which would hold memory until their turn comes.
    fn let_go(&self, wanted: &Version) {
        let mut kept = self.kept();
        let idle = std::mem::take(&mut kept.idle);
        let (stay, go): (Vec<Seat>, Vec<Seat>) =
            idle.into_iter().partition(|seat| seat.version.digest() == wanted.digest());
        kept.idle = stay;
        for seat in go {
            kept.numbers.remove(&seat.number);
            self.stage.cell.observe(seat.number, None);
        }
    }

    fn number(&self) -> u32 {
        let mut kept = self.kept();
        let number = (0..).find(|number| !kept.numbers.contains(number)).unwrap_or(u32::MAX);
        kept.numbers.insert(number);
        number
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
