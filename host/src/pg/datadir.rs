//! The data directory: the host's identity and its embedded server live here, and one process at a time holds it.
//!
//! The lock is the kernel's (`flock`), so it goes with the process however that ends, and a file left behind by a
//! kill -9 blocks nobody.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::ids::HostId;

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    #[error(
        "another tidemill host{} uses the data directory {}; stop it, or give this one its own --data-dir",
        .pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default(),
        .dir.display()
    )]
    InUse { dir: PathBuf, pid: Option<u32> },
    #[error("cannot {doing} {}: {source}; check its owner and mode, or choose another --data-dir", .path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "the host id in {} is damaged: expected h- and 16 hexadecimal digits; delete the file to get a new one",
        .path.display()
    )]
    HostId { path: PathBuf },
}

/// A data directory that this process holds until the value is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    host_id: HostId,
    /// Open for as long as the directory is held: closing it releases the lock.
    _lock: File,
}

impl DataDir {
    /// Creates the directory if it is not there, takes its lock and reads (or draws) the host id.
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        create_dir(path, top_mode())?;
        let path = fs::canonicalize(path).map_err(|source| io_error("resolve", path, source))?;
        let lock = lock(&path)?;
        let host_id = host_id(&path.join("host-id"))?;
        Ok(Self { path, host_id, _lock: lock })
    }

    /// The absolute path, without symbolic links.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The same across restarts, different for every data directory.
    pub fn host_id(&self) -> &HostId {
        &self.host_id
    }

    /// A folder in the data directory that only the host's user can enter.
    pub fn private_dir(&self, name: &str) -> Result<PathBuf, DataDirError> {
        let path = self.path.join(name);
        create_dir(&path, 0o700)?;
        Ok(path)
    }
}

/// Root's embedded server runs as another user, who has to pass through; everything inside is closed on its own.
fn top_mode() -> u32 {
    if rustix::process::geteuid().is_root() { 0o711 } else { 0o700 }
}

fn create_dir(path: &Path, mode: u32) -> Result<(), DataDirError> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::create_dir_all(parent).map_err(|source| io_error("create the folder", parent, source))?;
    }
    match fs::DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        result => result.map_err(|source| io_error("create the folder", path, source)),
    }
}

fn lock(dir: &Path) -> Result<File, DataDirError> {
    let path = dir.join("lock");
    let failed = |source| io_error("lock", &path, source);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|source| io_error("open the lock file", &path, source))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            // The holder writes its pid after it has the lock, so the text may be missing for a moment.
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            return Err(DataDirError::InUse { dir: dir.into(), pid: holder.trim().parse().ok() });
        }
        Err(TryLockError::Error(source)) => return Err(failed(source)),
    }
    file.set_len(0).map_err(failed)?;
    file.rewind().map_err(failed)?;
    writeln!(file, "{}", std::process::id()).map_err(failed)?;
    Ok(file)
}

fn host_id(path: &Path) -> Result<HostId, DataDirError> {
    match fs::read_to_string(path) {
        Ok(text) => {
            let id = text.trim();
            let digits = id.strip_prefix("h-").filter(|digits| digits.len() == 16);
            match digits {
                Some(digits) if digits.bytes().all(|b| b.is_ascii_hexdigit()) => Ok(HostId(id.into())),
                _ => Err(DataDirError::HostId { path: path.into() }),
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let id = format!("h-{:016x}", fastrand::u64(..));
            write_whole(path, &id).map_err(|source| io_error("write", path, source))?;
            Ok(HostId(id.as_str().into()))
        }
        Err(source) => Err(io_error("read", path, source)),
    }
}

/// Writes beside the file and renames, so that a crash leaves no half a host id.
fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let draft = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(&draft)?;
    writeln!(file, "{text}")?;
    file.sync_all()?;
    fs::rename(&draft, path)
}

fn io_error(doing: &'static str, path: &Path, source: io::Error) -> DataDirError {
    DataDirError::Io { doing, path: path.into(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_host_is_told_who_holds_the_directory() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("deep/er");
        let held = DataDir::open(&dir).unwrap();
        let refused = DataDir::open(&dir).unwrap_err();
        assert!(
            matches!(&refused, DataDirError::InUse { pid: Some(pid), .. } if *pid == std::process::id()),
            "{refused}"
        );
        assert!(refused.to_string().contains(&format!("(pid {})", std::process::id())), "{refused}");
        drop(held);
        DataDir::open(&dir).unwrap();
    }

    #[test]
    fn the_host_id_lasts_and_is_its_own() {
        let temp = tempfile::tempdir().unwrap();
        let first = DataDir::open(&temp.path().join("a")).unwrap().host_id().clone();
        let again = DataDir::open(&temp.path().join("a")).unwrap().host_id().clone();
        let other = DataDir::open(&temp.path().join("b")).unwrap().host_id().clone();
        assert_eq!(first, again);
        assert_ne!(first, other);
    }

    #[test]
    fn a_damaged_host_id_is_named_not_replaced() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("host-id"), "h-zz").unwrap();
        let error = DataDir::open(temp.path()).unwrap_err();
        assert!(matches!(error, DataDirError::HostId { .. }), "{error}");
    }

    #[test]
    fn a_file_in_the_way_is_a_readable_error() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("file");
        fs::write(&path, "").unwrap();
        let error = DataDir::open(&path).unwrap_err().to_string();
        assert!(error.contains("cannot create the folder"), "{error}");
    }
}
