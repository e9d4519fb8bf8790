//! Frames to the host.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;

use serde::Serialize;

use tidemill::query::protocol::{FrameKind, MAX_FRAME, write_frame};

/// Data is collected to about this much before it is sent.
const CHUNK: usize = 256 << 10;

/// The host's end of the pipe. As a writer it takes data of the answer.
pub struct Output {
    pipe: File,
    waiting: Vec<u8>,
}

impl Output {
    /// Takes standard output for frames alone. What else is printed there, as DuckDB's own log can be, goes to standard
    /// error from then on.
    pub fn open() -> io::Result<Self> {
        let pipe = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        rustix::stdio::dup2_stdout(io::stderr())?;
        Ok(Self { pipe, waiting: Vec::new() })
    }

    /// Sends data that waits, then this frame.
    pub fn frame(&mut self, kind: FrameKind, body: &impl Serialize) -> io::Result<()> {
        self.send_waiting()?;
        write_frame(&mut self.pipe, kind, &serde_json::to_vec(body)?)?;
        self.pipe.flush()
    }

    fn send_waiting(&mut self) -> io::Result<()> {
        for piece in self.waiting.chunks(MAX_FRAME) {
            write_frame(&mut self.pipe, FrameKind::Data, piece)?;
        }
        self.waiting.clear();
        self.pipe.flush()
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.waiting.extend_from_slice(bytes);
        if self.waiting.len() >= CHUNK {
            self.send_waiting()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send_waiting()
    }
}
