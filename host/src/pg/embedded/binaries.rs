//! Where the server's programs are: what the user named, else the newest that the system has, else what
//! `make setup` installed.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The oldest major version that the log's SQL is written for.
pub const OLDEST: u32 = 15;

/// Names the folder with `initdb` and `postgres`, above all other places.
pub const VARIABLE: &str = "TIDEMILL_POSTGRES_BIN";

/// `make setup` puts the programs here when the system has none. Known at compile time, since cargo may put the
/// host's own program anywhere.
const FROM_SETUP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../.setup/postgres/bin");

/// Why no usable server program was found.
#[derive(Debug, thiserror::Error)]
pub enum BinariesError {
    #[error(
        "no PostgreSQL {OLDEST} or later found on this machine{}; run `make setup`, or install PostgreSQL, or set \
         {VARIABLE} to the folder with initdb and postgres, or use a running server with --database-url",
        found(.too_old)
    )]
    None { too_old: Vec<Version> },
    #[error("{} holds no usable PostgreSQL: {reason}; it must be the folder with initdb and postgres", .dir.display())]
    Named { dir: PathBuf, reason: String },
    #[error(
        "the embedded server's data was made by PostgreSQL {wanted}, but only {} found; install PostgreSQL {wanted}, \
         or move the data with pg_upgrade",
        list(.found)
    )]
    Mismatch { wanted: u32, found: Vec<Version> },
}

/// A server's version, e.g. 15.18.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    pub major: u32,
    pub minor: u32,
}

/// A folder with the server's programs.
#[derive(Clone, Debug)]
pub struct Binaries {
    pub dir: PathBuf,
    pub version: Version,
}

impl Binaries {
    /// Finds the programs. `wanted` is the major version of data that already exists.
    pub fn find(named: Option<&Path>, wanted: Option<u32>) -> Result<Self, BinariesError> {
        let variable = std::env::var_os(VARIABLE).filter(|dir| !dir.is_empty()).map(PathBuf::from);
        let found = match named.map(Path::to_path_buf).or(variable) {
            Some(dir) => vec![at(&dir).map_err(|reason| BinariesError::Named { dir, reason })?],
            None => candidates().iter().filter_map(|dir| at(dir).ok()).collect(),
        };
        choose(found, wanted)
    }

