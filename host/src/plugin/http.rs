//! The client behind the import `http`: requests of a guest to the origins that its stage allows, and to nothing else.
//!
//! Guarantee: a connection is opened only for a URL that an allowed origin covers ([`Origin::covers`]), and only to an
//! address that was checked and is the one connected to: names are resolved here, once for each connection ([`resolve`]),
//! addresses that are not for plugins ([`address`]) are left out, redirects are not followed, and no proxy is asked.
//! An address written in the URL is allowed only as it stands in `allow`, which is a decision of the pipeline's author.
//! Bounds: size of bodies and headers, time, exchanges at a time in the stage, requests in one call.
//! Failure: always an answer to the guest, in the words of the interface; secrets of the stage are not in it.

mod address;
mod exchange;
mod resolve;

use std::sync::Arc;
use std::time::Duration;

use reqwest::Client;
use reqwest::redirect::Policy;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::bindings::shared::tidemill::plugin::http::{Error, Request, Response};
use crate::config::grants::HttpPlan;
#[cfg(doc)]
use crate::config::grants::Origin;
use exchange::Budget;
use resolve::Resolver;
pub use resolve::{Lookup, system_lookup};

/// Connections that are kept for the next request, for each origin.
const IDLE: usize = 4;
const IDLE_FOR: Duration = Duration::from_secs(30);
/// What the answers of one `send-many` may hold together, if one alone may not hold more.
const MANY_BYTES: u64 = 16 << 20;
/// A guest is told of a time-out this long before its deadline would end it.
const MARGIN: Duration = Duration::from_millis(50);

/// The client of one stage. Clones are handles.
#[derive(Clone)]
pub struct HttpClient {
    shared: Arc<Shared>,
}

struct Shared {
    plan: HttpPlan,
    client: Client,
    slots: Semaphore,
    /// Where sockets are: guests have threads without them.
    io: Handle,
}

/// The client could not be set up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot set up the http client of the stage: {0}")]
pub struct HttpSetupError(String);

impl HttpClient {
    /// A client whose sockets live on `io`.
    ///
    /// # Errors
    ///
    /// If the system's certificates cannot be read.
    pub fn new(plan: HttpPlan, lookup: Lookup, io: Handle) -> Result<Self, HttpSetupError> {
        // The second one to install it finds it there, which is fine.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .no_proxy()
            .redirect(Policy::none())
            .referer(false)
            .dns_resolver(Resolver::new(lookup, plan.private))
            .pool_max_idle_per_host(IDLE)
            .pool_idle_timeout(IDLE_FOR)
            .no_gzip()
            .no_brotli()
            .no_deflate()
            .no_zstd()
            .user_agent(concat!("tidemill/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| HttpSetupError(error.to_string()))?;
        let slots = Semaphore::new(plan.concurrent as usize);
        Ok(Self { shared: Arc::new(Shared { plan, client, slots, io }) })
    }

    /// Sends requests, `left` before the call's deadline; `sent` counts those of the call.
    pub(super) async fn exchange(
        &self,
        requests: Vec<Request>,
        left: Duration,
        sent: &mut u32,
    ) -> Vec<Result<Response, Error>> {
        let most = self.shared.plan.requests;
        let budget = Budget::new(self.shared.plan.response_bytes.max(MANY_BYTES));
        let left = left.saturating_sub(MARGIN);
        let exchanges = requests.into_iter().map(|request| {
            let admitted = *sent < most;
            *sent = sent.saturating_add(1);
            let (shared, budget) = (Arc::clone(&self.shared), budget.clone());
            async move {
                if !admitted {
                    return Err(Error::Exhausted(format!(
                        "more than {most} requests in one call; raise `http.requests`, or give smaller batches"
                    )));
                }
                // Ends with the guest's call, should that end first.
                let task = tokio_util::task::AbortOnDropHandle::new(
                    shared.io.clone().spawn(async move { shared.exchange(request, left, budget).await }),
                );
                task.await.unwrap_or_else(|error| Err(Error::Broken(format!("the host failed: {error}"))))
            }
        });
        futures::future::join_all(exchanges).await
    }
}

#[cfg(test)]
mod tests;
