//! Where the embedded server's files are.
//!
//! ```text
//! <data dir>/postgres/        the host's; the server's user may only pass through
//!     data/                   the cluster, owned by the server's user, 0700
//!     run/                    the socket, owned by the server's user, 0700: who can enter it may log in
//!     server.log
//! ```
//!
//! Two things can force another place. Root's server runs as another user, who cannot reach a folder under `/root`:
//! `postgres` is then a link into `/var/lib/tidemill`. And a socket's path may have 107 bytes at most, so that a
//! deep data directory has its socket in a short private folder elsewhere.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use super::account::Account;
use super::binaries::Binaries;
use crate::pg::datadir::DataDir;

/// Only names the socket file, as the server has no TCP port.
pub const PORT: u16 = 5432;

/// The longest socket path: 107 bytes on Linux, 103 on macOS and the BSDs.
const SOCKET_PATH_MAX: usize = 103;

/// Where root's server lives when its user cannot reach the data directory. Not a temporary folder: those are
/// cleaned of old files while this holds the log.
const ELSEWHERE: &str = "/var/lib/tidemill";

/// Why the server's files cannot be placed.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    #[error(
        "the user {user:?}, whom root's Postgres runs as, cannot run {}; put the programs where everyone may run them, \
         or run tidemill as a normal user",
        .program.display()
    )]
    Programs { user: String, program: PathBuf },
    #[error(
        "the user {user:?}, whom root's Postgres runs as, cannot reach its data in {}; allow passing through with \
         chmod o+x on the folders above, or move the data directory",
        .home.display()
    )]
    Unreachable { user: String, home: PathBuf },
    #[error(
        "{} points to {}, which is not there; put it back, or delete the link to start with an empty server",
        .link.display(), .target.display()
    )]
    Dangling { link: PathBuf, target: PathBuf },
    #[error("the folder {} must belong to user id {uid} and be closed to others (mode 0700); remove it", .dir.display())]
    NotPrivate { dir: PathBuf, uid: u32 },
    #[error("cannot {doing} {}: {source}", .path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
}

/// The places of one embedded server, all absolute.
#[derive(Clone, Debug)]
pub struct Layout {
    pub home: PathBuf,
    pub cluster: PathBuf,
    pub sockets: PathBuf,
    pub log: PathBuf,
}

impl Layout {
    /// The folder that holds (or will hold) the server's files, without creating anything.
    pub fn home(data_dir: &DataDir) -> PathBuf {
        data_dir.path().join("postgres")
    }

    /// The major version of the data that is already there.
    pub fn existing_major(data_dir: &DataDir) -> Option<u32> {
        let version = Self::home(data_dir).join("data/PG_VERSION");
        fs::read_to_string(version).ok()?.trim().parse().ok()
    }

    /// Creates the folders with their owners and modes, where the server's user can reach them.
    pub fn prepare(data_dir: &DataDir, account: &Account, binaries: &Binaries) -> Result<Self, LayoutError> {
        let home = place_home(data_dir, account, &binaries.program("postgres"))?;
        let layout = Self {
            cluster: home.join("data"),
            sockets: socket_dir(&home, data_dir.host_id().0.as_ref(), account),
            log: home.join("server.log"),
            home,
        };
        private_dir(&layout.sockets, account)?;
        Ok(layout)
    }

    /// Removes the socket's folder where it is in a shared place. Only an empty one goes.
    pub fn tidy_up(&self) {
        if !self.sockets.starts_with(&self.home) {
            let _ = fs::remove_dir(&self.sockets);
        }
    }

    /// A URL that psql and every driver take. The name `localhost` only fills the place of a host: some URL parsers
    /// refuse a user name without one, and the `host` parameter goes before it.
    pub fn url(&self, sockets: &Path, port: u16) -> String {
        let path = percent_encode(&sockets.to_string_lossy());
        format!("postgres://{0}@localhost:{port}/{0}?host={path}", super::NAME)
    }
}

