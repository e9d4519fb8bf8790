//! The one compiler and the one set of guest threads of a process.
//!
//! Guests run on a tokio runtime of their own: a call moves the store there and the caller, on the main runtime, only
//! waits for its end, so that a busy guest never stands before I/O, heartbeats or HTTP. A ticker thread advances the
//! engine's epoch every [`TICK`]; at each tick a running guest gives way to the others and to the deadline timer.
//! (Epochs cost a guest a few per cent; counting fuel would cost two to three times as much.)
//!
//! Memory is allocated on demand, not from a pool. A pool makes instances in microseconds and bounds them all in
//! advance, but it reserves address space for the worst case of every slot (4 GiB for each memory, which fails under
//! `ulimit -v` and in small containers) and wants one size of memory, table and instance to suit a 60 kB and an 18 MB
//! guest alike. Here an instance lives for a whole stage and partition, so the 70 us that it takes (instantiated,
//! described, configured) are paid once, and memory goes back to the system when the store is dropped. What the pool
//! would bound is bounded by [`MAX_LIVE_INSTANCES`] and by each instance's
//! [`Limits::memory`](super::Limits::memory).

use std::any::Any;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use wasmtime::component::Linker;
use wasmtime::{Cache, CacheConfig, Config, Engine, EngineWeak, OptLevel};

use super::error::CallError;
use super::guest::{self, Guest};

/// How often the epoch advances: the longest a guest runs before it gives way, and the error of a deadline.
pub const TICK: Duration = Duration::from_millis(10);

/// Instances alive at once in one process. At the default limit of 64 MiB this many full ones would need 32 GiB; the
/// plan of a host stays far below, and a leak of instances ends here with a readable error.
pub const MAX_LIVE_INSTANCES: usize = 512;

/// Compilations at once. Each already uses all cores for its functions.
const COMPILE_THREADS: usize = 2;

/// The compilation cache is trimmed past this size.
const CACHE_BYTES: u64 = 1 << 30;

/// How to set up the engine.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Where compiled code is kept between runs. It is executed as it is found, so the folder is made private to its
    /// owner. None compiles anew in each process.
    pub cache_dir: Option<PathBuf>,
    /// Threads for guests.
    pub threads: usize,
}

impl Default for EngineOptions {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        Self { cache_dir: None, threads: cores }
    }
}

/// Why the engine could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The compilation cache's folder is not usable.
    #[error("cannot use {} as the folder for compiled plugins: {reason}", .dir.display())]
    Cache {
        /// The folder.
        dir: PathBuf,
        /// What the system or the cache said.
        reason: String,
    },
    /// A thread could not be started.
    #[error("cannot start the plugin threads: {0}")]
    Threads(#[from] std::io::Error),
    /// This machine or build does not suit wasmtime.
    #[error("cannot set up the WebAssembly engine: {0}")]
    Wasmtime(String),
}

/// Compiles, checks and runs plugins. Clones are handles to one engine; it ends with the last handle, plugin and
/// instance.
#[derive(Clone)]
pub struct PluginEngine {
    shared: Arc<Shared>,
}

struct Shared {
    wasmtime: Engine,
    linker: Linker<Guest>,
    guests: GuestThreads,
    live: Arc<Semaphore>,
}

impl PluginEngine {
    /// Starts the guest threads and the ticker.
    ///
    /// # Errors
    ///
    /// If the cache folder cannot be made, no thread can be started, or wasmtime does not support the machine.
    pub fn new(options: EngineOptions) -> Result<Self, EngineError> {
        let wasmtime = Engine::new(&config(options.cache_dir.as_deref())?)
            .map_err(|error| EngineError::Wasmtime(format!("{error:#}")))?;
        let linker = guest::linker(&wasmtime).map_err(|error| EngineError::Wasmtime(format!("{error:#}")))?;
        let guests = GuestThreads::start(options.threads.max(1))?;
        start_ticker(wasmtime.weak())?;
        Ok(Self {
            shared: Arc::new(Shared {
                wasmtime,
                linker,
                guests,
                live: Arc::new(Semaphore::new(MAX_LIVE_INSTANCES)),
            }),
        })
    }

