//! One live guest and the calls into it.
//!
//! An instance owns its store while it rests. A call moves the store to a guest thread and brings it back with the
//! answer, so a call that is abandoned (its future dropped) takes the store with it: the guest runs on to its end or
//! its deadline, and the instance is left poisoned. A call that fails in wasmtime's sense (trap, deadline, memory,
//! flood) drops the store at once, on the guest thread. A guest that answers with an error keeps its instance.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use wasmtime::Store;

use super::bindings::shared::tidemill::plugin::types::Failure;
use super::bindings::{materializer, producer, sink, transform, worker};
use super::context::Context;
use super::descriptor::check_descriptor;
use super::engine::PluginEngine;
use super::error::{CallError, explain};
use super::grants::Place;
use super::guest::Guest;
use super::limits::Limits;
use super::load::{Plugin, WorldPre};
use super::log::printable;
use super::output::Contract;
use super::{
    Descriptor, Job, Message, Outcome, PluginDigest, PluginKind, Poll, Production, Refused, RowOutcome,
    Token, WorkOutcome, check_config,
};

/// Reasons given by a plugin are cut past this many characters.
const MAX_REASON: usize = 2_000;

/// A configured guest. It serves one call at a time; its calls take batches and give whole, checked answers.
pub struct Instance {
    plugin: Plugin,
    limits: Limits,
    contract: Arc<Contract>,
    descriptor: Arc<Descriptor>,
    /// None while a call runs and after one failed or was abandoned.
    live: Option<Box<Live>>,
    /// Ends the call that runs.
    stop: CancellationToken,
    memory_used: u64,
    dropped_lines: u64,
}

struct Live {
    store: Store<Guest>,
    world: World,
    _place: Places,
}

/// Of the process and of the stage.
type Places = (OwnedSemaphorePermit, Place);

enum World {
    Producer(producer::Producer),
    Transform(transform::Transform),
    Materializer(materializer::Materializer),
    Sink(sink::Sink),
    Worker(worker::Worker),
}

impl Plugin {
    /// Asks a fresh instance what it is, and checks the answer.
    ///
    /// # Errors
    ///
    /// A trap or a limit on the way, or a descriptor that cannot be used.
    pub async fn describe(&self, limits: &Limits) -> Result<Descriptor, CallError> {
        let (_, descriptor) = self.start(self.digest().short(), limits).await?;
        Ok(descriptor)
    }

    /// A fresh instance: described, its `config` checked against its schema, and configured. `label` names the stage
    /// in the host's log. Each of the guest's functions runs under `limits`.
    ///
    /// # Errors
    ///
    /// As [`Plugin::describe`], and [`CallError::Configure`] with the schema's or the plugin's words.
    pub async fn instantiate(
        &self,
        label: &str,
        config: &serde_json::Value,
        limits: &Limits,
    ) -> Result<Instance, CallError> {
        let missing = self.grants().missing(self.needs());
        if !missing.is_empty() {
            return Err(CallError::NotGranted { missing });
        }
        let (live, descriptor) = self.start(label, limits).await?;
        check_config(&descriptor, config).map_err(|problems| CallError::Configure(problems.join("; ")))?;
        let mut instance = Instance {
            plugin: self.clone(),
            limits: limits.clone(),
            contract: Arc::new(Contract::new(&descriptor, limits)),
            descriptor: Arc::new(descriptor),
            memory_used: 0,
            dropped_lines: 0,
            live: Some(live),
            stop: CancellationToken::new(),
        };
        instance.configure(config).await?;
        Ok(instance)
    }

    async fn start(&self, label: &str, limits: &Limits) -> Result<(Box<Live>, Descriptor), CallError> {
        let place = (self.engine().admit()?, self.grants().admit(limits.instances)?);
        let plugin = self.clone();
        let limits = limits.clone();
        let store = Guest::store(self.engine().wasmtime(), label, &limits, self.grants());
        self.engine().run(async move { plugin.start_here(store, place, limits.deadline).await }).await?
    }

