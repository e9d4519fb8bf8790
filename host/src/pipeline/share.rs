//! This host's share of the partitions, among all hosts on the same database.
//!
//! Every host gives a sign of life each [`HEARTBEAT`], looks at the roll each second and whenever another host says that it
//! changed, and works out from it what every host is to run ([`assign`]). A task takes its lease once its partition is in
//! the share, and gives it back after the batch it is in when it no longer is. So a host that joins or stops changes hands
//! with the others within a second or so; one that was killed is replaced when its leases have run out.
//!
//! A sign of life renews every lease that the host has in Postgres. So one that it could not give back, or of which it never
//! heard that it got it, would last for as long as the host does: each look gives back what is neither in the share nor in a
//! task's hands.
//!
//! Shares only decide who asks. Who may commit is decided by the epoch of the lease, in the transaction that commits.

mod assign;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::ids::Partition;
use crate::log::LogError;
use crate::log::hosts::{HEARTBEAT, Hosts, Member, Slot, Stages};
use crate::pg::notify::NotifyHub;
use assign::assign;

/// How often a host looks at the roll when nobody tells it to.
const LOOK: Duration = Duration::from_secs(1);
/// Two looks are never closer than this, however often it is told.
const PAUSE: Duration = Duration::from_millis(50);

/// What this host is to run. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Shares {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    hosts: Hosts,
    member: Member,
    /// What this host can run.
    stages: Mutex<Stages>,
    mine: watch::Sender<BTreeSet<Slot>>,
    /// What tasks have, or are about to have.
    hands: Mutex<BTreeMap<Slot, usize>>,
    look: Notify,
}

/// A lease is in a task's hands for as long as this lives.
#[derive(Debug)]
pub struct InHands {
    slot: Slot,
    shared: Arc<Shared>,
}

/// Whether one partition of a stage is this host's.
#[derive(Debug)]
pub struct Share {
    slot: Slot,
    shared: Arc<Shared>,
    mine: watch::Receiver<BTreeSet<Slot>>,
}

impl Shares {
    pub fn new(hosts: Hosts, member: Member) -> Self {
        let shared = Shared {
            hosts,
            member,
            stages: Mutex::default(),
            mine: watch::Sender::default(),
            hands: Mutex::default(),
            look: Notify::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    pub fn of(&self, stage: &str, partition: Partition) -> Share {
        Share {
            slot: Slot { stage: stage.to_owned(), partition },
            shared: self.shared.clone(),
            mine: self.shared.mine.subscribe(),
        }
    }

    /// Says that this process is there, before it runs anything.
    pub async fn enter(&self) -> Result<(), LogError> {
        self.shared.hosts.enter(&self.shared.member).await
    }

    /// Says what this host can run from now on.
    pub fn run(&self, stages: Stages) {
        *self.stages() = stages;
        self.shared.look.notify_one();
    }

    /// Tells the others that this host has let go of something. Lost, it costs them a look's wait.
    pub async fn released(&self) {
        if let Err(error) = self.shared.hosts.tell().await {
            tracing::debug!(%error, "the other hosts were not told that a lease is free");
        }
    }

    /// Gives signs of life and looks, until the token is cancelled. An error leaves the share as it was: if it lasts, the
    /// leases run out and the others take over.
    pub async fn keep(self, hub: NotifyHub, token: CancellationToken) {
        let mut told = hub.hosts();
        let mut next_beat = Instant::now();
        let mut known = Stages::new();
        loop {
            let stages = self.stages().clone();
            let news = stages != known;
            if let Err(error) = self.look(&stages, news || Instant::now() >= next_beat, &mut next_beat).await
            {
                tracing::warn!(%error, "this host could not give a sign of life or look at the others");
            } else if news {
                known = stages;
                self.released().await;
            }
            tokio::select! {
                () = token.cancelled() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
            tokio::select! {
                () = token.cancelled() => return,
                () = told.woken() => {}
                () = self.shared.look.notified() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    async fn look(&self, stages: &Stages, beat: bool, next_beat: &mut Instant) -> Result<(), LogError> {
        let shared = &self.shared;
        if beat {
            shared.hosts.beat(&shared.member, stages).await?;
            *next_beat = Instant::now() + HEARTBEAT;
        }
        let roll = shared.hosts.roll().await?;
        let own = |(slot, host)| (host == shared.member.host).then_some(slot);
        let mine: BTreeSet<Slot> = assign(&roll).into_iter().filter_map(own).collect();
        let held: Vec<Slot> = roll.held.into_iter().filter_map(own).collect();
        shared.mine.send_if_modified(|known| {
            let changed = *known != mine;
            known.clone_from(&mine);
            changed
        });
        // After the tasks were told: who begins now has it in its share.
        let left: Vec<Slot> = held
            .into_iter()
            .filter(|slot| !mine.contains(slot) && !shared.hands().contains_key(slot))
            .collect();
        for slot in &left {
            tracing::info!(
                stage = slot.stage,
                partition = slot.partition,
                "giving back a lease that no task has"
            );
            shared.hosts.free(&shared.member, slot).await?;
        }
        if !left.is_empty() {
            self.released().await;
        }
        Ok(())
    }

    /// The host is stopping and runs nothing new: the others take over what it has as soon as it lets go.
    pub async fn leave(&self) {
        let nothing = Stages::new();
        self.run(nothing.clone());
        match self.shared.hosts.beat(&self.shared.member, &nothing).await {
            Ok(()) => self.released().await,
            Err(error) => tracing::debug!(%error, "the other hosts were not told that this one stops"),
        }
    }

    fn stages(&self) -> MutexGuard<'_, Stages> {
        self.shared.stages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn hands(&self) -> MutexGuard<'_, BTreeMap<Slot, usize>> {
        self.hands.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for InHands {
    fn drop(&mut self) {
        let mut hands = self.shared.hands();
        if let Some(count) = hands.get_mut(&self.slot) {
            *count -= 1;
            if *count == 0 {
                hands.remove(&self.slot);
            }
        }
    }
}

impl Share {
    /// Says that a task takes the lease, from before it asks for it until it was given back or could not be.
    pub fn take(&self) -> InHands {
        *self.shared.hands().entry(self.slot.clone()).or_default() += 1;
        InHands { slot: self.slot.clone(), shared: self.shared.clone() }
    }

    /// Waits until the partition is in this host's share.
    pub async fn gained(&mut self) {
        self.is(true).await;
    }

    /// Waits until it is not.
    pub async fn lost(&mut self) {
        self.is(false).await;
    }

    /// Runs `work`, which ends when `held` is cancelled, and cancels that when the partition leaves the share.
    pub async fn during<T>(&mut self, held: &CancellationToken, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        tokio::select! {
            ended = &mut work => return ended,
            () = self.lost() => held.cancel(),
        }
        work.await
    }

    async fn is(&mut self, wanted: bool) {
        let slot = &self.slot;
        if self.mine.wait_for(|mine| mine.contains(slot) == wanted).await.is_err() {
            // The host is being taken down; tokens end the tasks.
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests;