    /// Instances alive now, calls that nobody waits for included.
    pub fn live_instances(&self) -> usize {
        MAX_LIVE_INSTANCES - self.shared.live.available_permits()
    }

    pub(super) fn wasmtime(&self) -> &Engine {
        &self.shared.wasmtime
    }

    pub(super) fn linker(&self) -> &Linker<Guest> {
        &self.shared.linker
    }

    /// A place among the live instances, given back when dropped.
    pub(super) fn admit(&self) -> Result<OwnedSemaphorePermit, CallError> {
        Arc::clone(&self.shared.live)
            .try_acquire_owned()
            .map_err(|_| CallError::TooManyInstances { limit: MAX_LIVE_INSTANCES })
    }

    /// Runs `call` on a guest thread, to its end, whether or not the returned future is polled or dropped.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        call: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, CallError> {
        finished(self.shared.guests.handle.spawn(call)).await
    }

    /// Runs `work` on one of the few threads for compilation.
    pub(super) async fn run_blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, CallError> {
        finished(self.shared.guests.handle.spawn_blocking(work)).await
    }
}

/// A panic in a host function ends its own task only; it is reported here, where the caller can act on it.
async fn finished<T>(task: JoinHandle<T>) -> Result<T, CallError> {
    task.await.map_err(|error| {
        let message = match error.try_into_panic() {
            Ok(panic) => format!("the host panicked: {}", panic_text(panic.as_ref())),
            Err(_) => "the plugin threads are shutting down".to_owned(),
        };
        CallError::Internal { message }
    })
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

fn config(cache_dir: Option<&Path>) -> Result<Config, EngineError> {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        // No world has async functions, and each call is cheaper without the state for them.
        .concurrency_support(false)
        .wasm_memory64(false)
        // The same input gives the same output on every machine: a replay or a second host must agree bit by bit.
        .cranelift_nan_canonicalization(true)
        .relaxed_simd_deterministic(true)
        .cranelift_opt_level(OptLevel::Speed);
    if let Some(dir) = cache_dir {
        config.cache(Some(open_cache(dir)?));
    }
    Ok(config)
}

fn open_cache(dir: &Path) -> Result<Cache, EngineError> {
    let failed = |reason: String| EngineError::Cache { dir: dir.to_owned(), reason };
    let io_failed = |error: std::io::Error| failed(error.to_string());
    std::fs::create_dir_all(dir).map_err(io_failed)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700)).map_err(io_failed)?;
    }
    let absolute = dir.canonicalize().map_err(io_failed)?;
    let mut settings = CacheConfig::new();
    settings.with_directory(absolute).with_files_total_size_soft_limit(CACHE_BYTES);
    Cache::new(settings).map_err(|error| failed(format!("{error:#}")))
}

/// The runtime that guests run on.
struct GuestThreads {
    handle: Handle,
    /// Taken out when dropped.
    runtime: Option<Runtime>,
}

impl GuestThreads {
    /// Tasks here hold their thread for up to a tick. With tokio's defaults (look at timers every 61 tasks, at new
    /// work every 31) eight spinning guests would hold back a deadline for half a second, so both are looked at
    /// nearly every time; that costs under a microsecond for a whole batch.
    fn start(threads: usize) -> std::io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads)
            .max_blocking_threads(COMPILE_THREADS)
            .event_interval(1)
            .global_queue_interval(2)
            .thread_name("guest")
            .enable_time()
            .build()?;
        Ok(Self { handle: runtime.handle().clone(), runtime: Some(runtime) })
    }
}

impl Drop for GuestThreads {
    /// Without waiting: the last handle may be dropped inside an async task, where blocking is not allowed. Guests
    /// still running end at their next tick.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A thread and not a task, since it must tick also when every runtime is busy. It ends with the engine.
fn start_ticker(engine: EngineWeak) -> std::io::Result<()> {
    let tick = move || {
        while let Some(engine) = engine.upgrade() {
            engine.increment_epoch();
            drop(engine);
            std::thread::sleep(TICK);
        }
    };
    std::thread::Builder::new().name("guest-ticker".to_owned()).spawn(tick).map(drop)
}
