//! The queue of each partition: started by the first request, bounded in requests and bytes, ended when idle.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::ids::{Partition, TopicPartition};
use crate::pg::notify::NotifyHub;
use crate::pg::pool::Pool;
use crate::record::{Appended, NewRecord};

use super::super::{AppendError, LogOptions, Topic};
use super::ProducerSeq;
use super::appender::Appender;

/// Bytes are counted in units of this, since a semaphore counts up to 2^32 at least.
const UNIT: usize = 1024;

/// The queues of all partitions of this process.
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
pub(super) type Queues = Mutex<HashMap<TopicPartition, Queue>>;

#[derive(Clone)]
pub(super) struct Queue {
    requests: mpsc::Sender<Request>,
    budget: Arc<Semaphore>,
}

/// The part of an append that goes to one partition.
pub(super) struct Request {
    pub(super) records: Vec<NewRecord>,
    pub(super) bytes: usize,
    pub(super) producer: Option<ProducerSeq>,
    pub(super) relaxed: bool,
    pub(super) reply: oneshot::Sender<Result<Appended, AppendError>>,
    /// Given back when the request is answered.
    _budget: [OwnedSemaphorePermit; 2],
}

/// Room for one request.
pub(in crate::log) struct Slot {
    permit: mpsc::OwnedPermit<Request>,
    budget: [OwnedSemaphorePermit; 2],
    bytes: usize,
}

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

    /// Takes room in a queue, or says at once that there is none.
    pub(super) fn reserve(
        &self,
        target: TopicPartition,
        topic: &Topic,
        bytes: usize,
    ) -> Result<Slot, AppendError> {
        let max = self.options.queue_bytes.min(self.options.queue_bytes_total);
        if bytes > max {
            return Err(AppendError::RequestTooLarge { size: bytes, max });
        }
        let overloaded = || {
            metrics::counter!("tidemill_append_overloaded_total").increment(1);
            AppendError::Overloaded { topic: topic.name.clone() }
        };
        // Under the lock a queue that is in the map has a task that will read what is reserved.
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let mut queue = queues.entry(target).or_insert_with(|| self.start(target, topic)).clone();
        let permit = match queue.requests.try_reserve_owned() {
            Ok(permit) => permit,
            Err(TrySendError::Full(_)) => return Err(overloaded()),
            // Its task has died, which only a panic can do; the next one starts clean.
            Err(TrySendError::Closed(_)) => {
                queue = self.start(target, topic);
                queues.insert(target, queue.clone());
                queue.requests.try_reserve_owned().map_err(|_| overloaded())?
            }
        };
        drop(queues);
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX);
        let take = |budget: Arc<Semaphore>| budget.try_acquire_many_owned(units).map_err(|_| overloaded());
        let budget = [take(queue.budget)?, take(self.budget.clone())?];
        Ok(Slot { permit, budget, bytes })
    }

    fn start(&self, target: TopicPartition, topic: &Topic) -> Queue {
        let (requests, received) = mpsc::channel(self.options.queue_requests.max(1));
        let appender =
            Appender::new(target, topic.name.clone(), self.pool.clone(), self.hub.clone(), received);
        tokio::spawn(appender.run(self.options.appender_idle, Arc::downgrade(&self.queues)));
        Queue { requests, budget: Arc::new(Semaphore::new(self.options.queue_bytes.div_ceil(UNIT))) }
    }

    #[cfg(test)]
    pub(in crate::log) fn running(&self) -> usize {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl Slot {
    pub(super) fn send(
        self,
        records: Vec<NewRecord>,
        producer: Option<ProducerSeq>,
        relaxed: bool,
    ) -> oneshot::Receiver<Result<Appended, AppendError>> {
        let (reply, answer) = oneshot::channel();
        self.permit.send(Request {
            records,
            bytes: self.bytes,
            producer,
            relaxed,
            reply,
            _budget: self.budget,
        });
        answer
    }
}
