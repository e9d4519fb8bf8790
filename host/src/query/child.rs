//! The child process of one query: started with nothing, fed one job, read frame by frame, and killed at the deadline.
//!
//! Guarantee: the child is gone when [`run`] returns or is dropped, at the latest one second after the deadline. What it
//! sends is bounded here too, since the child's memory is in the hands of whoever wrote the statement.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::time::{Instant, timeout_at};

use super::answer::Sink;
use super::error::QueryError;
use super::protocol::{Done, Failure, FrameKind, Head, Job, MAX_FRAME, Ready, Wall};

/// Between asking DuckDB to stop and killing it: interrupts have been seen to take 18 s.
const GRACE: Duration = Duration::from_secs(1);
/// The last rows and the footer of a Parquet file may lie beyond the cap.
const SLACK: u64 = 16 << 20;
/// What is kept of the child's last words.
const MAX_STDERR: usize = 16 << 10;
/// Signals of the kernel: processor time is over; the process gave up.
const SIGXCPU: i32 = 24;
const SIGABRT: i32 = 6;

/// The end of an answer whose data went to the sink.
#[derive(Debug)]
pub struct Ended {
    pub head: Head,
    pub done: Done,
}

/// Runs a job to its end. May be cancelled: the child is killed then.
pub async fn run(worker: &Path, job: &Job, sink: &mut Sink) -> Result<Ended, QueryError> {
    let deadline = Duration::from_millis(job.limits.deadline_ms);
    let kill_at = Instant::now() + deadline + GRACE;
    let mut running = Running::start(worker, job)?;
    let ended = timeout_at(kill_at, running.converse(job, sink)).await;
    let ended = match ended {
        Ok(ended) => ended,
        Err(_elapsed) => Err(QueryError::Deadline(deadline)),
    };
    running.kill().await;
    ended
}

struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
}

impl Running {
    fn start(worker: &Path, job: &Job) -> Result<Self, QueryError> {
        let spawned = Command::new(worker)
            .env_clear()
            .current_dir(&job.root)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A Ctrl-C is for the host, which ends its queries itself.
            .process_group(0)
            .kill_on_drop(true)
            .spawn();
        let mut child = spawned.map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound if !worker.exists() => QueryError::NoWorker(worker.to_path_buf()),
            _ => QueryError::io("it cannot be started", &error),
        })?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        Ok(Self { child, stdin, stdout, stderr })
    }

    /// Sends the job, then reads until the last frame. Standard input stays open: its end would end the child.
    async fn converse(&mut self, job: &Job, sink: &mut Sink) -> Result<Ended, QueryError> {
        let (Some(stdin), Some(stdout), Some(stderr)) =
            (&mut self.stdin, &mut self.stdout, self.stderr.take())
        else {
            return Err(QueryError::Process("it has no pipes".to_string()));
        };
        let last_words = tokio::spawn(last_words(stderr));
        let talk = async {
            // A child that ends before it has read all says why in a frame or by its end.
            let _ = send(stdin, job).await;
            read(stdout, job, sink).await
        };
        match talk.await? {
            Some(ended) => Ok(ended),
            None => {
                let status = self
                    .child
                    .wait()
                    .await
                    .map_err(|error| QueryError::io("it cannot be waited for", &error))?;
                let said = last_words.await.unwrap_or_default();
                Err(explain(status, &said, job))
            }
        }
    }

    async fn kill(&mut self) {
        if let Err(error) = self.child.kill().await {
            tracing::warn!(%error, "the process of a query could not be killed");
        }
    }
}

async fn send(stdin: &mut ChildStdin, job: &Job) -> std::io::Result<()> {
    let job = serde_json::to_vec(job)?;
    let length = u32::try_from(job.len()).map_err(std::io::Error::other)?;
    stdin.write_all(&length.to_be_bytes()).await?;
    stdin.write_all(&job).await?;
    stdin.flush().await
}

/// The frames of an answer; None if the child ended without the last one.
async fn read(stdout: &mut ChildStdout, job: &Job, sink: &mut Sink) -> Result<Option<Ended>, QueryError> {
    let mut head = None;
    let mut received = 0;
    while let Some((kind, body)) = frame(stdout).await? {
        match kind {
            FrameKind::Ready => note(parse(&body)?),
            FrameKind::Head if head.is_none() => head = Some(parse::<Head>(&body)?),
            FrameKind::Data if head.is_some() => {
                received += body.len() as u64;
                if received > job.limits.bytes + SLACK {
                    return Err(nonsense("more than it may"));
                }
                sink.write(&body)
                    .await
                    .map_err(|error| QueryError::io("its answer cannot be kept", &error))?;
            }
            FrameKind::Done => {
                let (Some(head), done) = (head, parse(&body)?) else {
                    return Err(nonsense("an end without a head"));
                };
                return Ok(Some(Ended { head, done }));
            }
            FrameKind::Failure => {
                let failure = parse::<Failure>(&body)?;
                let deadline = Duration::from_millis(job.limits.deadline_ms);
                return Err(QueryError::of(failure, deadline, job.limits.memory_bytes));
            }
            FrameKind::Head | FrameKind::Data => return Err(nonsense("frames out of order")),
        }
    }
    Ok(None)
}

/// None at the end of the stream, wherever it comes.
async fn frame(stdout: &mut ChildStdout) -> Result<Option<(FrameKind, Vec<u8>)>, QueryError> {
    let mut prefix = [0; 5];
    if stdout.read_exact(&mut prefix).await.is_err() {
        return Ok(None);
    }
    let [kind, length @ ..] = prefix;
    let length = u32::from_be_bytes(length) as usize;
    let kind =
        FrameKind::from_byte(kind).filter(|_| length <= MAX_FRAME).ok_or_else(|| nonsense("no frames"))?;
    let mut body = vec![0; length];
    match stdout.read_exact(&mut body).await {
        Ok(_) => Ok(Some((kind, body))),
        Err(_) => Ok(None),
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, QueryError> {
    serde_json::from_slice(body).map_err(|_| nonsense("a frame that cannot be read"))
}

fn nonsense(what: &str) -> QueryError {
    QueryError::Process(format!("it sent {what}"))
}

/// Says once which walls this system cannot put up.
fn note(ready: Ready) {
    static SAID: std::sync::Once = std::sync::Once::new();
    if (ready.files, ready.calls) != (Wall::Enforced, Wall::Enforced) {
        SAID.call_once(|| {
            tracing::warn!(
                landlock = ?ready.files, seccomp = ?ready.calls,
                "this kernel cannot put up every wall around queries; limits and DuckDB's own settings remain"
            );
        });
    }
}

async fn last_words(mut stderr: ChildStderr) -> String {
    let mut text = Vec::new();
    let mut piece = [0; 1024];
    while let Ok(size @ 1..) = stderr.read(&mut piece).await {
        let keep = size.min(MAX_STDERR - text.len());
        text.extend_from_slice(&piece[..keep]);
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// What a child that said nothing died of.
fn explain(status: ExitStatus, said: &str, job: &Job) -> QueryError {
    let limits = &job.limits;
    let out_of_memory = ["memory allocation of", "bad_alloc", "Out of Memory", "Cannot allocate memory"];
    match status.signal() {
        Some(SIGXCPU) => QueryError::Processor(limits.cpu_seconds),
        Some(SIGABRT) if out_of_memory.iter().any(|sign| said.contains(sign)) => {
            QueryError::Memory(limits.memory_bytes)
        }
        _ => {
            tracing::warn!(%status, said = said.trim(), "the process of a query died");
            QueryError::Process(format!("it ended with {status}"))
        }
    }
}
