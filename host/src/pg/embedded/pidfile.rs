//! Finding a server that is already there: a kill -9 of the host leaves Postgres running, and a kill -9 of Postgres
//! leaves its pid file behind, perhaps with a pid that now belongs to somebody else.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::Pid;

/// What `postmaster.pid` and the process table say about a cluster.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// No pid file, or one whose process is gone. Postgres itself judges what is left of its shared memory.
    Nobody,
    /// The pid now belongs to a process that has nothing to do with the cluster.
    Stranger(Pid),
    /// A postmaster of this cluster.
    Server(Running),
}

/// A postmaster as its pid file describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    pub pid: Pid,
    pub port: u16,
    /// Empty when it listens on no socket.
    pub sockets: PathBuf,
    pub stopping: bool,
}

/// Looks for the cluster's postmaster. `cluster` is without symbolic links.
pub fn look(cluster: &Path) -> Found {
    let text = fs::read_to_string(path(cluster)).unwrap_or_default();
    let Some(running) = parse(&text) else {
        return Found::Nobody;
    };
    if !is_alive(running.pid) {
        Found::Nobody
    } else if is_postgres_in(running.pid, cluster) {
        Found::Server(running)
    } else {
        Found::Stranger(running.pid)
    }
}

/// The cluster's pid file.
pub fn path(cluster: &Path) -> PathBuf {
    cluster.join("postmaster.pid")
}

/// Line by line: pid, data directory, start time, port, first socket directory, listen address, shared memory, status.
fn parse(text: &str) -> Option<Running> {
    let lines: Vec<&str> = text.lines().collect();
    let pid = Pid::from_raw(lines.first()?.trim().parse().ok()?)?;
    let line = |number: usize| lines.get(number - 1).map_or("", |line| line.trim());
    Some(Running {
        pid,
        port: line(4).parse().unwrap_or(super::layout::PORT),
        sockets: line(5).into(),
        stopping: line(8) == "stopping",
    })
}

/// Whether the process exists; a zombie counts until it is reaped.
pub fn is_alive(pid: Pid) -> bool {
    match rustix::process::test_kill_process(pid) {
        Ok(()) => true,
        Err(error) => error == rustix::io::Errno::PERM,
    }
}

/// Whether any process of the server still works in the cluster: after a kill -9 of the postmaster its children need a
/// moment to notice.
pub fn has_leftovers(cluster: &Path) -> bool {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str().and_then(|name| name.parse().ok()));
    pids.filter_map(Pid::from_raw).any(|pid| is_postgres_in(pid, cluster))
}

/// Every process of a Postgres server has the cluster as its working directory.
fn is_postgres_in(pid: Pid, cluster: &Path) -> bool {
    let process = PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero()));
    let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
    name.starts_with("postgres") && fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd == cluster)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str =
        "4242\n/data/postgres/data\n1700000000\n5432\n/data/postgres/run\n\n  12345 9\nready   \n";

    #[test]
    fn a_pid_file_is_read_in_all_its_stages() {
        let running = parse(FILE).unwrap();
        assert_eq!(running.pid.as_raw_nonzero().get(), 4242);
        assert_eq!((running.port, running.stopping), (5432, false));
        assert_eq!(running.sockets, Path::new("/data/postgres/run"));
        assert!(parse(&FILE.replace("ready   ", "stopping")).unwrap().stopping);
        assert_eq!(parse("4242\n/data/postgres/data\n").unwrap().sockets, Path::new(""));
        assert_eq!(parse(""), None);
        assert_eq!(parse("0\n"), None);
    }

    #[test]
    fn a_pid_that_was_given_to_somebody_else_is_a_stranger() {
        let temp = tempfile::tempdir().unwrap();
        assert_eq!(look(temp.path()), Found::Nobody);
        fs::write(path(temp.path()), format!("{}\n", std::process::id())).unwrap();
        assert!(matches!(look(temp.path()), Found::Stranger(_)));
    }
}
