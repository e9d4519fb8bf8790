//! What lives inside a store, and what its imports lead to.
//!
//! The WASI context is empty: no arguments, no environment, no open directory. `wasi:filesystem` is linked because
//! Rust's standard library does not start without it, and since there is no open directory, there is nothing to pass
//! to its functions. Sockets are not linked at all. Clocks and randomness are those of [`super::context`].

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use wasmtime::component::{HasSelf, Linker, ResourceTable};
use wasmtime::{Engine, Store};
use wasmtime_wasi::cli::{WasiCli, WasiCliView};
use wasmtime_wasi::filesystem::{WasiFilesystem, WasiFilesystemView};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView, p2};

use super::bindings::shared::Shared;
use super::bindings::shared::tidemill::plugin::{log, state, types};
use super::context::{Chance, Context, Seed, Ticker};
use super::grants::{Grant, Grants, needed_for};
use super::http::HttpClient;
use super::limits::{Ledger, Limits};
use super::log::{GuestLog, GuestStream};
use super::state::Session;
use super::wasi;
use crate::ids::Micros;

/// What the host may allocate beyond the records of an answer: list headers, log lines, streams.
const HOSTCALL_SLACK: u64 = 1 << 20;
/// What one record of an answer costs the host beside its bytes: the largest of the generated structs is smaller.
const RECORD_BYTES: u64 = 256;

/// Interfaces that components may import, without their last version number, and the version the host speaks.
const OFFERED: &[(&str, &str)] = &[
    ("tidemill:plugin/log", "0.1"),
    ("tidemill:plugin/types", "0.1"),
    ("wasi:cli/environment", "0.2"),
    ("wasi:cli/exit", "0.2"),
    ("wasi:cli/stderr", "0.2"),
    ("wasi:cli/stdin", "0.2"),
    ("wasi:cli/stdout", "0.2"),
    ("wasi:cli/terminal-input", "0.2"),
    ("wasi:cli/terminal-output", "0.2"),
    ("wasi:cli/terminal-stderr", "0.2"),
    ("wasi:cli/terminal-stdin", "0.2"),
    ("wasi:cli/terminal-stdout", "0.2"),
    ("wasi:clocks/monotonic-clock", "0.2"),
    ("wasi:clocks/wall-clock", "0.2"),
    ("wasi:filesystem/preopens", "0.2"),
    ("wasi:filesystem/types", "0.2"),
    ("wasi:io/error", "0.2"),
    ("wasi:io/poll", "0.2"),
    ("wasi:io/streams", "0.2"),
    ("wasi:random/insecure", "0.2"),
    ("wasi:random/insecure-seed", "0.2"),
    ("wasi:random/random", "0.2"),
];

/// The same for people.
pub(super) const OFFER: &str = "tidemill:plugin/log@0.1.0, by grant clock, http, metrics, random and state of the same \
                                package, and of WASI 0.2 an empty wasi:cli and wasi:filesystem, wasi:clocks, wasi:io \
                                and wasi:random";

/// Whether the host provides the import `name`, version included, to those it is granted to.
pub(super) fn offers(name: &str) -> bool {
    if needed_for(name).is_some() {
        return true;
    }
    let Some((interface, version)) = name.split_once('@') else {
        return false;
    };
    OFFERED.iter().any(|&(offered, line)| {
        let patch = version.strip_prefix(line);
        offered == interface && patch.is_some_and(|patch| patch.starts_with('.'))
    })
}

/// Fills a linker with everything in [`OFFERED`].
pub(super) fn linker(engine: &Engine) -> wasmtime::Result<Linker<Guest>> {
    use p2::bindings::{cli, filesystem};

    let mut linker = Linker::new(engine);
    let l = &mut linker;
    Shared::add_to_linker::<_, HasSelf<Guest>>(l, |guest| guest)?;
    // io, the three standard streams, and clocks and randomness, which are replaced.
    p2::add_to_linker_proxy_interfaces_async(l)?;
    l.allow_shadowing(true);
    wasi::add_to_linker(l)?;
    l.allow_shadowing(false);
    cli::environment::add_to_linker::<Guest, WasiCli>(l, Guest::cli)?;
    cli::exit::add_to_linker::<Guest, WasiCli>(l, Guest::cli)?;
    cli::terminal_input::add_to_linker::<Guest, WasiCli>(l, Guest::cli)?;
    cli::terminal_output::add_to_linker::<Guest, WasiCli>(l, Guest::cli)?;
    cli::terminal_stdin::add_to_linker::<Guest, WasiCli>(l, Guest::cli)?;
    cli::terminal_stdout::add_to_linker::<Guest, WasiCli>(l, Guest::cli)?;
    cli::terminal_stderr::add_to_linker::<Guest, WasiCli>(l, Guest::cli)?;
    filesystem::types::add_to_linker::<Guest, WasiFilesystem>(l, Guest::filesystem)?;
    filesystem::preopens::add_to_linker::<Guest, WasiFilesystem>(l, Guest::filesystem)?;
    Ok(linker)
}

