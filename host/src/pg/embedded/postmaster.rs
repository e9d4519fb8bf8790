//! One run of the server process: started or found, waited for, stopped.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::Instant;

use super::account::Account;
use super::binaries::Binaries;
use super::cluster;
use super::layout::Layout;
use super::log_file::LogFile;
use super::pidfile::{self, Found};
use super::settings;
use crate::pg::pool;

/// Crash recovery replays at most `max_wal_size` of log; a start that takes longer is reported as failed.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// A fast shutdown writes a checkpoint; past this the server is told to stop at once and recovers at its next start.
const FAST_STOP: Duration = Duration::from_secs(30);
const IMMEDIATE_STOP: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(50);

/// Why the server does not run, or does not stop.
#[derive(Debug, thiserror::Error)]
pub enum PostmasterError {
    #[error("cannot {doing} {}: {source}", .path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("postgres ended while starting ({status}): {tail} (all of it in {})", .log.display())]
    Ended { status: String, tail: String, log: PathBuf },
    #[error("postgres does not answer as it should: {reason} (waited up to {} s); its log is {}", READY_WITHIN.as_secs(), .log.display())]
    NotReady { reason: String, log: PathBuf },
    #[error(
        "a server (pid {pid}) that tidemill cannot use runs on {}: {reason}; stop it with pg_ctl stop -D {0}",
        .cluster.display()
    )]
    Foreign { pid: i32, cluster: PathBuf, reason: String },
    #[error("processes of an earlier server (killed?) still work in {}; end them and start again", .cluster.display())]
    Leftovers { cluster: PathBuf },
    #[error("postgres (pid {pid}) did not stop, even when told to stop at once")]
    NotStopped { pid: i32 },
}

/// The pid to signal when the host lets go of a running server without stopping it, for example because it was told to
/// stop while starting. A kill -9 of the host pulls nothing, so the server goes on and is found again.
#[derive(Debug, Default)]
pub struct Leash(AtomicI32);

impl Leash {
    fn hold(&self, pid: Pid) {
        self.0.store(raw(pid), Ordering::SeqCst);
    }

    /// The server is gone, or is meant to go on.
    pub fn release(&self) {
        self.0.store(0, Ordering::SeqCst);
    }

    /// Asks the server to stop, and does not wait for it.
    pub fn pull(&self) {
        if let Some(pid) = Pid::from_raw(self.0.swap(0, Ordering::SeqCst)) {
            let _ = kill_process(pid, Signal::INT);
        }
    }
}

/// What it takes to run the server again.
#[derive(Clone, Debug)]
pub struct Recipe {
    pub layout: Layout,
    pub binaries: Binaries,
    pub account: Account,
    /// Settings beyond the usual ones, which win over them.
    pub extra: Vec<(String, String)>,
    pub leash: Arc<Leash>,
}

/// A server that was ready once.
#[derive(Debug)]
pub struct Postmaster {
    pid: Pid,
    /// None when another process started it.
    child: Option<Child>,
    leash: Arc<Leash>,
    /// The server's URL.
    pub url: String,
}

impl Recipe {
    /// Adopts the server that runs on the cluster, or starts one, and waits until it answers.
    pub async fn launch(&self) -> Result<Postmaster, PostmasterError> {
        let cluster = &self.layout.cluster;
        match pidfile::look(cluster) {
            Found::Server(running) if running.stopping => {
                tracing::info!("the embedded Postgres is still stopping; waiting for it");
                if !wait_gone(running.pid, FAST_STOP).await {
                    return Err(PostmasterError::NotStopped { pid: raw(running.pid) });
                }
            }
            Found::Server(running) => return self.adopt(running).await,
            Found::Stranger(pid) => {
                // Postgres itself cannot tell, and would refuse to start for as long as that process lives.
                tracing::info!(
                    pid = raw(pid),
                    "removing a stale postmaster.pid: its pid is now another process"
                );
                let path = pidfile::path(cluster);
                self.wait_for_leftovers().await?;
                std::fs::remove_file(&path).map_err(|source| PostmasterError::Io {
                    doing: "remove",
                    path,
                    source,
                })?;
            }
            Found::Nobody => self.wait_for_leftovers().await?,
        }
        self.spawn().await
    }

