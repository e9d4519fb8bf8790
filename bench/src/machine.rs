//! Where a figure comes from: it means little without.

use std::path::Path;
use std::process::Command;

use serde::Serialize;
use tidemill::clock::{Clock, rfc3339_with};

use crate::server::Server;

#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    pub at: String,
    /// Of the sources; with `+` if they were changed since.
    pub commit: String,
    /// Built without optimisation, so that the figures say nothing.
    pub debug_build: bool,
    pub system: String,
    pub kernel: String,
    pub cpu: String,
    pub cores: usize,
    pub memory_mib: u64,
    /// The type of the file system that the server's folder is on.
    pub file_system: String,
    pub postgres: String,
    pub fsync: bool,
    pub full_page_writes: bool,
    /// Processes that ran or wanted to, in the minute before the start.
    pub load_before: f64,
}

impl Machine {
    pub fn look(server: &Server) -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        Self {
            at: rfc3339_with(Clock::system().now(), 0),
            commit: commit(),
            debug_build: cfg!(debug_assertions),
            system: field(&read("/etc/os-release"), "PRETTY_NAME", '='),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            cpu: field(&read("/proc/cpuinfo"), "model name", ':'),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_mib: kibibytes(&field(&read("/proc/meminfo"), "MemTotal", ':')) >> 10,
            file_system: file_system(server.folder(), &read("/proc/mounts")),
            postgres: server.durability.version.clone(),
            fsync: server.durability.fsync,
            full_page_writes: server.durability.full_page_writes,
            load_before: load(),
        }
    }

    /// For the head of the table.
    pub fn lines(&self) -> [String; 2] {
        let on_off = |on| if on { "on" } else { "off" };
        let debug = if self.debug_build { ", DEBUG BUILD" } else { "" };
        [
            format!(
                "{} vCPU ({}), {:.0} GiB, {}, kernel {}, {}; load before {:.1}",
                self.cores,
                self.cpu,
                self.memory_mib as f64 / 1024.0,
                self.system,
                self.kernel,
                self.file_system,
                self.load_before,
            ),
            format!(
                "embedded PostgreSQL {}, fsync {}, full_page_writes {}; commit {}{debug}; {}",
                self.postgres,
                on_off(self.fsync),
                on_off(self.full_page_writes),
                self.commit,
                self.at,
            ),
        ]
    }
}

/// The load of the last minute.
pub fn load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or_default()
}

fn commit() -> String {
    let git = |arguments: &[&str]| {
        let ran =
            Command::new("git").args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output().ok()?;
        ran.status.success().then(|| String::from_utf8_lossy(&ran.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short", "HEAD"]) else { return "unknown".to_owned() };
    let changed =
        git(&["status", "--porcelain", "--untracked-files=no"]).is_none_or(|changes| !changes.is_empty());
    format!("{commit}{}", if changed { "+" } else { "" })
}

/// The value of the first line that begins with `name`.
fn field(text: &str, name: &str, sign: char) -> String {
    let line = text.lines().find(|line| line.starts_with(name));
    let value = line.and_then(|line| line.split_once(sign)).map(|(_, value)| value);
    value.unwrap_or("unknown").trim().trim_matches('"').to_owned()
}

fn kibibytes(text: &str) -> u64 {
    text.trim_end_matches("kB").trim().parse().unwrap_or_default()
}

fn file_system(folder: &Path, mounts: &str) -> String {
    let fields = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((fields.next()?, fields.next()?))
    });
    let above = fields.filter(|(place, _)| folder.starts_with(place));
    above
        .max_by_key(|(place, _)| place.len())
        .map_or_else(|| "unknown".to_owned(), |(_, kind)| kind.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_system_is_that_of_the_nearest_mount() {
        let mounts = "/dev/vda / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\ntmpfs /tmp2 xfs rw 0 0\n";
        assert_eq!(file_system(Path::new("/tmp/a"), mounts), "tmpfs");
        assert_eq!(file_system(Path::new("/var"), mounts), "ext4");
    }

    #[test]
    fn fields_are_read_without_their_quotes() {
        assert_eq!(field("A=1\nPRETTY_NAME=\"Debian 12\"\n", "PRETTY_NAME", '='), "Debian 12");
        assert_eq!(kibibytes(&field("MemTotal:       2048 kB\n", "MemTotal", ':')), 2048);
        assert_eq!(field("", "MemTotal", ':'), "unknown");
    }
}
