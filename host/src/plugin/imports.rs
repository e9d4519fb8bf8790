//! What the imports of `wit/0.1.0/imports.wit` lead to. A component that imports one that its stage does not grant is not
//! started (see `grants`); should one get here all the same, there is nothing behind it.

use super::bindings::shared::tidemill::plugin::{clock, http, metrics, random, state};
use super::grants::Grant;
use super::guest::Guest;
use super::wasi::MAX_RANDOM_BYTES;

/// The most that `http.requests` can be set to.
const MAX_REQUESTS: usize = 10_000;

impl clock::Host for Guest {
    fn now(&mut self) -> i64 {
        self.now()
    }
}

impl random::Host for Guest {
    fn bytes(&mut self, count: u32) -> wasmtime::Result<Vec<u8>> {
        if u64::from(count) > MAX_RANDOM_BYTES {
            wasmtime::bail!("{count} random bytes at once, allowed are {MAX_RANDOM_BYTES}");
        }
        Ok(self.chance.bytes(count as usize))
    }

    fn number(&mut self) -> wasmtime::Result<u64> {
        Ok(self.chance.number())
    }
}

impl state::Host for Guest {
    async fn get(&mut self, keys: Vec<Vec<u8>>) -> Result<Vec<Option<Vec<u8>>>, state::Error> {
        self.state()?.get(keys).await
    }

    async fn set(&mut self, writes: Vec<state::Write>) -> Result<(), state::Error> {
        self.state()?.set(writes).await
    }

    async fn delete(&mut self, keys: Vec<Vec<u8>>) -> Result<(), state::Error> {
        self.state()?.delete(keys).await
    }

    async fn scan(
        &mut self,
        prefix: Vec<u8>,
        after: Option<Vec<u8>>,
        limit: u32,
    ) -> Result<Vec<state::Entry>, state::Error> {
        self.state()?.scan(prefix, after, limit).await
    }
}

type Answer = Result<http::Response, http::Error>;

impl http::Host for Guest {
    async fn send(&mut self, request: http::Request) -> wasmtime::Result<Answer> {
        let answers = self.exchange(vec![request]).await;
        Ok(answers.into_iter().next().unwrap_or(Err(http::Error::Timeout)))
    }

    async fn send_many(&mut self, requests: Vec<http::Request>) -> wasmtime::Result<Vec<Answer>> {
        // Far more than any stage may send: the answers alone would fill the host's memory.
        if requests.len() > MAX_REQUESTS {
            wasmtime::bail!("{} requests at once, allowed are {MAX_REQUESTS}", requests.len());
        }
        Ok(self.exchange(requests).await)
    }
}

impl Guest {
    async fn exchange(&mut self, requests: Vec<http::Request>) -> Vec<Answer> {
        let Some(client) = self.http() else {
            let refused = || http::Error::Denied("there is no network in this call".to_owned());
            return requests.iter().map(|_| Err(refused())).collect();
        };
        let left = self.left();
        client.exchange(requests, left, &mut self.requests).await
    }
}

impl metrics::Host for Guest {
    fn add(&mut self, name: String, amount: u64) {
        if self.grants.has(Grant::Metrics) {
            self.grants.meter().add(&self.label, &name, amount);
        }
    }

    fn set(&mut self, name: String, value: f64) {
        if self.grants.has(Grant::Metrics) {
            self.grants.meter().set(&self.label, &name, value);
        }
    }
}
