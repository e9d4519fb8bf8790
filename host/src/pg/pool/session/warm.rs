//! Sessions that were used a moment ago, for the next statement. The one that was given back last is taken first.
//!
//! sqlx asks the server whether a session still answers when it is taken from its pool, and again when it is given back, so
//! that a statement is three round trips. And it hands out its sessions in turn: each is a process of the server with caches
//! of its own, which are cold when its turn comes. Under load both cost more than many a statement does.
//!
//! * Nobody waits for a session while one rests here.
//! * A session that has rested for [`REST`] is given back to sqlx, which asks before it is used again. One that breaks
//!   sooner is found by the statement that gets it, as one that breaks during a statement is.
//! * After [`SERVICE`] it is given back too, for its age to be looked at.
//!
//! Bound: all sessions are the pool's, and count there.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sqlx::Postgres;
use sqlx::pool::PoolConnection;

/// How long a session may rest before it has to be asked whether it is still there.
const REST: Duration = Duration::from_millis(250);
/// How long a session may go from hand to hand.
const SERVICE: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct Warm(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// By the time since when they rest; the last is the next to be taken.
    resting: Vec<Resting>,
    /// Those who wait for a session of the pool.
    waiting: usize,
    is_closed: bool,
}

#[derive(Debug)]
struct Resting {
    session: Lent,
    since: Instant,
}

/// A session that the pool has given out.
#[derive(Debug)]
pub(super) struct Lent {
    pub(super) connection: PoolConnection<Postgres>,
    since: Instant,
}

/// While it lives, sessions are given back to the pool and nowhere else.
#[derive(Debug)]
pub(super) struct Waiting<'a>(&'a Warm);

impl Lent {
    pub(super) fn new(connection: PoolConnection<Postgres>) -> Self {
        Self { connection, since: Instant::now() }
    }
}

impl Warm {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session that rests here, or else the right to wait for one of the pool.
    pub(super) fn take(&self) -> Result<Lent, Waiting<'_>> {
        let mut inner = self.lock();
        let stale = inner.stale();
        let taken = inner.resting.pop();
        if taken.is_none() {
            inner.waiting += 1;
        }
        drop(inner);
        drop(stale);
        taken.map(|resting| resting.session).ok_or_else(|| Waiting(self))
    }

    /// Keeps a session that may be used again as it is.
    pub(super) fn give_back(&self, session: Lent) {
        let mut inner = self.lock();
        let stale = inner.stale();
        let returned = match inner.waiting > 0 || inner.is_closed || session.since.elapsed() >= SERVICE {
            true => Some(session),
            false => {
                inner.resting.push(Resting { session, since: Instant::now() });
                None
            }
        };
        drop(inner);
        drop((stale, returned));
    }

    /// Gives all sessions back to the pool, now and from now on.
    pub(super) fn close(&self) {
        let mut inner = self.lock();
        inner.is_closed = true;
        let resting = std::mem::take(&mut inner.resting);
        drop(inner);
        drop(resting);
    }
}

impl Inner {
    /// What has rested for too long. To be dropped, and so given back, without the lock.
    fn stale(&mut self) -> Vec<Resting> {
        let stale = self.resting.iter().take_while(|resting| resting.since.elapsed() >= REST).count();
        self.resting.drain(..stale).collect()
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.lock().waiting -= 1;
    }
}

impl Drop for Warm {
    /// With the last handle of the pool, perhaps after the runtime, so that nothing can be given back any more.
    fn drop(&mut self) {
        for resting in self.lock().resting.drain(..) {
            drop(resting.session.connection.detach());
        }
    }
}