    /// The children of a killed postmaster end by themselves within moments; a second server must not start before.
    async fn wait_for_leftovers(&self) -> Result<(), PostmasterError> {
        let cluster = &self.layout.cluster;
        let deadline = Instant::now() + FAST_STOP;
        while pidfile::has_leftovers(cluster) {
            if Instant::now() > deadline {
                return Err(PostmasterError::Leftovers { cluster: cluster.clone() });
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    async fn adopt(&self, running: pidfile::Running) -> Result<Postmaster, PostmasterError> {
        let cluster = &self.layout.cluster;
        let foreign = |reason: &str| PostmasterError::Foreign {
            pid: raw(running.pid),
            cluster: cluster.clone(),
            reason: reason.into(),
        };
        // The file is written in steps; a server that has just started may not have got to its sockets.
        let deadline = Instant::now() + READY_WITHIN;
        let sockets = loop {
            match pidfile::look(cluster) {
                Found::Server(now) if now.sockets.is_absolute() => break now.sockets,
                Found::Server(_) if Instant::now() < deadline => tokio::time::sleep(POLL).await,
                _ => return Err(foreign("it has no unix socket")),
            }
        };
        let url = self.layout.url(&sockets, running.port);
        let mut postmaster = self.postmaster(running.pid, None, url);
        self.wait_ready(&mut postmaster, 0).await?;
        tracing::info!(pid = raw(running.pid), "found the embedded Postgres still running and took it over");
        Ok(postmaster)
    }

    async fn spawn(&self) -> Result<Postmaster, PostmasterError> {
        let program = self.binaries.program("postgres");
        let failed = |source| PostmasterError::Io { doing: "run", path: program.clone(), source };
        let log = LogFile::new(&self.layout.log);
        let (file, since) = log.open().map_err(|source| PostmasterError::Io {
            doing: "open",
            path: self.layout.log.clone(),
            source,
        })?;
        let copy = file.try_clone().map_err(failed)?;

        let lz4 = cluster::has_lz4(&self.layout.cluster, &self.binaries, &self.account);
        let mut command = self.account.command(&program);
        command.arg("-D").arg(&self.layout.cluster).stdout(file).stderr(copy).envs(settings::ENVIRONMENT);
        for (name, value) in settings::settings(settings::memory(), lz4, &self.layout.sockets) {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        for (name, value) in &self.extra {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        // A group of its own: Ctrl-C in the terminal reaches the host only, which stops its work before the server.
        command.process_group(0);
        let child = Command::from(command).spawn().map_err(failed)?;
        let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let Some(pid) = pid else {
            return Err(failed(io::Error::other("it ended at once")));
        };
        let url = self.layout.url(&self.layout.sockets, super::layout::PORT);
        let mut postmaster = self.postmaster(pid, Some(child), url);
        self.wait_ready(&mut postmaster, since).await?;
        tracing::debug!(pid = raw(pid), version = %self.binaries.version, "embedded Postgres started");
        Ok(postmaster)
    }

    fn postmaster(&self, pid: Pid, child: Option<Child>, url: String) -> Postmaster {
        self.leash.hold(pid);
        Postmaster { pid, child, leash: self.leash.clone(), url }
    }

    /// Waits until the server answers. One that does not within the time is left running: it may be in a long
    /// recovery, which a second start would only begin again.
    async fn wait_ready(&self, postmaster: &mut Postmaster, since: u64) -> Result<(), PostmasterError> {
        let log = self.layout.log.clone();
        let started = Instant::now();
        let mut said = started;
        loop {
            let error = match pool::ping(&postmaster.url).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if let Some(status) = postmaster.try_exited() {
                let tail = LogFile::new(&log).tail(since);
                return Err(PostmasterError::Ended { status, tail, log });
            }
            if started.elapsed() > READY_WITHIN || !pool::is_passing(&error) {
                self.leash.release();
                return Err(PostmasterError::NotReady { reason: pool::reason(&error), log });
            }
            if said.elapsed() > Duration::from_secs(3) {
                said = Instant::now();
                tracing::info!(
                    seconds = started.elapsed().as_secs(),
                    reason = pool::reason(&error),
                    "waiting for the embedded Postgres (after a crash it replays its log)"
                );
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

impl Postmaster {
    /// Waits until the server has ended, for whatever reason. May be cancelled.
    pub async fn exited(&mut self) -> String {
        let status = match &mut self.child {
            Some(child) => describe(child.wait().await),
            None => {
                while pidfile::is_alive(self.pid) {
                    tokio::time::sleep(POLL * 4).await;
                }
                "gone".into()
            }
        };
        self.leash.release();
        status
    }

    fn try_exited(&mut self) -> Option<String> {
        let status = match &mut self.child {
            Some(child) => child.try_wait().transpose().map(describe),
            None => (!pidfile::is_alive(self.pid)).then(|| "gone".into()),
        };
        if status.is_some() {
            self.leash.release();
        }
        status
    }

    /// Ends all sessions and writes a checkpoint; if that takes too long, stops at once and leaves the rest to the next
    /// start's recovery. Nothing committed is lost either way.
    pub async fn stop(mut self) -> Result<(), PostmasterError> {
        for (signal, patience) in [(Signal::INT, FAST_STOP), (Signal::QUIT, IMMEDIATE_STOP)] {
            if self.try_exited().is_some() {
                return Ok(());
            }
            if kill_process(self.pid, signal).is_ok()
                && tokio::time::timeout(patience, self.exited()).await.is_ok()
            {
                return Ok(());
            }
            tracing::warn!(pid = raw(self.pid), ?signal, "the embedded Postgres is slow to stop");
        }
        match self.try_exited() {
            Some(_) => Ok(()),
            None => Err(PostmasterError::NotStopped { pid: raw(self.pid) }),
        }
    }
}

async fn wait_gone(pid: Pid, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    while pidfile::is_alive(pid) {
        if Instant::now() > deadline {
            return false;
        }
        tokio::time::sleep(POLL).await;
    }
    true
}

fn describe(status: io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    }
}

fn raw(pid: Pid) -> i32 {
    pid.as_raw_nonzero().get()
}
