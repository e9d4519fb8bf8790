//! The server's own log: one file beside the cluster, opened by the host and inherited by the server, so that it also
//! has what a server says that dies while starting. Kept under a bound by copying the end away and truncating, which is
//! safe because the server appends.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Past this many bytes the file starts again, and what it held is kept once in `server.log.1`.
const MAX: u64 = 8 * 1024 * 1024;

/// How much of the end is read for an error message.
const TAIL: u64 = 8 * 1024;

/// The file that the server writes to.
#[derive(Clone, Debug)]
pub struct LogFile(PathBuf);

impl LogFile {
    pub fn new(path: &Path) -> Self {
        Self(path.into())
    }

    /// Opens the file for a server to inherit, and says how long it is.
    pub fn open(&self) -> io::Result<(File, u64)> {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.0)?;
        let length = file.metadata()?.len();
        Ok((file, length))
    }

    /// Starts the file again when it is past its bound. A line written between the copy and the cut is lost.
    pub fn trim(&self) -> io::Result<()> {
        if std::fs::metadata(&self.0)?.len() > MAX {
            std::fs::copy(&self.0, self.0.with_extension("log.1"))?;
            OpenOptions::new().write(true).open(&self.0)?.set_len(0)?;
        }
        Ok(())
    }

    /// The last lines written since the file was `since` bytes long, on one line.
    pub fn tail(&self, since: u64) -> String {
        let read = || -> io::Result<String> {
            let mut file = File::open(&self.0)?;
            let end = file.metadata()?.len();
            file.seek(SeekFrom::Start(since.max(end.saturating_sub(TAIL)).min(end)))?;
            let mut bytes = Vec::new();
            file.take(TAIL).read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        let text = read().unwrap_or_default();
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        lines[lines.len().saturating_sub(6)..].join(" | ")
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn the_log_is_cut_past_its_bound_and_goes_on_through_the_same_handle() {
        let temp = tempfile::tempdir().unwrap();
        let log = LogFile::new(&temp.path().join("server.log"));
        let (mut file, length) = log.open().unwrap();
        assert_eq!(length, 0);
        file.write_all(&vec![b'x'; MAX as usize + 1]).unwrap();
        log.trim().unwrap();
        file.write_all(b"after\n").unwrap();
        assert_eq!(std::fs::read(temp.path().join("server.log")).unwrap(), b"after\n");
        assert_eq!(std::fs::metadata(temp.path().join("server.log.1")).unwrap().len(), MAX + 1);
    }

    #[test]
    fn the_tail_is_what_this_start_wrote() {
        let temp = tempfile::tempdir().unwrap();
        let log = LogFile::new(&temp.path().join("server.log"));
        log.open().unwrap().0.write_all(b"old\n").unwrap();
        let (mut file, since) = log.open().unwrap();
        assert_eq!(log.tail(since), "");
        file.write_all(b"one\n\ntwo\n").unwrap();
        assert_eq!(log.tail(since), "one | two");
    }
}
