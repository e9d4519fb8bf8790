//! Which user the server runs as. Postgres refuses to run as root, so root's host starts it as somebody else.

use std::io;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Users to run as in root's place, best first. `postgres` is there where the system's package is installed.
const CANDIDATES: [&str; 2] = ["postgres", "nobody"];

/// Says that root's host found nobody to run the server as.
#[derive(Debug, thiserror::Error)]
#[error(
    "postgres does not run as root, and this system has neither a user `postgres` nor `nobody`; create one (useradd \
     --system postgres), run tidemill as a normal user, or use a running server with --database-url"
)]
pub struct NoAccount;

/// The user that the server runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Account {
    /// The host's own.
    Same,
    /// Root's host steps down to this one.
    Other { name: String, uid: u32, gid: u32 },
}

impl Account {
    /// The account for a server started by this process.
    pub fn choose() -> Result<Self, NoAccount> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self::Same);
        }
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        CANDIDATES.iter().find_map(|name| entry(&passwd, name)).ok_or(NoAccount)
    }

    /// The numeric user id that files of the server belong to.
    pub fn uid(&self) -> u32 {
        match self {
            Self::Same => rustix::process::geteuid().as_raw(),
            Self::Other { uid, .. } => *uid,
        }
    }

    /// A command that runs as this user, from the root directory, with none of the caller's `PG*` or locale
    /// variables and without standard input.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir("/").stdin(Stdio::null());
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("PG") || text.starts_with("LC_") || text.starts_with("LANG") {
                command.env_remove(&name);
            }
        }
        command.env("LC_ALL", "C").env("TZ", "UTC");
        if let Self::Other { uid, gid, .. } = self {
            command.uid(*uid).gid(*gid).env("HOME", "/");
        }
        command
    }

    /// Hands a path over to this user.
    pub fn own(&self, path: &Path) -> io::Result<()> {
        match self {
            Self::Same => Ok(()),
            Self::Other { uid, gid, .. } => chown(path, Some(*uid), Some(*gid)),
        }
    }

    /// Whether this user may enter `dir` and run `program`. It is tried, not computed from mode bits, so that access
    /// lists, mounts and security modules count too.
    pub fn can_run_in(&self, program: &Path, dir: &Path) -> bool {
        let mut command = self.command(program);
        command.arg("--version").current_dir(dir).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    }
}

fn entry(passwd: &str, wanted: &str) -> Option<Account> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _, uid, gid) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let (uid, gid) = (uid.parse().ok()?, gid.parse().ok()?);
        (name == wanted && uid != 0).then(|| Account::Other { name: name.into(), uid, gid })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_found_by_its_whole_name() {
        let passwd =
            "root:x:0:0::/root:/bin/sh\npostgresql:x:7:7::/:/bin/sh\npostgres:x:101:104:a,b:/x:/bin/sh\n";
        let account = Account::Other { name: "postgres".into(), uid: 101, gid: 104 };
        assert_eq!(entry(passwd, "postgres"), Some(account));
        assert_eq!(entry(passwd, "nobody"), None);
    }

    #[test]
    fn an_alias_of_root_is_no_account() {
        assert_eq!(entry("nobody:x:0:0::/:/bin/sh\n", "nobody"), None);
    }
}
