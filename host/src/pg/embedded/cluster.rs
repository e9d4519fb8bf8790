//! Making the cluster: `initdb` into a folder beside, then a rename, so that a cluster is whole or not there.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::account::Account;
use super::binaries::Binaries;
use super::layout::{Layout, LayoutError, private_dir};

/// Why there is no cluster to start.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error("initdb failed in {}: {output}", .dir.display())]
    Initdb { dir: PathBuf, output: String },
    #[error(transparent)]
    Layout(#[from] LayoutError),
    #[error("cannot {doing} {}: {source}", .path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
}

/// Creates the cluster unless it is there. Blocks for a second or two the first time. Says whether it did.
///
/// Log-ins are not asked for a password, because only the server's user (and root) can enter the socket's folder; over
/// TCP all are refused, should somebody open a port.
pub fn create(layout: &Layout, binaries: &Binaries, account: &Account) -> Result<bool, ClusterError> {
    if layout.cluster.join("PG_VERSION").is_file() {
        return Ok(false);
    }
    let draft = layout.home.join("data.new");
    if draft.exists() {
        fs::remove_dir_all(&draft)
            .map_err(|source| io_error("remove what a crash left in", &draft, source))?;
    }
    private_dir(&draft, account)?;
    initdb(&draft, binaries, account)?;
    fs::rename(&draft, &layout.cluster).map_err(|source| io_error("rename", &draft, source))?;
    fs::File::open(&layout.home)
        .and_then(|home| home.sync_all())
        .map_err(|source| io_error("sync", &layout.home, source))?;
    Ok(true)
}

fn initdb(dir: &Path, binaries: &Binaries, account: &Account) -> Result<(), ClusterError> {
    let program = binaries.program("initdb");
    let output = account
        .command(&program)
        .arg("--pgdata")
        .arg(dir)
        .args(["--username", super::NAME, "--encoding", "UTF8", "--locale", "C", "--data-checksums"])
        .args(["--auth-local", "trust", "--auth-host", "reject"])
        .output()
        .map_err(|source| io_error("run", &program, source))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(ClusterError::Initdb { dir: dir.into(), output: text.trim().replace('\n', "; ") })
}

/// Whether this build of Postgres compresses with lz4: some come with `pglz` only. Asked of the program itself, before
/// the server runs.
pub fn has_lz4(cluster: &Path, binaries: &Binaries, account: &Account) -> bool {
    let mut command = account.command(&binaries.program("postgres"));
    command
        .args(["-C", "default_toast_compression", "-c", "default_toast_compression=lz4", "-D"])
        .arg(cluster);
    command.output().is_ok_and(|output| output.status.success())
}

fn io_error(doing: &'static str, path: &Path, source: io::Error) -> ClusterError {
    ClusterError::Io { doing, path: path.into(), source }
}
