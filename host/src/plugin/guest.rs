//! What lives inside a store, and what its imports lead to.
//!
//! The WASI context is empty: no arguments, no environment, no open directory. `wasi:filesystem` is linked because
//! Rust's standard library does not start without it, and since there is no open directory, there is nothing to pass
//! to its functions. Sockets are not linked at all. Clocks and randomness are the system's.

use std::time::Instant;

use wasmtime::component::{HasSelf, Linker, ResourceTable};
use wasmtime::{Engine, Store};
use wasmtime_wasi::cli::{WasiCli, WasiCliView};
use wasmtime_wasi::filesystem::{WasiFilesystem, WasiFilesystemView};
use wasmtime_wasi::random::WasiRandom;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView, p2};

use super::bindings::shared::Shared;
use super::bindings::shared::tidemill::plugin::{log, types};
use super::limits::{Ledger, Limits};
use super::log::{GuestLog, GuestStream};

/// Handles that a guest may hold, in the host's table and in its own.
const MAX_HANDLES: usize = 1_000;
/// Random bytes that a guest may take in one call.
const MAX_RANDOM_BYTES: u64 = 64 << 10;
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
pub(super) const OFFER: &str = "tidemill:plugin/log@0.1.0, and of WASI 0.2 an empty wasi:cli and wasi:filesystem, \
                                wasi:clocks, wasi:io and wasi:random";

/// Whether the host provides the import `name`, version included.
pub(super) fn offers(name: &str) -> bool {
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
    use p2::bindings::{cli, filesystem, random};

    let mut linker = Linker::new(engine);
    let l = &mut linker;
    Shared::add_to_linker::<_, HasSelf<Guest>>(l, |guest| guest)?;
    // io, clocks, secure randomness and the three standard streams.
    p2::add_to_linker_proxy_interfaces_async(l)?;
    random::insecure::add_to_linker::<Guest, WasiRandom>(l, |guest| guest.wasi.random())?;
    random::insecure_seed::add_to_linker::<Guest, WasiRandom>(l, |guest| guest.wasi.random())?;
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
    wasi: WasiCtx,
    table: ResourceTable,
    ledger: Ledger,
    log: GuestLog,
    output_bytes: u64,
}

impl Guest {
    /// A store for one instance: bounded, interruptible, with nothing of the outside in it.
    pub(super) fn store(engine: &Engine, label: &str, limits: &Limits) -> Store<Self> {
        let log = GuestLog::new(label, Instant::now());
        let wasi = WasiCtx::builder()
            .stdout(GuestStream::stdout(&log))
            .stderr(GuestStream::stderr(&log))
            .max_random_size(MAX_RANDOM_BYTES)
            .build();
        let mut table = ResourceTable::new();
        table.set_max_capacity(MAX_HANDLES);
        let guest =
            Self { wasi, table, ledger: Ledger::new(limits.memory), log, output_bytes: limits.output_bytes };
        let mut store = Store::new(engine, guest);
        store.limiter(|guest| &mut guest.ledger);
        store.epoch_deadline_async_yield_and_update(1);
        store.set_max_component_handles(MAX_HANDLES);
        store.set_hostcall_fuel(hostcall_fuel(limits));
        store
    }

    /// Starts a new call: earlier refusals and last words are not its own.
    pub(super) fn begin_call(&mut self) {
        self.ledger.begin_call();
        self.log.begin_call();
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