    /// The path of one of the programs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

/// The first that fits, in the order of preference given.
fn choose(found: Vec<Binaries>, wanted: Option<u32>) -> Result<Binaries, BinariesError> {
    let versions = || found.iter().map(|binaries| binaries.version);
    let fits = |binaries: &Binaries| wanted.is_none_or(|major| binaries.version.major == major);
    if !versions().any(|version| version.major >= OLDEST) {
        return Err(BinariesError::None { too_old: versions().collect() });
    }
    match found.iter().find(|binaries| binaries.version.major >= OLDEST && fits(binaries)) {
        Some(binaries) => Ok(binaries.clone()),
        None => {
            Err(BinariesError::Mismatch { wanted: wanted.unwrap_or(OLDEST), found: versions().collect() })
        }
    }
}

/// Folders to look into, best first, each once.
fn candidates() -> Vec<PathBuf> {
    let mut dirs = debian_dirs(Path::new("/usr/lib/postgresql"));
    dirs.extend((OLDEST..OLDEST + 10).rev().map(|major| format!("/usr/pgsql-{major}/bin").into()));
    if let Some(dir) = output("pg_config", "--bindir") {
        dirs.push(dir.trim().into());
    }
    if let Some(path) = std::env::var_os("PATH") {
        dirs.extend(std::env::split_paths(&path).filter(|dir| dir.is_absolute()));
    }
    dirs.push(FROM_SETUP.into());
    let mut seen = std::collections::HashSet::new();
    dirs.retain(|dir| dir.join("postgres").is_file() && seen.insert(dir.clone()));
    dirs
}

/// Debian and Ubuntu keep one folder for each major version; the newest first.
fn debian_dirs(root: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    let mut majors: Vec<u32> =
        entries.filter_map(|entry| entry.file_name().to_str().and_then(|name| name.parse().ok())).collect();
    majors.sort_unstable_by(|a, b| b.cmp(a));
    majors.iter().map(|major| root.join(major.to_string()).join("bin")).collect()
}

/// The programs in a folder, or in its `bin`.
fn at(dir: &Path) -> Result<Binaries, String> {
    let dir = [dir.to_path_buf(), dir.join("bin")]
        .into_iter()
        .find(|dir| dir.join("postgres").is_file())
        .ok_or("there is no program `postgres` in it")?;
    let dir = std::fs::canonicalize(&dir).map_err(|error| error.to_string())?;
    if !dir.join("initdb").is_file() {
        return Err("there is no program `initdb` beside `postgres`".into());
    }
    let text = output(dir.join("postgres"), "--version").ok_or("`postgres --version` does not run")?;
    let version = Version::parse(&text).ok_or_else(|| format!("`postgres --version` says {text:?}"))?;
    Ok(Binaries { dir, version })
}

fn output(program: impl AsRef<OsStr>, argument: &str) -> Option<String> {
    let output = Command::new(program).arg(argument).stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

impl Version {
    /// Reads `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`; a development version counts as minor 0.
    fn parse(text: &str) -> Option<Self> {
        let number = text.split_once("(PostgreSQL) ")?.1.split_whitespace().next()?;
        let mut parts = number.splitn(2, |c: char| !c.is_ascii_digit());
        let major = parts.next()?.parse().ok()?;
        let minor = parts.next().and_then(|rest| rest.parse().ok()).unwrap_or(0);
        Some(Self { major, minor })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

fn list(versions: &[Version]) -> String {
    let names: Vec<String> = versions.iter().map(Version::to_string).collect();
    format!("{} {}", names.join(", "), if names.len() == 1 { "was" } else { "were" })
}

fn found(too_old: &[Version]) -> String {
    if too_old.is_empty() { String::new() } else { format!(" (only {} found)", list(too_old)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binaries(major: u32) -> Binaries {
        Binaries { dir: format!("/pg/{major}").into(), version: Version { major, minor: 1 } }
    }

    #[test]
    fn versions_are_read_as_each_packager_writes_them() {
        let parse = |text| Version::parse(text).map(|v| v.to_string());
        assert_eq!(parse("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n").as_deref(), Some("15.18"));
        assert_eq!(parse("postgres (PostgreSQL) 18.4\n").as_deref(), Some("18.4"));
        assert_eq!(parse("postgres (PostgreSQL) 19devel\n").as_deref(), Some("19.0"));
        assert_eq!(parse("some other program 3.1\n"), None);
    }

    #[test]
    fn existing_data_decides_the_version() {
        let pick = |wanted| choose(vec![binaries(17), binaries(15), binaries(13)], wanted);
        assert_eq!(pick(None).unwrap().version.major, 17);
        assert_eq!(pick(Some(15)).unwrap().version.major, 15);
        let error = pick(Some(16)).unwrap_err();
        assert!(matches!(error, BinariesError::Mismatch { wanted: 16, .. }), "{error}");
    }

    #[test]
    fn a_server_that_is_too_old_is_named() {
        let error = choose(vec![binaries(13), binaries(11)], None).unwrap_err().to_string();
        assert!(error.contains("only 13.1, 11.1 were found") && error.contains("make setup"), "{error}");
        let error = choose(vec![], None).unwrap_err().to_string();
        assert!(error.contains("on this machine; run"), "{error}");
    }

    #[test]
    fn a_named_folder_without_a_server_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let error = Binaries::find(Some(temp.path()), None).unwrap_err();
        assert!(matches!(error, BinariesError::Named { .. }), "{error}");
    }

    #[test]
    fn the_newest_debian_version_comes_first() {
        let temp = tempfile::tempdir().unwrap();
        for name in ["9", "15", "17", "common"] {
            std::fs::create_dir(temp.path().join(name)).unwrap();
        }
        let dirs = debian_dirs(temp.path());
        assert_eq!(dirs, ["17/bin", "15/bin", "9/bin"].map(|dir| temp.path().join(dir)));
    }
}
