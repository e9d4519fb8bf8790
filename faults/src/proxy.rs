//! A proxy between a host and what it talks to, that delays, holds back, cuts and resets.
//!
//! * Every connection obeys the mode as it is now. What a black hole holds is delivered when it ends, as TCP would by
//!   sending again; with [`Mode::Lost`] it is never delivered, as when a router in between has forgotten the connection.
//! * Cuts at COMMIT are counted down: each is used up by one commit of one connection ([`wire`] finds it).
//!
//! Bound: a connection holds one message of its client, and [`CHUNK`] bytes of its server.

pub mod wire;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use fastrand::Rng;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;

use wire::{Client, Server, Session};

/// Read and passed on at once.
const CHUNK: usize = 16 * 1024;
/// In so long a busy host has asked something on some connection.
const ASKED: Duration = Duration::from_millis(300);
/// In so long every connection has seen a mode that the next one would hide.
const SEEN: Duration = Duration::from_millis(20);

/// Where the proxy leads to.
#[derive(Clone, Debug)]
pub enum Upstream {
    Socket(PathBuf),
    Address(SocketAddr),
}

/// What happens to all connections of a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Pass,
    /// Each chunk, in both directions, comes so much later.
    Latency(Duration),
    /// Connections are reset, and new ones as soon as they are made.
    Cut,
    /// Nothing gets to the server (`up`), to the client (`down`), or both ways, and nobody is told.
    Hole {
        up: bool,
        down: bool,
    },
    /// As a hole of both ways, and a connection that was used in it never comes back.
    Lost,
    /// A connection is reset when so many bytes have come from the server since the mode was set.
    ResetAfter(u64),
}

/// Where in a commit the connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The server never gets it.
    Before,
    /// The server has done it, and its answer is not passed on.
    After,
}

/// What was done so far.
#[derive(Debug, Default)]
pub struct Done {
    pub before: AtomicU64,
    pub after: AtomicU64,
    pub resets: AtomicU64,
    pub connections: AtomicU64,
}

/// A proxy on a port of its own; ends when dropped.
pub struct Proxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    shared: Arc<Shared>,
    accepting: AbortHandle,
}

struct Shared {
    upstream: Upstream,
    /// Cuts at COMMIT that are still to come, and the chance of each commit to get one.
    cuts: Mutex<Cuts>,
    done: Done,
}

struct Cuts {
    left: u32,
    chance: f64,
    rng: Rng,
}

impl Proxy {
    pub async fn start(upstream: Upstream, rng: Rng) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("a port for a proxy")?;
        let address = listener.local_addr()?;
        let mode = watch::Sender::new(Mode::Pass);
        let cuts = Mutex::new(Cuts { left: 0, chance: 0.0, rng });
        let shared = Arc::new(Shared { upstream, cuts, done: Done::default() });
        let task = tokio::spawn(accept(listener, mode.clone(), shared.clone()));
        Ok(Self { address, mode, shared, accepting: task.abort_handle() })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Loses every connection that has a question open, or asks one before the mode is another.
    pub async fn lose(&self) {
        self.set(Mode::Hole { up: false, down: true });
        sleep(ASKED).await;
        self.set(Mode::Lost);
        sleep(SEEN).await;
    }

    /// Resets what is connected now; new connections pass.
    pub async fn cut_now(&self) {
        self.set(Mode::Cut);
        sleep(SEEN).await;
        self.set(Mode::Pass);
    }

    /// Cuts `count` of the commits to come, each with this chance, half of them before and half after the server acts.
    pub fn cut_commits(&self, count: u32, chance: f64) {
        let mut cuts = self.shared.cuts.lock().unwrap_or_else(PoisonError::into_inner);
        (cuts.left, cuts.chance) = (count, chance);
    }

    /// How many of those are left.
    pub fn cuts_left(&self) -> u32 {
        self.shared.cuts.lock().unwrap_or_else(PoisonError::into_inner).left
    }

    pub fn done(&self) -> &Done {
        &self.shared.done
    }

