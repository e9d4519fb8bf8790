//! What something took: time, processor time on both sides, WAL.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::server::{Server, own_cpu};

/// One measurement.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    pub records: u64,
    pub seconds: f64,
    /// Seconds of processor time of all of Postgres, and of this process; None where nobody asked.
    pub server_cpu: Option<f64>,
    pub host_cpu: Option<f64>,
    pub wal_bytes: Option<f64>,
}

impl Sample {
    /// Of something that has nothing to do with the server.
    pub fn timed(records: u64, took: Duration) -> Self {
        Self { records, seconds: took.as_secs_f64(), ..Self::default() }
    }

    /// Records in a second.
    pub fn rate(&self) -> f64 {
        self.records as f64 / self.seconds
    }
}

/// Runs from its making to [`Meter::stop`].
pub struct Meter {
    started: Instant,
    server: Duration,
    host: Duration,
    wal: i64,
}

impl Meter {
    pub async fn start(server: &Server) -> Result<Self> {
        let wal = server.wal().await?;
        Ok(Self { server: server.cpu()?, host: own_cpu(), wal, started: Instant::now() })
    }

    pub async fn stop(self, server: &Server, records: u64) -> Result<Sample> {
        let seconds = self.started.elapsed().as_secs_f64();
        let (used, own) = (server.cpu()?, own_cpu());
        let wal = server.wal().await?;
        Ok(Sample {
            records,
            seconds,
            server_cpu: Some(used.saturating_sub(self.server).as_secs_f64()),
            host_cpu: Some(own.saturating_sub(self.host).as_secs_f64()),
            wal_bytes: Some((wal - self.wal) as f64),
        })
    }
}
