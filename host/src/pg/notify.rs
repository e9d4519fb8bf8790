//! Waking readers when a topic has grown.
//!
//! Readers poll; being woken only makes them faster. So nothing here has to be reliable, and an error costs latency,
//! never a record:
//! * readers of this process are woken directly;
//! * other processes get a NOTIFY on the channel `tidemill_appended`, sent outside every other transaction and at most
//!   once in [`PAUSE`], because a committing NOTIFY takes a lock of the whole server;
//! * the listener has a connection of its own. After each (re)connect it LISTENs first and then wakes everybody, and
//!   every ten seconds it notifies itself, since a half-open connection is silent otherwise.
//!
//! Payload: `<sender> <topic id>,<topic id>,…`, or `<sender> *` for all topics. A hub ignores its own.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use tokio::sync::{Notify, watch};
use tokio_util::task::AbortOnDropHandle;

use crate::ids::{QueueName, TopicId};
use crate::pg::pool::Pool;

mod listener;

/// The channel, for anybody who listens with psql.
pub const CHANNEL: &str = "tidemill_appended";
/// Says that a stage is to run another plugin; the migration that makes `tidemill.stage_plugins` sends it.
pub const PLUGINS: &str = "tidemill_plugins";
/// Says that a host came, is leaving, or has let go of a lease.
pub const HOSTS: &str = "tidemill_hosts";
/// Says that dead letters were queued; `tidemill.redrive` sends it.
pub const LETTERS: &str = "tidemill_letters";
/// Says that a queue, the payload, has jobs that wait; `tidemill.enqueue` sends it while a worker waits.
pub const JOBS: &str = "tidemill_jobs";

/// The shortest time between two NOTIFYs of one hub.
const PAUSE: Duration = Duration::from_millis(20);
/// More topics than this in one payload become `*`: a payload may have 8,000 bytes, an id takes up to 11.
const TOPICS_MAX: usize = 512;

/// Wakes and is woken. Cheap to clone; the tasks end with the last clone.
#[derive(Clone)]
pub struct NotifyHub {
    shared: Arc<Shared>,
    _tasks: Arc<Vec<AbortOnDropHandle<()>>>,
}

struct Shared {
    /// Tells our own notifications from those of others.
    sender: String,
    /// One entry for each topic that somebody waits for.
    topics: Mutex<HashMap<TopicId, watch::Sender<()>>>,
    /// The same for queues.
    queues: Mutex<HashMap<QueueName, watch::Sender<()>>>,
    /// Topics that other processes have not been told of. Bounded by the number of topics.
    dirty: Mutex<BTreeSet<TopicId>>,
    send: Notify,
    plugins: watch::Sender<()>,
    hosts: watch::Sender<()>,
    letters: watch::Sender<()>,
}

/// Waits for a topic to grow, for jobs of a queue, for [`PLUGINS`], [`HOSTS`] or [`LETTERS`]. Made before the first read, it misses nothing that
/// comes after.
#[derive(Debug)]
pub struct Waiter(watch::Receiver<()>);

impl NotifyHub {
    /// Starts the tasks. `listen` is None where there is only a pooler, through which LISTEN does not work: other
    /// processes' appends are then found by polling only.
    pub fn start(pool: Pool, listen: Option<PgConnectOptions>) -> Self {
        let shared = Arc::new(Shared {
            sender: format!("{:016x}", fastrand::u64(..)),
            topics: Mutex::default(),
            queues: Mutex::default(),
            dirty: Mutex::default(),
            send: Notify::new(),
            plugins: watch::Sender::new(()),
            hosts: watch::Sender::new(()),
            letters: watch::Sender::new(()),
        });
        let mut tasks = vec![tokio::spawn(notify(shared.clone(), pool))];
        if let Some(options) = listen {
            tasks.push(tokio::spawn(listener::run(shared.clone(), options)));
        }
        let tasks = tasks.into_iter().map(AbortOnDropHandle::new).collect();
        Self { shared, _tasks: Arc::new(tasks) }
    }

    /// Says that records were committed to a topic. Never blocks.
    pub fn appended(&self, topic: TopicId) {
        self.shared.wake(topic);
        locked(&self.shared.dirty).insert(topic);
        self.shared.send.notify_one();
    }