    /// Commits that were cut so far.
    pub fn commits_cut(&self) -> u64 {
        self.done().before.load(Ordering::Relaxed) + self.done().after.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Shared {
    /// Whether this commit is to be cut, and where.
    fn decide(&self) -> Option<Cut> {
        let mut cuts = self.cuts.lock().unwrap_or_else(PoisonError::into_inner);
        if cuts.left == 0 || cuts.rng.f64() >= cuts.chance {
            return None;
        }
        cuts.left -= 1;
        let (cut, counter) =
            if cuts.rng.bool() { (Cut::Before, &self.done.before) } else { (Cut::After, &self.done.after) };
        counter.fetch_add(1, Ordering::Relaxed);
        Some(cut)
    }
}

async fn accept(listener: TcpListener, mode: watch::Sender<Mode>, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Ok((client, _)) = listener.accept() => {
                shared.done.connections.fetch_add(1, Ordering::Relaxed);
                connections.spawn(connection(client, mode.subscribe(), shared.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Why a connection is over.
#[derive(Debug)]
enum End {
    /// One side closed it.
    Closed,
    /// Here, and the client is to be told by a reset.
    Reset,
}

async fn connection(mut client: TcpStream, mut mode: watch::Receiver<Mode>, shared: Arc<Shared>) {
    let _ = client.set_nodelay(true);
    let now = *mode.borrow_and_update();
    let end = match &shared.upstream {
        _ if now == Mode::Cut => End::Reset,
        Upstream::Socket(path) => match UnixStream::connect(path).await {
            Ok(server) => {
                let (from_server, to_server) = server.into_split();
                join(&mut client, from_server, to_server, mode, &shared).await
            }
            Err(_) => End::Reset,
        },
        Upstream::Address(address) => match TcpStream::connect(address).await {
            Ok(server) => {
                let _ = server.set_nodelay(true);
                let (from_server, to_server) = server.into_split();
                join(&mut client, from_server, to_server, mode, &shared).await
            }
            Err(_) => End::Reset,
        },
    };
    if matches!(end, End::Reset) {
        shared.done.resets.fetch_add(1, Ordering::Relaxed);
        let _ = client.set_zero_linger();
    }
}

async fn join(
    client: &mut TcpStream,
    from_server: impl AsyncRead + Unpin,
    to_server: impl AsyncWrite + Unpin,
    mode: watch::Receiver<Mode>,
    shared: &Shared,
) -> End {
    // A commit is looked for where there is a Postgres behind.
    let session = Mutex::new(matches!(shared.upstream, Upstream::Socket(_)).then(Session::default));
    let (from_client, to_client) = client.split();
    let up = pump(from_client, to_server, Gate { mode: mode.clone(), up: true }, |bytes| {
        let mut session = session.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(session) = session.as_mut() else { return Verdict::Pass(bytes.len()) };
        match session.client(bytes) {
            Client::More => Verdict::Pass(0),
            Client::Message(length) => Verdict::Pass(length),
            Client::Commit(length) => match shared.decide() {
                None => Verdict::Pass(length),
                Some(Cut::Before) => Verdict::PassAndReset(0),
                Some(Cut::After) => {
                    session.cut_after_answer();
                    Verdict::Pass(length)
                }
            },
        }
    });
    let mut counted = 0u64;
    let down = pump(from_server, to_client, Gate { mode: mode.clone(), up: false }, |bytes| {
        if let Mode::ResetAfter(most) = *mode.borrow() {
            counted += bytes.len() as u64;
            if counted > most {
                let over = usize::try_from(counted - most).unwrap_or(usize::MAX);
                return Verdict::PassAndReset(bytes.len().saturating_sub(over));
            }
        } else {
            counted = 0;
        }
        let mut session = session.lock().unwrap_or_else(PoisonError::into_inner);
        match session.as_mut().map(|session| session.server(bytes)) {
            Some(Server::Answered) => Verdict::PassAndReset(0),
            Some(Server::Withhold) => Verdict::Drop(bytes.len()),
            Some(Server::Pass) | None => Verdict::Pass(bytes.len()),
        }
    });
    tokio::select! {
        end = up => end,
        end = down => end,
    }
}

/// What becomes of what was read.
enum Verdict {
    /// Passes so many bytes, and keeps the rest until more has come.
    Pass(usize),
    /// Loses so many.
    Drop(usize),
    PassAndReset(usize),
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut gate: Gate,
    mut judge: impl FnMut(&[u8]) -> Verdict,
) -> End {
    let mut held = Vec::new();
    let mut chunk = vec![0; CHUNK];
    loop {
        let count = tokio::select! {
            read = from.read(&mut chunk) => match read {
                Ok(0) | Err(_) => return End::Closed,
                Ok(count) => count,
            },
            end = gate.cut() => return end,
        };
        held.extend_from_slice(&chunk[..count]);
        if let Some(end) = gate.pass().await {
            return end;
        }
        while !held.is_empty() {
            let (pass, take, reset) = match judge(&held) {
                Verdict::Pass(0) => break,
                Verdict::Pass(count) => (count, count, false),
                Verdict::Drop(count) => (0, count, false),
                Verdict::PassAndReset(count) => (count, count, true),
            };
            if to.write_all(&held[..pass]).await.is_err() {
                return End::Closed;
            }
            if reset {
                return End::Reset;
            }
            held.drain(..take);
        }
    }
}

/// One direction's view of the mode.
struct Gate {
    mode: watch::Receiver<Mode>,
    up: bool,
}

impl Gate {
    /// Returns when the connection is to be reset.
    async fn cut(&mut self) -> End {
        loop {
            if self.mode.changed().await.is_err() {
                return End::Closed;
            }
            if *self.mode.borrow_and_update() == Mode::Cut {
                return End::Reset;
            }
        }
    }

    /// Holds what was read for as long as the mode says. Some: the connection is over.
    async fn pass(&mut self) -> Option<End> {
        let mut lost = false;
        loop {
            let mode = *self.mode.borrow_and_update();
            lost |= mode == Mode::Lost;
            let held = match mode {
                Mode::Cut => return Some(End::Reset),
                Mode::Hole { up, down } => {
                    if self.up {
                        up
                    } else {
                        down
                    }
                }
                Mode::Latency(by) => {
                    sleep(by).await;
                    false
                }
                Mode::Pass | Mode::ResetAfter(_) => false,
                Mode::Lost => true,
            };
            if lost {
                // Silent from now on: only the ends can find out.
                return Some(self.cut().await);
            }
            if !held {
                return None;
            }
            if self.mode.changed().await.is_err() {
                return Some(End::Closed);
            }
        }
    }
}

#[cfg(test)]
mod tests;