    /// The part of [`Plugin::start`] that runs on a guest thread.
    async fn start_here(
        &self,
        mut store: Store<Guest>,
        place: Places,
        deadline: Duration,
    ) -> Result<(Box<Live>, Descriptor), CallError> {
        store.set_epoch_deadline(1);
        let never = CancellationToken::new();
        let world = within(deadline, &never, self.world().instantiate(&mut store)).await;
        let world = world.map_err(|failure| failure.explain(&store))?;
        let mut live = Box::new(Live { store, world, _place: place });
        let described = live.call(deadline, &never, |live| Box::pin(live.describe())).await?;
        check_descriptor(&described, self.kind())
            .map_err(|problems| CallError::BadDescriptor { problems })?;
        Ok((live, described))
    }
}

impl Instance {
    /// Asks a producer for its next records.
    ///
    /// # Errors
    ///
    /// The plugin's own failure, a limit, or an answer outside its descriptor; see [`CallError`].
    pub async fn produce(&mut self, poll: Poll) -> Result<Production, CallError> {
        let max_records = poll.max_records;
        self.ask(
            "produce",
            move |live| {
                Box::pin(async move {
                    let World::Producer(world) = &live.world else {
                        return Ok(None);
                    };
                    let guest = world.tidemill_plugin_producing();
                    guest.call_produce(&mut live.store, &poll).await.map(Some)
                })
            },
            move |contract, production| contract.check_production(production, max_records),
        )
        .await
    }

    /// Gives a transform a batch. The caller may keep the other half of the `Arc`, for dead letters or a second try.
    ///
    /// # Errors
    ///
    /// As [`Instance::produce`].
    pub async fn process(&mut self, batch: impl Into<Arc<Vec<Message>>>) -> Result<Outcome, CallError> {
        let batch = batch.into();
        let inputs = batch.len();
        self.ask(
            "process",
            move |live| {
                Box::pin(async move {
                    let World::Transform(world) = &live.world else {
                        return Ok(None);
                    };
                    let guest = world.tidemill_plugin_transforming();
                    guest.call_process(&mut live.store, &batch).await.map(Some)
                })
            },
            move |contract, outcome| contract.check_outcome(outcome, inputs),
        )
        .await
    }

    /// Gives a materializer a batch.
    ///
    /// # Errors
    ///
    /// As [`Instance::produce`].
    pub async fn materialize(
        &mut self,
        batch: impl Into<Arc<Vec<Message>>>,
    ) -> Result<RowOutcome, CallError> {
        let batch = batch.into();
        let inputs = batch.len();
        self.ask(
            "materialize",
            move |live| {
                Box::pin(async move {
                    let World::Materializer(world) = &live.world else {
                        return Ok(None);
                    };
                    let guest = world.tidemill_plugin_materializing();
                    let answer = guest.call_materialize(&mut live.store, &batch);
                    answer.await.map(Some)
                })
            },
            move |contract, outcome| contract.check_rows(outcome, inputs),
        )
        .await
    }

    /// Gives a sink a batch under a token that is the same whenever the same messages come again.
    ///
    /// # Errors
    ///
    /// As [`Instance::produce`].
    pub async fn deliver(
        &mut self,
        token: Token,
        batch: impl Into<Arc<Vec<Message>>>,
    ) -> Result<Vec<Refused>, CallError> {
        let batch = batch.into();
        let inputs = batch.len();
        self.ask(
            "deliver",
            move |live| {
                Box::pin(async move {
                    let World::Sink(world) = &live.world else {
                        return Ok(None);
                    };
                    let guest = world.tidemill_plugin_delivering();
                    let answer = guest.call_deliver(&mut live.store, &token, &batch);
                    answer.await.map(Some)
                })
            },
            move |contract, refusals| contract.check_refusals(refusals, inputs),
        )
        .await
    }

