//! What the disk does: the limit of everything that has to be on it before it is acknowledged.

use std::fs::File;
use std::io::{Seek, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;

use crate::meter::Sample;

/// The file is written over again from here on, as a server's WAL is.
const FILE: u64 = 256 << 20;

/// Writes batches one after the other into a file, each synced before the next.
pub fn written_in_batches(folder: &Path, batches: &[Vec<Bytes>], time: Duration) -> Result<Sample> {
    let joined: Vec<Vec<u8>> = batches.iter().map(|batch| batch.concat()).collect();
    let mut file = Scratch::new(folder)?;
    let (started, mut records) = (Instant::now(), 0);
    for (batch, bytes) in batches.iter().zip(&joined).cycle() {
        file.write(bytes)?;
        records += batch.len() as u64;
        if started.elapsed() >= time {
            break;
        }
    }
    Ok(Sample::timed(records, started.elapsed()))
}

/// How many small writes a second are synced one by one.
pub fn syncs(folder: &Path, time: Duration) -> Result<Sample> {
    let mut file = Scratch::new(folder)?;
    let (started, mut syncs) = (Instant::now(), 0);
    while started.elapsed() < time {
        file.write(&[1; 8192])?;
        syncs += 1;
    }
    Ok(Sample::timed(syncs, started.elapsed()))
}

/// How long each of these syncs takes.
pub fn sync_times(folder: &Path, time: Duration) -> Result<Vec<Duration>> {
    let mut file = Scratch::new(folder)?;
    let (started, mut times) = (Instant::now(), Vec::new());
    while started.elapsed() < time {
        let before = Instant::now();
        file.write(&[1; 8192])?;
        times.push(before.elapsed());
    }
    Ok(times)
}

/// A file with its blocks in place, so that a sync writes data and no metadata. It goes when it is dropped.
struct Scratch {
    file: File,
    path: std::path::PathBuf,
}

impl Scratch {
    fn new(folder: &Path) -> Result<Self> {
        let path = folder.join("disk.bench");
        let mut file = File::create(&path)?;
        let zeros = vec![0; 1 << 20];
        for _ in 0..FILE >> 20 {
            file.write_all(&zeros)?;
        }
        file.sync_all()?;
        file.rewind()?;
        Ok(Self { file, path })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if self.file.stream_position()? + bytes.len() as u64 > FILE {
            self.file.rewind()?;
        }
        self.file.write_all(bytes)?;
        self.file.sync_data()?;
        Ok(())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