/// The server's folder, created if need be, and proved to be within the server's reach.
fn place_home(data_dir: &DataDir, account: &Account, program: &Path) -> Result<PathBuf, LayoutError> {
    let wanted = Layout::home(data_dir);
    if let Ok(target) = fs::read_link(&wanted)
        && !wanted.exists()
    {
        return Err(LayoutError::Dangling { link: wanted, target });
    }
    let Account::Other { name: user, .. } = account else {
        create_dir(&wanted, 0o700)?;
        return canonical(&wanted);
    };
    if !account.can_run_in(program, Path::new("/")) {
        return Err(LayoutError::Programs { user: user.clone(), program: program.into() });
    }
    let is_new = !wanted.exists();
    if is_new {
        create_dir(&wanted, 0o711)?;
    }
    let home = canonical(&wanted)?;
    if account.can_run_in(program, &home) {
        return Ok(home);
    }
    if !is_empty(&home) {
        return Err(LayoutError::Unreachable { user: user.clone(), home });
    }
    fs::remove_dir(&home).map_err(|source| io_error("remove the empty folder", &home, source))?;
    let home = elsewhere(data_dir.host_id().0.as_ref())?;
    if !account.can_run_in(program, &home) {
        return Err(LayoutError::Unreachable { user: user.clone(), home });
    }
    symlink(&home, &wanted).map_err(|source| io_error("create the link", &wanted, source))?;
    tracing::info!(
        data_dir = %data_dir.path().display(), place = %home.display(), user,
        "the user that Postgres runs as cannot reach the data directory, so the server's files are elsewhere"
    );
    Ok(home)
}

/// A folder of root's own, named after the host id: whoever deletes the data directory gets an empty server.
fn elsewhere(host_id: &str) -> Result<PathBuf, LayoutError> {
    let parent = Path::new(ELSEWHERE);
    create_dir(parent, 0o711)?;
    let home = parent.join(host_id);
    create_dir(&home, 0o711)?;
    canonical(&home)
}

/// `run` in the server's folder, unless the socket's path would be too long there.
fn socket_dir(home: &Path, host_id: &str, account: &Account) -> PathBuf {
    let fits = |dir: &Path| dir.as_os_str().len() + format!("/.s.PGSQL.{PORT}").len() <= SOCKET_PATH_MAX;
    let beside = home.join("run");
    if fits(&beside) {
        return beside;
    }
    let name = format!("tidemill-{host_id}");
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    runtime
        .filter(|dir| *account == Account::Same && dir.is_dir())
        .map(|dir| dir.join(&name))
        .filter(|dir| fits(dir))
        .unwrap_or_else(|| Path::new("/tmp").join(&name))
}

/// A folder that only the server's user enters. In a shared place like `/tmp` somebody else may have made it first,
/// and `mkdir` may not have honoured the mode: both are checked, because the folder is the server's password.
pub(super) fn private_dir(dir: &Path, account: &Account) -> Result<(), LayoutError> {
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => account.own(dir).map_err(|source| io_error("hand over", dir, source))?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(source) => return Err(io_error("create the folder", dir, source)),
    }
    let meta = fs::symlink_metadata(dir).map_err(|source| io_error("look at", dir, source))?;
    if meta.is_dir() && meta.uid() == account.uid() && meta.mode() & 0o077 == 0 {
        Ok(())
    } else {
        Err(LayoutError::NotPrivate { dir: dir.into(), uid: account.uid() })
    }
}

fn create_dir(dir: &Path, mode: u32) -> Result<(), LayoutError> {
    match fs::DirBuilder::new().mode(mode).create(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
        result => result.map_err(|source| io_error("create the folder", dir, source)),
    }
}

fn canonical(path: &Path) -> Result<PathBuf, LayoutError> {
    fs::canonicalize(path).map_err(|source| io_error("resolve", path, source))
}

fn is_empty(dir: &Path) -> bool {
    fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none())
}

fn io_error(doing: &'static str, path: &Path, source: io::Error) -> LayoutError {
    LayoutError::Io { doing, path: path.into(), source }
}

fn percent_encode(path: &str) -> String {
    let mut encoded = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_deep_data_directory_has_its_socket_elsewhere() {
        let near = socket_dir(Path::new("/data/postgres"), "h-1", &Account::Same);
        assert_eq!(near, Path::new("/data/postgres/run"));
        let deep = PathBuf::from(format!("/{}", "d".repeat(95)));
        let far = socket_dir(&deep, "h-1", &Account::Same);
        assert!(far.ends_with("tidemill-h-1") && far.as_os_str().len() < 60, "{}", far.display());
    }

    #[test]
    fn an_open_folder_is_refused_as_socket_folder() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("run");
        private_dir(&dir, &Account::Same).unwrap();
        private_dir(&dir, &Account::Same).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o750)).unwrap();
        let error = private_dir(&dir, &Account::Same).unwrap_err();
        assert!(matches!(error, LayoutError::NotPrivate { .. }), "{error}");
    }

    #[test]
    fn a_link_is_refused_as_socket_folder() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("run");
        symlink("/etc", &dir).unwrap();
        assert!(private_dir(&dir, &Account::Same).is_err());
    }

    #[test]
    fn odd_characters_in_a_path_survive_the_url() {
        assert_eq!(percent_encode("/a b/ü+&%"), "/a%20b/%C3%BC%2B%26%25");
    }
}