    /// Gives a worker jobs. The answer has a verdict for each of them, and each of its emissions names its job.
    ///
    /// # Errors
    ///
    /// As [`Instance::produce`].
    pub async fn work(&mut self, batch: impl Into<Arc<Vec<Job>>>) -> Result<WorkOutcome, CallError> {
        let batch = batch.into();
        let jobs = batch.len();
        self.ask(
            "work",
            move |live| {
                Box::pin(async move {
                    let World::Worker(world) = &live.world else {
                        return Ok(None);
                    };
                    let guest = world.tidemill_plugin_working();
                    guest.call_work(&mut live.store, &batch).await.map(Some)
                })
            },
            move |contract, outcome| contract.check_work(outcome, jobs),
        )
        .await
    }

    /// As [`Instance::work`], but ends the guest as soon as `stop` is cancelled: [`CallError::Interrupted`].
    ///
    /// # Errors
    ///
    /// As [`Instance::produce`].
    pub async fn work_until(
        &mut self,
        batch: impl Into<Arc<Vec<Job>>>,
        stop: &CancellationToken,
    ) -> Result<WorkOutcome, CallError> {
        self.stop = stop.clone();
        let answer = self.work(batch).await;
        self.stop = CancellationToken::new();
        answer
    }

    /// Says what the next calls see of time, chance and state. Without it they see none.
    pub fn set_context(&mut self, context: Context) {
        if let Some(live) = &mut self.live {
            live.store.data_mut().set_context(context);
        }
    }

    /// Whether a call failed in a way that ended the guest, or was abandoned. Every further call then fails with
    /// [`CallError::Poisoned`].
    pub fn poisoned(&self) -> bool {
        self.live.is_none()
    }

    /// Bytes of all memories and tables after the last call. They never shrink during the life of an instance.
    pub fn memory_used(&self) -> u64 {
        self.memory_used
    }

    /// Lines that the guest printed beyond what the host's log takes.
    pub fn dropped_log_lines(&self) -> u64 {
        self.dropped_lines
    }

    /// What the plugin said it is.
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// The code that really runs.
    pub fn digest(&self) -> &PluginDigest {
        self.plugin.digest()
    }

    /// The kind of its plugin.
    pub fn kind(&self) -> PluginKind {
        self.plugin.kind()
    }

    async fn configure(&mut self, config: &serde_json::Value) -> Result<(), CallError> {
        let config = if config.is_null() { "{}".to_owned() } else { config.to_string() };
        let configured = self
            .call(
                move |live| Box::pin(async move { live.configure(&config).await }),
                |_, configured| Ok(configured),
            )
            .await?;
        configured.map_err(|words| CallError::Configure(printable(&words, MAX_REASON)))
    }

    /// A call to the working function of a kind. The guest's answer is None if the instance is of another kind.
    async fn ask<T, C>(
        &mut self,
        function: &'static str,
        call: impl for<'a> FnOnce(&'a mut Live) -> Call<'a, Option<Result<T, Failure>>> + Send + 'static,
        check: C,
    ) -> Result<T, CallError>
    where
        T: Send + 'static,
        C: FnOnce(&Contract, T) -> Result<T, CallError> + Send + 'static,
    {
        let kind = self.kind();
        self.call(call, move |contract, answer| match answer {
            None => Err(CallError::WrongKind { kind, function }),
            Some(Err(failure)) => Err(failure.into()),
            Some(Ok(answer)) => check(contract, answer),
        })
        .await
    }

    /// Runs `call` and then `check` on a guest thread; see the head of this file for what happens to the store.
    async fn call<T: Send + 'static, U: Send + 'static>(
        &mut self,
        call: impl for<'a> FnOnce(&'a mut Live) -> Call<'a, T> + Send + 'static,
        check: impl FnOnce(&Contract, T) -> Result<U, CallError> + Send + 'static,
    ) -> Result<U, CallError> {
        let mut live = self.live.take().ok_or(CallError::Poisoned)?;
        let deadline = self.limits.deadline;
        let contract = Arc::clone(&self.contract);
        let stop = self.stop.clone();
        let run = async move {
            let answer = live.call(deadline, &stop, call).await?;
            Ok::<_, CallError>((check(&contract, answer), live))
        };
        let engine: &PluginEngine = self.plugin.engine();
        let (answer, live) = engine.run(run).await??;
        let guest = live.store.data();
        self.memory_used = guest.ledger().used();
        self.dropped_lines = guest.dropped_lines();
        self.live = Some(live);
        answer
    }
}

