//! The queue of each topic: started by the first request, bounded in requests and bytes, ended when idle.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::ids::{Partition, TopicId};
use crate::pg::notify::NotifyHub;
use crate::pg::pool::Pool;
use crate::record::{Appended, NewRecord};

use super::super::{AppendError, LogOptions, Topic};
use super::ProducerSeq;
use super::appender::Appender;
use super::store::Store;

/// Bytes are counted in units of this, since a semaphore counts up to 2^32 at least.
const UNIT: usize = 1024;

/// The queues of all topics of this process.
pub(in crate::log) struct Appenders {
    pool: Pool,
    hub: NotifyHub,
    options: LogOptions,
    queues: Arc<Queues>,
    /// Bytes over all queues.
    budget: Arc<Semaphore>,
    rotation: AtomicU32,
}

/// Tasks hold it weakly, so that they end with the last [`Appenders`].
pub(super) type Queues = Mutex<HashMap<TopicId, Queue>>;

pub(super) struct Queue {
    /// All parts of a request at once, so that they can share a commit. Bounded by the rooms.
    requests: mpsc::UnboundedSender<Vec<Request>>,
    rooms: HashMap<Partition, Room>,
}

/// What may wait for one partition.
struct Room {
    places: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
}

/// The part of an append that goes to one partition.
pub(super) struct Request {
    pub(super) partition: Partition,
    pub(super) records: Vec<NewRecord>,
    pub(super) bytes: usize,
    pub(super) producer: Option<ProducerSeq>,
    pub(super) relaxed: bool,
    pub(super) reply: oneshot::Sender<Answer>,
    /// Given back when a commit takes the request.
    pub(super) place: Option<OwnedSemaphorePermit>,
    /// Given back when it is answered.
    _budget: [OwnedSemaphorePermit; 2],
}

pub(super) type Answer = Result<Appended, AppendError>;

impl Appenders {
    pub(in crate::log) fn new(pool: Pool, hub: NotifyHub, options: &LogOptions) -> Self {
        Self {
            pool,
            hub,
            options: options.clone(),
            queues: Arc::default(),
            budget: Arc::new(Semaphore::new(options.queue_bytes_total.div_ceil(UNIT))),
            rotation: AtomicU32::new(fastrand::u32(..)),
        }
    }

    /// The next partition for records that may go anywhere.
    pub(super) fn rotate(&self, partitions: u32) -> Partition {
        self.rotation.fetch_add(1, Ordering::Relaxed) % partitions.max(1)
    }

    /// Takes all parts of a request, or says at once that there is no room for one of them.
    pub(super) fn submit(
        &self,
        topic: &Topic,
        parts: impl IntoIterator<Item = (Partition, Vec<NewRecord>)>,
        producer: Option<&ProducerSeq>,
        relaxed: bool,
    ) -> Result<Vec<oneshot::Receiver<Answer>>, AppendError> {
        // Under the lock a queue that is in the map has a task that will read what is sent to it.
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = queues.entry(topic.id).or_insert_with(|| self.start(topic));
        if queue.requests.is_closed() {
            // Its task has died, which only a panic can do; the next one starts clean.
            *queue = self.start(topic);
        }
        let (mut requests, mut answers) = (Vec::new(), Vec::new());
        for (partition, records) in parts {
            let bytes = records.iter().map(NewRecord::size).sum();
            let room = queue.rooms.entry(partition).or_insert_with(|| Room::new(&self.options));
            let (place, budget) = self.room(room, topic, bytes)?;
            let (reply, answer) = oneshot::channel();
            requests.push(Request {
                partition,
                records,
                bytes,
                producer: producer.cloned(),
                relaxed,
                reply,
                place: Some(place),
                _budget: budget,
            });
            answers.push(answer);
        }
        if !requests.is_empty() {
            // Cannot fail: it is not closed. If it did, the answers would say that the host is stopping.
            let _ = queue.requests.send(requests);
        }
        Ok(answers)
    }

    fn room(
        &self,
        room: &Room,
        topic: &Topic,
        bytes: usize,
    ) -> Result<(OwnedSemaphorePermit, [OwnedSemaphorePermit; 2]), AppendError> {
        let max = self.options.queue_bytes.min(self.options.queue_bytes_total);
        if bytes > max {
            return Err(AppendError::RequestTooLarge { size: bytes, max });
        }
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX);
        let take = |semaphore: &Arc<Semaphore>, units| {
            semaphore.clone().try_acquire_many_owned(units).map_err(|_| {
                metrics::counter!("tidemill_append_overloaded_total").increment(1);
                AppendError::Overloaded { topic: topic.name.clone() }
            })
        };
        Ok((take(&room.places, 1)?, [take(&room.bytes, units)?, take(&self.budget, units)?]))
    }

    fn start(&self, topic: &Topic) -> Queue {
        let (requests, received) = mpsc::unbounded_channel();
        let store = Store::new(topic.id, topic.name.clone(), self.pool.clone(), self.hub.clone());
        let appender = Appender::new(store, received);
        tokio::spawn(appender.run(self.options.appender_idle, Arc::downgrade(&self.queues)));
        Queue { requests, rooms: HashMap::new() }
    }

    #[cfg(test)]
    pub(in crate::log) fn running(&self) -> usize {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl Room {
    fn new(options: &LogOptions) -> Self {
        Self {
            places: Arc::new(Semaphore::new(options.queue_requests.max(1))),
            bytes: Arc::new(Semaphore::new(options.queue_bytes.div_ceil(UNIT))),
        }
    }
}