/// The host's side of one instance.
pub(super) struct Guest {
    pub(super) label: String,
    pub(super) grants: Grants,
    pub(super) table: ResourceTable,
    pub(super) ticker: Ticker,
    pub(super) chance: Chance,
    /// Requests of the current call.
    pub(super) requests: u32,
    wasi: WasiCtx,
    ledger: Ledger,
    log: GuestLog,
    output_bytes: u64,
    context: Context,
    /// Whether it has begun to work, after it was described and configured.
    working: bool,
    remarked: bool,
    /// When the current call ends at the latest.
    ends: Instant,
}

impl Guest {
    /// A store for one instance: bounded, interruptible, with nothing of the outside in it but what is granted.
    pub(super) fn store(engine: &Engine, label: &str, limits: &Limits, grants: &Grants) -> Store<Self> {
        let log = GuestLog::new(label, limits.log_lines, std::time::Instant::now());
        let wasi =
            WasiCtx::builder().stdout(GuestStream::stdout(&log)).stderr(GuestStream::stderr(&log)).build();
        let handles = limits.handles as usize;
        let mut table = ResourceTable::new();
        table.set_max_capacity(handles);
        let guest = Self {
            label: label.to_owned(),
            grants: grants.clone(),
            table,
            ticker: Ticker::default(),
            chance: Chance::default(),
            requests: 0,
            wasi,
            ledger: Ledger::new(limits.memory),
            log,
            output_bytes: limits.output_bytes,
            context: Context::default(),
            working: false,
            remarked: false,
            ends: Instant::now(),
        };
        let mut store = Store::new(engine, guest);
        store.limiter(|guest| &mut guest.ledger);
        store.epoch_deadline_async_yield_and_update(1);
        store.set_max_component_handles(handles);
        store.set_hostcall_fuel(hostcall_fuel(limits));
        store
    }

    /// What the next calls see of time, chance and state.
    pub(super) fn set_context(&mut self, context: Context) {
        self.chance =
            Chance::new(if self.grants.has(Grant::Random) { context.seed } else { Seed::default() });
        self.context = context;
        self.working = true;
    }

    /// Starts a new call: earlier refusals and last words are not its own.
    pub(super) fn begin_call(&mut self, deadline: Duration) {
        self.ledger.begin_call();
        self.log.begin_call();
        self.requests = 0;
        self.ends = Instant::now() + deadline;
    }

    /// What is left of the current call.
    pub(super) fn left(&self) -> Duration {
        self.ends.saturating_duration_since(Instant::now())
    }

    /// The time of the call, if it is granted; else zero.
    pub(super) fn now(&mut self) -> Micros {
        if self.grants.has(Grant::Clock) { self.context.now } else { self.remark(Grant::Clock, 0) }
    }

    /// The state of the call, if it is granted and there is any.
    pub(super) fn state(&self) -> Result<Arc<Session>, state::Error> {
        let session = self.context.state.as_ref().filter(|_| self.grants.has(Grant::State));
        session.cloned().ok_or_else(|| state::Error::Unavailable("there is no state in this call".to_owned()))
    }

    /// The client, if it is granted and the guest works: nobody is asked while it is only looked at.
    pub(super) fn http(&self) -> Option<HttpClient> {
        self.grants.http().filter(|_| self.working).cloned()
    }

    /// A guest that asks WASI for what is not granted gets a constant. That may be its toolchain's doing; should its author
    /// wonder, the log says so, once.
    pub(super) fn remark<T>(&mut self, grant: Grant, constant: T) -> T {
        if self.working && !self.remarked {
            self.remarked = true;
            self.log.remark(&format!(
                "the plugin asked for what `{grant}` would give and gets the same each time; add \"{grant}\" to the \
                 stage's `grants` if it should not"
            ));
        }
        constant
    }

    pub(super) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    pub(super) fn output_bytes(&self) -> u64 {
        self.output_bytes
    }

    pub(super) fn last_words(&self) -> String {
        self.log.last_words()
    }

    pub(super) fn dropped_lines(&self) -> u64 {
        self.log.dropped_ever()
    }
}

/// The bytes that wasmtime may allocate for what it copies out of the guest in one go. Without this bound a guest
/// could return a list whose items all point to the same memory, and so make the host allocate many times the
/// guest's own limit. With the default limits it is 58 MiB: rows of many small values (32 bytes each, here) reach it
/// before they reach `output_bytes`, but only in answers far larger than a batch makes.
fn hostcall_fuel(limits: &Limits) -> usize {
    let records = u64::from(limits.output_records).saturating_mul(RECORD_BYTES);
    let fuel = limits.output_bytes.saturating_add(records).saturating_add(HOSTCALL_SLACK);
    usize::try_from(fuel).unwrap_or(usize::MAX)
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl types::Host for Guest {}

impl log::Host for Guest {
    fn write(&mut self, level: log::Level, message: String) {
        self.log.write(level, &message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_import_is_offered_by_interface_and_version_line() {
        assert!(offers("wasi:io/streams@0.2.0"));
        assert!(offers("wasi:io/streams@0.2.12"));
        assert!(offers("tidemill:plugin/log@0.1.0"));
        assert!(!offers("tidemill:plugin/log@0.2.0"));
        assert!(!offers("wasi:io/streams@0.20.0"));
        assert!(!offers("wasi:io/streams"));
        assert!(!offers("wasi:sockets/tcp@0.2.0"));
        assert!(!offers("wasi:http/outgoing-handler@0.2.0"));
    }
}