/// Every world exports the same `lifecycle`, but each as a type of its own.
macro_rules! with_lifecycle {
    ($world:expr, $guest:ident => $call:expr) => {
        match $world {
            World::Producer(world) => {
                let $guest = world.tidemill_plugin_lifecycle();
                $call
            }
            World::Transform(world) => {
                let $guest = world.tidemill_plugin_lifecycle();
                $call
            }
            World::Materializer(world) => {
                let $guest = world.tidemill_plugin_lifecycle();
                $call
            }
            World::Sink(world) => {
                let $guest = world.tidemill_plugin_lifecycle();
                $call
            }
            World::Worker(world) => {
                let $guest = world.tidemill_plugin_lifecycle();
                $call
            }
        }
    };
}

/// A call under way inside wasmtime.
type Call<'a, T> = BoxFuture<'a, wasmtime::Result<T>>;

impl Live {
    /// One call under its deadline. After an error the store must not be entered again.
    async fn call<T>(
        &mut self,
        deadline: Duration,
        stop: &CancellationToken,
        call: impl for<'a> FnOnce(&'a mut Self) -> Call<'a, T>,
    ) -> Result<T, CallError> {
        self.store.data_mut().begin_call(deadline);
        self.store.set_epoch_deadline(1);
        let answer = within(deadline, stop, call(self)).await;
        answer.map_err(|failure| failure.explain(&self.store))
    }

    async fn describe(&mut self) -> wasmtime::Result<Descriptor> {
        let store = &mut self.store;
        with_lifecycle!(&self.world, guest => guest.call_describe(store).await)
    }

    async fn configure(&mut self, config: &str) -> wasmtime::Result<Result<(), String>> {
        let store = &mut self.store;
        with_lifecycle!(&self.world, guest => guest.call_configure(store, config).await)
    }
}

impl WorldPre {
    async fn instantiate(&self, store: &mut Store<Guest>) -> wasmtime::Result<World> {
        Ok(match self {
            Self::Producer(pre) => World::Producer(pre.instantiate_async(store).await?),
            Self::Transform(pre) => World::Transform(pre.instantiate_async(store).await?),
            Self::Materializer(pre) => World::Materializer(pre.instantiate_async(store).await?),
            Self::Sink(pre) => World::Sink(pre.instantiate_async(store).await?),
            Self::Worker(pre) => World::Worker(pre.instantiate_async(store).await?),
        })
    }
}

/// How a call ended without an answer.
enum Ended {
    Late(Duration),
    Stopped,
    Failed(wasmtime::Error),
}

impl Ended {
    fn explain(self, store: &Store<Guest>) -> CallError {
        match self {
            Self::Late(after) => CallError::Deadline { after },
            Self::Stopped => CallError::Interrupted,
            Self::Failed(error) => explain(&error, store.data()),
        }
    }
}

/// The timer fires and the stop is seen only when the guest gives way, which it does at every tick of the epoch.
async fn within<T>(
    deadline: Duration,
    stop: &CancellationToken,
    call: impl Future<Output = wasmtime::Result<T>>,
) -> Result<T, Ended> {
    tokio::select! {
        answer = tokio::time::timeout(deadline, call) => match answer {
            Ok(answer) => answer.map_err(Ended::Failed),
            Err(_) => Err(Ended::Late(deadline)),
        },
        () = stop.cancelled() => Err(Ended::Stopped),
    }
}

impl From<Failure> for CallError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Retry(hint) => Self::Retry {
                reason: printable(&hint.reason, MAX_REASON),
                after: hint.after.map(Duration::from_micros),
            },
            Failure::Fatal(reason) => Self::Fatal(printable(&reason, MAX_REASON)),
        }
    }
}
