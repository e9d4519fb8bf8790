//! Reads the input in a thread of its own, since files and terminals block.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::Path;

use anyhow::Context;
use bytes::Bytes;
use tokio::sync::mpsc;

const CHUNK: usize = 256 << 10;
/// Chunks read ahead.
const READ_AHEAD: usize = 4;

pub struct Input {
    chunks: mpsc::Receiver<io::Result<Bytes>>,
    /// Bytes it will give, where that is known.
    length: Option<u64>,
}

impl Input {
    /// Opens a file, or standard input for `-` and nothing.
    pub fn open(path: Option<&Path>) -> anyhow::Result<Self> {
        let file = match path {
            Some(path) if path != Path::new("-") => {
                File::open(path).with_context(|| format!("cannot read {}", path.display()))?
            }
            _ => File::from(io::stdin().as_fd().try_clone_to_owned().context("cannot read standard input")?),
        };
        let metadata = file.metadata().context("cannot look at the input")?;
        if metadata.is_dir() {
            anyhow::bail!("the input is a folder; give a file, or - for standard input");
        }
        let length = metadata.is_file().then_some(metadata.len());
        let (sender, chunks) = mpsc::channel(READ_AHEAD);
        std::thread::Builder::new()
            .name("produce-input".to_string())
            .spawn(move || read_all(file, &sender))
            .context("cannot start the reading thread")?;
        Ok(Self { chunks, length })
    }

    /// Whether it is a regular file, and not a pipe or a terminal.
    pub fn is_file(&self) -> bool {
        self.length.is_some()
    }

    pub fn length(&self) -> Option<u64> {
        self.length
    }

    /// The next piece; None at the end.
    pub async fn next(&mut self) -> Option<io::Result<Bytes>> {
        self.chunks.recv().await
    }
}

fn read_all(mut file: File, sender: &mpsc::Sender<io::Result<Bytes>>) {
    loop {
        let mut buffer = vec![0; CHUNK];
        let piece = match file.read(&mut buffer) {
            Ok(0) => return,
            Ok(n) => {
                buffer.truncate(n);
                Ok(Bytes::from(buffer))
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        };
        let failed = piece.is_err();
        if sender.blocking_send(piece).is_err() || failed {
            return;
        }
    }
}
