//! The HTTP API, versioned under `/v1`, and the embedded web page.
//!
//! Guarantee: every request is checked for whom it is meant for and where it comes from ([`guard`]), every error has one
//! shape ([`error`]), and nothing is held without a bound: bodies ([`body`]), connections and stalled writes
//! ([`server`]), streams ([`reading`], [`sse`]). A stream pulls from the log by its own cursor with one batch in hand, so
//! a slow client costs nothing but its place.
//!
//! Reading order: [`routes`] names every route; each route's module has its handler.

mod body;
mod encode;
mod error;
mod groups;
mod guard;
mod letters;
mod metrics;
mod openapi;
mod params;
mod path;
mod plugins;
pub mod produce;
mod query;
mod queues;
mod rates;
mod reading;
mod records;
mod routes;
mod segments;
mod server;
mod sse;
mod start;
mod status;
mod stream;
mod tables;
mod topics;
mod web;

#[cfg(test)]
mod tests;

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::ids::{HostId, Micros};
use crate::letters::Letters;
use crate::log::Log;
use crate::log::offsets::Groups;
use crate::pg::durability::Durability;
use crate::pipeline::runtime::Runtime;
use crate::query::Queries;
use crate::queue::Queues;
use crate::replay::Replay;
use crate::tables::Tables;
use body::BodyBudget;
use guard::Guard;
use rates::Rates;
use sse::Streams;
use status::StatusCache;

/// What the host was started with, as far as the API shows or needs it.
#[derive(Clone, Debug)]
pub struct ApiSettings {
    pub url: String,
    /// Without a password: anyone who may ask for the status sees it.
    pub postgres_url: String,
    pub data_dir: PathBuf,
    pub host: HostId,
    pub durability: Durability,
    /// What clients must send as `Authorization: Bearer`.
    pub token: Option<String>,
    /// Names by which browsers may address the host, beside loopback and the bound address; an entry that starts with
    /// `http` is an origin whose pages may send requests.
    pub allowed_hosts: Vec<String>,
}

/// What handlers work with. Cheap to clone.
#[derive(Clone)]
pub struct ApiState {
    pub log: Log,
    pub replay: Replay,
    pub groups: Groups,
    pub tables: Tables,
    pub runtime: Runtime,
    pub queries: Queries,
    pub settings: Arc<ApiSettings>,
    ready: Ready,
    started: Instant,
    started_at: Micros,
    bodies: BodyBudget,
    streams: Streams,
    rates: Rates,
    status: StatusCache,
    shutdown: CancellationToken,
}

/// Whether pipelines have started. Set once, by whoever starts them.
#[derive(Clone, Debug, Default)]
pub struct Ready(Arc<AtomicBool>);

impl Ready {
    pub fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl ApiState {
    pub fn new(
        log: Log,
        replay: Replay,
        groups: Groups,
        tables: Tables,
        runtime: Runtime,
        queries: Queries,
        settings: ApiSettings,
    ) -> Self {
        metrics::start();
        let started_at = log.clock().now();
        Self {
            log,
            replay,
            groups,
            tables,
            runtime,
            queries,
            settings: Arc::new(settings),
            ready: Ready::default(),
            started: Instant::now(),
            started_at,
            bodies: BodyBudget::default(),
            streams: Streams::default(),
            rates: Rates::default(),
            status: StatusCache::default(),
            shutdown: CancellationToken::new(),
        }
    }

    fn queues(&self) -> &Queues {
        &self.runtime.services().queues
    }

    fn letters(&self) -> &Letters {
        &self.runtime.services().letters
    }

    /// The switch behind `/readyz`.
    pub fn ready(&self) -> Ready {
        self.ready.clone()
    }
}

/// Serves the API and the web page until `shutdown` is cancelled; streams end then, other requests get a short grace.
pub fn serve(
    state: ApiState,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> impl Future<Output = io::Result<()>> + Send + 'static {
    let state = ApiState { shutdown: shutdown.clone(), ..state };
    async move {
        let settings = &state.settings;
        let guard = Guard::new(listener.local_addr()?, &settings.allowed_hosts, settings.token.as_deref());
        let app = routes::router(state.clone(), guard);
        let sampling = rates::sample(state, shutdown.clone());
        let serving = server::serve(app, listener, shutdown);
        let (served, ()) = tokio::join!(serving, sampling);
        served
    }
}
