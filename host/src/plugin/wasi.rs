//! The clocks and the randomness of WASI, which toolchains need to start: the same as the imports `clock` and `random` where
//! those are granted, and else time that stands at zero and chance that is always the same.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use wasmtime::component::{HasSelf, Linker, Resource};
use wasmtime_wasi::async_trait;
use wasmtime_wasi::p2::bindings::clocks::{monotonic_clock, wall_clock};
use wasmtime_wasi::p2::bindings::random::{insecure, insecure_seed, random};
use wasmtime_wasi::p2::{DynPollable, Pollable, subscribe};

use super::context::Ticker;
use super::grants::Grant;
use super::guest::Guest;

/// Random bytes that a guest may take at once.
pub(super) const MAX_RANDOM_BYTES: u64 = 64 << 10;

pub(super) fn add_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    wall_clock::add_to_linker::<Guest, HasSelf<Guest>>(linker, |guest| guest)?;
    monotonic_clock::add_to_linker::<Guest, HasSelf<Guest>>(linker, |guest| guest)?;
    random::add_to_linker::<Guest, HasSelf<Guest>>(linker, |guest| guest)?;
    insecure::add_to_linker::<Guest, HasSelf<Guest>>(linker, |guest| guest)?;
    insecure_seed::add_to_linker::<Guest, HasSelf<Guest>>(linker, |guest| guest)
}

impl wall_clock::Host for Guest {
    fn now(&mut self) -> wasmtime::Result<wall_clock::Datetime> {
        let now = u64::try_from(self.now()).unwrap_or(0);
        // Below a million microseconds, times a thousand: fits.
        let nanoseconds = (now % 1_000_000) as u32 * 1_000;
        Ok(wall_clock::Datetime { seconds: now / 1_000_000, nanoseconds })
    }

    fn resolution(&mut self) -> wasmtime::Result<wall_clock::Datetime> {
        Ok(wall_clock::Datetime { seconds: 0, nanoseconds: 1_000 })
    }
}

impl monotonic_clock::Host for Guest {
    fn now(&mut self) -> wasmtime::Result<u64> {
        Ok(self.ticker.look())
    }

    fn resolution(&mut self) -> wasmtime::Result<u64> {
        Ok(1_000)
    }

    fn subscribe_instant(&mut self, when: u64) -> wasmtime::Result<Resource<DynPollable>> {
        let nanos = self.ticker.until(when);
        monotonic_clock::Host::subscribe_duration(self, nanos)
    }

    fn subscribe_duration(&mut self, nanos: u64) -> wasmtime::Result<Resource<DynPollable>> {
        let real = Instant::now().checked_add(Duration::from_nanos(nanos));
        let alarm = Alarm { ticker: self.ticker.clone(), at: self.ticker.after(nanos), real };
        let alarm = self.table.push(alarm)?;
        subscribe(&mut self.table, alarm)
    }
}

/// The end of a sleep: waits as long as the guest asked, and lets it see that this much time has passed.
struct Alarm {
    ticker: Ticker,
    at: u64,
    /// None is after the end of time.
    real: Option<Instant>,
}

#[async_trait]
impl Pollable for Alarm {
    async fn ready(&mut self) {
        match self.real {
            Some(real) => sleep_until(real).await,
            None => std::future::pending().await,
        }
        self.ticker.reached(self.at);
    }
}

impl Guest {
    fn random_bytes(&mut self, count: u64) -> wasmtime::Result<Vec<u8>> {
        if !self.grants.has(Grant::Random) {
            self.remark(Grant::Random, ());
        }
        match usize::try_from(count) {
            Ok(count) if count as u64 <= MAX_RANDOM_BYTES => Ok(self.chance.bytes(count)),
            _ => wasmtime::bail!("{count} random bytes at once, allowed are {MAX_RANDOM_BYTES}"),
        }
    }
}

impl random::Host for Guest {
    fn get_random_bytes(&mut self, count: u64) -> wasmtime::Result<Vec<u8>> {
        self.random_bytes(count)
    }

    fn get_random_u64(&mut self) -> wasmtime::Result<u64> {
        Ok(self.chance.number())
    }
}

impl insecure::Host for Guest {
    fn get_insecure_random_bytes(&mut self, count: u64) -> wasmtime::Result<Vec<u8>> {
        self.random_bytes(count)
    }

    fn get_insecure_random_u64(&mut self) -> wasmtime::Result<u64> {
        Ok(self.chance.number())
    }
}

/// Seeds hash maps, whose order must be the same in every instance.
impl insecure_seed::Host for Guest {
    fn insecure_seed(&mut self) -> wasmtime::Result<(u64, u64)> {
        Ok((0x7469_6465, 0x6d69_6c6c))
    }
}
