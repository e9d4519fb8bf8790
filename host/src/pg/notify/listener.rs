//! The listening connection: never in a transaction, never used for anything else.

use std::sync::Arc;
use std::time::Duration;

use sqlx::Executor;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::{CHANNEL, HOSTS, JOBS, LETTERS, PLUGINS, Shared};
use crate::ids::QueueName;

/// The listener notifies itself this often, and takes the connection for dead when that gets no answer in the same time.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// Pause before connecting again: doubled by each failure, from the first to the second.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Listens for as long as the hub lives, connecting again whenever the connection is lost.
pub(super) async fn run(shared: Arc<Shared>, options: PgConnectOptions) {
    let options = options.application_name("tidemill listener");
    let (first, longest) = PAUSE;
    let mut pause = first;
    loop {
        match timeout(HEARTBEAT, connect(&options)).await {
            Ok(Ok(listener)) => {
                pause = first;
                // LISTEN is in force, so nothing that commits from here on is missed; what came before is read now.
                shared.wake_all();
                let error = listen(&shared, listener).await;
                tracing::info!(error, "the connection that listens for appends was lost; connecting again");
                metrics::counter!("tidemill_notify_reconnects_total").increment(1);
            }
            Ok(Err(error)) => tracing::debug!(%error, "cannot listen for appends; trying again"),
            Err(_) => tracing::debug!("cannot listen for appends: no answer; trying again"),
        }
        sleep(pause).await;
        pause = (pause * 2).min(longest);
    }
}

async fn connect(options: &PgConnectOptions) -> Result<PgListener, sqlx::Error> {
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .max_lifetime(None)
        .idle_timeout(None)
        .connect_lazy_with(options.clone());
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.ignore_pool_close_event(true);
    listener.eager_reconnect(false);
    listener.listen_all([CHANNEL, PLUGINS, HOSTS, LETTERS, JOBS]).await?;
    Ok(listener)
}

/// Wakes by what comes in, until the connection is lost. Says how.
async fn listen(shared: &Shared, mut listener: PgListener) -> String {
    let mut next_beat = Instant::now() + HEARTBEAT;
    loop {
        match timeout_at(next_beat, listener.try_recv()).await {
            Ok(Ok(Some(notification))) => {
                metrics::counter!("tidemill_notify_received_total").increment(1);
                match notification.channel() {
                    PLUGINS => shared.plugins.send_replace(()),
                    HOSTS => shared.hosts.send_replace(()),
                    LETTERS => shared.letters.send_replace(()),
                    // Anybody may have sent it: what is no queue is ignored.
                    JOBS => {
                        drop(QueueName::parse(notification.payload()).map(|queue| shared.wake_queue(&queue)))
                    }
                    _ => shared.received(notification.payload()),
                }
            }
            Ok(Ok(None)) => return "the server closed it".into(),
            Ok(Err(error)) => return error.to_string(),
            Err(_) => {
                let beat = listener.execute("SELECT pg_notify('tidemill_appended', 'heartbeat')");
                match timeout(HEARTBEAT, beat).await {
                    Ok(Ok(_)) => next_beat = Instant::now() + HEARTBEAT,
                    Ok(Err(error)) => return error.to_string(),
                    Err(_) => return "it gave no answer to a heartbeat".into(),
                }
            }
        }
    }
}
