//! `tidemill-query`: runs one query of `tidemill` and ends. It is not meant to be called by hand.
//!
//! DuckDB's settings are no sandbox, so the statement is taken for hostile and walls are put up before DuckDB opens:
//! limits and system calls ([`sandbox`]), then DuckDB's own settings, which are read back ([`session`]), then the check
//! that the text is one SELECT as DuckDB parses it ([`statement`]). The answer ([`answer`]) goes out in frames
//! ([`output`]) with caps on rows and bytes. The host kills this process at its deadline, whatever it does.
//!
//! The program is apart from `tidemill` so that the host neither loads DuckDB's library nor shares a process with it.

mod answer;
mod output;
mod sandbox;
mod session;
mod statement;

use std::io::{self, Read};
use std::process::ExitCode;
use std::time::Duration;

use tidemill::query::protocol::{Failure, FailureKind, FrameKind, Job};

use output::Output;

/// Largest job: a statement and the names of files.
const MAX_JOB: u32 = 64 << 20;
/// For threads that only wait.
const THREAD_STACK: usize = 64 << 10;

fn main() -> ExitCode {
    let Ok(mut output) = Output::open() else { return ExitCode::FAILURE };
    match run(&mut output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => match output.frame(FrameKind::Failure, &failure) {
            Ok(()) => ExitCode::SUCCESS,
            // Nobody listens any more.
            Err(_) => ExitCode::FAILURE,
        },
    }
}

fn run(output: &mut Output) -> Result<(), Failure> {
    sandbox::forbid_files().map_err(internal)?;
    let job = read_job().map_err(internal)?;
    let ready = sandbox::enter(&job).map_err(internal)?;
    output.frame(FrameKind::Ready, &ready).map_err(internal)?;
    thread(|| {
        // The host never sends more: the pipe ends when it is gone or wants no answer any more.
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        std::process::abort();
    })?;
    let session = session::open(&job)?;
    let interrupt = session.interrupt_handle();
    let deadline = Duration::from_millis(job.limits.deadline_ms);
    thread(move || {
        std::thread::sleep(deadline);
        interrupt.interrupt();
    })?;
    statement::check(&session, &job.sql)?;
    answer::give(&session, &job, output)
}

/// Starts a thread that is never waited for.
fn thread(body: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    std::thread::Builder::new().stack_size(THREAD_STACK).spawn(body).map(drop).map_err(internal)
}

fn read_job() -> io::Result<Job> {
    let mut input = io::stdin().lock();
    let mut length = [0; 4];
    input.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length);
    if length > MAX_JOB {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the job is too large"));
    }
    let mut text = vec![0; length as usize];
    input.read_exact(&mut text)?;
    serde_json::from_slice(&text).map_err(io::Error::from)
}

fn internal(error: impl std::fmt::Display) -> Failure {
    Failure { kind: FailureKind::Internal, message: error.to_string(), position: None }
}
