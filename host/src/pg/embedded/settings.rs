//! Server settings that suit a log: large sequential appends, many small commits, few connections.
//!
//! They are given on the command line, so that they follow the machine and this version of the host, and no file in
//! the server's folder has to be rewritten by another user.

use std::path::Path;

use super::layout::PORT;

const MIB: u64 = 1024 * 1024;

/// What the server's processes find in their environment. A backend takes megabytes for each large batch and gives them
/// back; glibc hands such blocks to the kernel and gets them again page by page, which was a quarter of the processor time
/// of appends of 8,000 records (1.05 us a record, with these 0.77). So it keeps up to 16 MiB, and blocks up to 8 MiB come
/// from there: a batch row has 4 MiB at most. Other C libraries do not know these names.
pub const ENVIRONMENT: [(&str, &str); 3] = [
    ("MALLOC_TRIM_THRESHOLD_", "16777216"),
    ("MALLOC_MMAP_THRESHOLD_", "8388608"),
    ("MALLOC_TOP_PAD_", "1048576"),
];

/// The part of memory given to Postgres: a quarter, since the host's wasm instances and the file cache share the
/// machine; and no more than 512 MiB, since a log is read near its end and the file cache serves the rest.
fn shared_buffers(memory: u64) -> u64 {
    (memory / 4).clamp(32 * MIB, 512 * MIB)
}

/// The settings, in the order given to the server. `lz4` says whether this build can compress with it.
pub fn settings(memory: u64, lz4: bool, sockets: &Path) -> Vec<(&'static str, String)> {
    let compression = if lz4 { "lz4" } else { "pglz" };
    let fixed = [
        // Reachable through the socket's folder only.
        ("listen_addresses", ""),
        ("unix_socket_permissions", "0700"),
        // An acknowledged record survives a crash: never traded for speed.
        ("fsync", "on"),
        ("full_page_writes", "on"),
        ("synchronous_commit", "on"),
        // Appends write each page once, so longer checkpoints mean fewer full-page images in the WAL.
        ("max_wal_size", "4GB"),
        ("min_wal_size", "256MB"),
        ("checkpoint_timeout", "15min"),
        ("checkpoint_completion_target", "0.9"),
        ("max_connections", "100"),
        // A forgotten transaction holds back vacuum of the counter rows, which every append updates.
        ("idle_in_transaction_session_timeout", "60s"),
        ("autovacuum_naptime", "15s"),
        ("random_page_cost", "1.1"),
        // Compiling a plan costs more than any statement of the log.
        ("jit", "off"),
        ("timezone", "UTC"),
        ("log_timezone", "UTC"),
        // To standard error, which is a file that the host keeps short.
        ("logging_collector", "off"),
        ("log_destination", "stderr"),
        ("log_line_prefix", "%m [%p] %q%a "),
        ("log_checkpoints", "off"),
        ("wal_compression", compression),
        ("default_toast_compression", compression),
    ];
    let mut settings: Vec<_> = fixed.into_iter().map(|(name, value)| (name, value.to_owned())).collect();
    settings.push(("unix_socket_directories", quoted(&sockets.to_string_lossy())));
    settings.push(("port", PORT.to_string()));
    settings.push(("shared_buffers", format!("{}MB", shared_buffers(memory) / MIB)));
    settings
}

/// The setting is a list, in which a path with a comma or a space needs quotes.
fn quoted(path: &str) -> String {
    format!("\"{}\"", path.replace('"', "\"\""))
}

/// Bytes of memory that this process may use: the machine's, or the container's when that is less.
pub fn memory() -> u64 {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let machine = mem_total(&read("/proc/meminfo")).unwrap_or(1024 * MIB);
    let limits = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    limits.iter().filter_map(|path| read(path).trim().parse().ok()).fold(machine, u64::min)
}

fn mem_total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_buffers_follow_the_machine_within_bounds() {
        assert_eq!(shared_buffers(1024 * MIB), 256 * MIB);
        assert_eq!(shared_buffers(64 * 1024 * MIB), 512 * MIB);
        assert_eq!(shared_buffers(16 * MIB), 32 * MIB);
    }

    #[test]
    fn total_memory_is_read_from_meminfo() {
        assert_eq!(mem_total("MemTotal:       24689764 kB\nMemFree: 1 kB\n"), Some(24_689_764 * 1024));
        assert_eq!(mem_total(""), None);
    }
}