    /// Waits for a topic from now on.
    pub fn subscribe(&self, topic: TopicId) -> Waiter {
        let mut topics = locked(&self.shared.topics);
        if !topics.contains_key(&topic) {
            topics.retain(|_, waiters| waiters.receiver_count() > 0);
        }
        Waiter(topics.entry(topic).or_insert_with(|| watch::Sender::new(())).subscribe())
    }

    /// Says that jobs of a queue were committed, to the workers of this process.
    pub fn enqueued(&self, queue: &QueueName) {
        self.shared.wake_queue(queue);
    }

    /// Waits for jobs of a queue from now on.
    pub fn jobs(&self, queue: &QueueName) -> Waiter {
        let mut queues = locked(&self.shared.queues);
        if !queues.contains_key(queue) {
            queues.retain(|_, waiters| waiters.receiver_count() > 0);
        }
        Waiter(queues.entry(queue.clone()).or_insert_with(|| watch::Sender::new(())).subscribe())
    }

    /// Waits for [`PLUGINS`] from now on.
    pub fn plugins(&self) -> Waiter {
        Waiter(self.shared.plugins.subscribe())
    }

    /// Waits for [`HOSTS`] from now on.
    pub fn hosts(&self) -> Waiter {
        Waiter(self.shared.hosts.subscribe())
    }

    /// Waits for [`LETTERS`] from now on.
    pub fn letters(&self) -> Waiter {
        Waiter(self.shared.letters.subscribe())
    }
}

impl Waiter {
    /// Returns at once if something was said since the last call, else when it is. Wake-ups in between count as one, and
    /// some are for nothing. Put a poll interval beside it. May be cancelled.
    pub async fn woken(&mut self) {
        if self.0.changed().await.is_err() {
            // The hub is gone: nobody will wake us, and the caller polls.
            std::future::pending::<()>().await;
        }
    }
}

impl Shared {
    fn wake(&self, topic: TopicId) {
        if let Some(waiters) = locked(&self.topics).get(&topic) {
            waiters.send_replace(());
        }
    }

    fn wake_queue(&self, queue: &QueueName) {
        if let Some(waiters) = locked(&self.queues).get(queue) {
            waiters.send_replace(());
        }
    }

    fn wake_all(&self) {
        self.plugins.send_replace(());
        self.hosts.send_replace(());
        self.letters.send_replace(());
        for waiters in locked(&self.topics).values().chain(locked(&self.queues).values()) {
            waiters.send_replace(());
        }
    }

    /// Acts on a payload, which anybody may have sent: what is not understood is ignored.
    fn received(&self, payload: &str) {
        match payload.split_once(' ') {
            Some((sender, _)) if sender == self.sender => {}
            Some((_, "*")) => self.wake_all(),
            Some((_, ids)) => {
                ids.split(',').filter_map(|id| id.parse().ok()).for_each(|id| self.wake(TopicId(id)));
            }
            None => {}
        }
    }

    fn payload(&self, topics: &BTreeSet<TopicId>) -> String {
        if topics.len() > TOPICS_MAX {
            return format!("{} *", self.sender);
        }
        let ids: Vec<String> = topics.iter().map(TopicId::to_string).collect();
        format!("{} {}", self.sender, ids.join(","))
    }
}

/// Tells other processes. The first append goes out at once, those within the pause after it together.
async fn notify(shared: Arc<Shared>, pool: Pool) {
    loop {
        shared.send.notified().await;
        let topics = std::mem::take(&mut *locked(&shared.dirty));
        if topics.is_empty() {
            continue;
        }
        let query = sqlx::query("SELECT pg_notify($1, $2)").bind(CHANNEL).bind(shared.payload(&topics));
        match query.execute(&pool).await {
            Ok(_) => metrics::counter!("tidemill_notify_sent_total").increment(1),
            Err(sqlx::Error::PoolClosed) => return,
            Err(error) => {
                metrics::counter!("tidemill_notify_failed_total").increment(1);
                tracing::debug!(%error, "a NOTIFY was not sent; other hosts find the records by polling");
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Nothing that runs under these locks can panic half way through a change.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
