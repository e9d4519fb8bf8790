//! Walls around this process, each of which would do alone for what it is there for.
//!
//! | against | walls |
//! | --- | --- |
//! | writing files | file size limit 0; Landlock (nothing may be written); seccomp (no opening for writing, no renaming, ...) |
//! | reading other files | Landlock (only the job's), DuckDB's `allowed_paths` and `allowed_directories` |
//! | the network, other processes | seccomp (no sockets, no programs, no signals); Landlock (TCP, scopes) |
//! | memory, processor time | limits of the address space and of processor time |
//!
//! Limits are a must. Landlock and seccomp depend on the kernel; what is in force is told to the host, which logs it.

use std::io;
use std::path::Path;

use rustix::process::{Resource, Rlimit, setrlimit};

#[cfg(target_os = "linux")]
use tidemill::query::protocol::Source;
use tidemill::query::protocol::{Job, Ready, Wall};

/// What DuckDB reads when it opens, to learn how much memory there is; it does not open without.
#[cfg(target_os = "linux")]
const ABOUT_MEMORY: [&str; 2] = ["/proc/self/cgroup", "/sys/fs/cgroup"];
/// Parquet files that DuckDB may hold open.
const OPEN_FILES: u64 = 1024;

/// What needs no job: no file may grow and no core may be dumped.
pub fn forbid_files() -> io::Result<()> {
    limit(Resource::Core, 0)?;
    limit(Resource::Fsize, 0)?;
    limit(Resource::Nofile, OPEN_FILES)
}

/// Puts up the rest. Must be called while the process has one thread: threads inherit what their parent has.
pub fn enter(job: &Job) -> io::Result<Ready> {
    limit(Resource::As, job.limits.address_space_bytes)?;
    // The first ends the process with a signal of its own, by which the host knows the reason.
    let cpu = job.limits.cpu_seconds;
    setrlimit(Resource::Cpu, Rlimit { current: Some(cpu), maximum: Some(cpu + 1) })?;
    let files = read_only(job)?;
    let calls = no_calls()?;
    Ok(Ready { files, calls })
}

fn limit(resource: Resource, value: u64) -> io::Result<()> {
    Ok(setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) })?)
}

/// The folder of the bucket that the archive is in.
pub fn archive(job: &Job) -> std::path::PathBuf {
    job.root.join("archive")
}

#[cfg(target_os = "linux")]
fn read_only(job: &Job) -> io::Result<Wall> {
    use landlock::{
        ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
        RulesetAttr, RulesetCreatedAttr, RulesetStatus, Scope,
    };

    let abi = ABI::V6;
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(abi)))
        .and_then(|rules| rules.scope(Scope::from_all(abi)))
        .and_then(Ruleset::create)
        .map_err(io::Error::other)?;
    let folder = AccessFs::ReadFile | AccessFs::ReadDir;
    let mut allow = |path: &Path, access: BitFlags<AccessFs>| -> io::Result<()> {
        // What is not there needs no leave.
        if let Ok(fd) = PathFd::new(path) {
            let rule = PathBeneath::new(fd, access);
            (&mut rules).add_rule(rule).map_err(io::Error::other)?;
        }
        Ok(())
    };
    allow(&archive(job), folder)?;
    for path in ABOUT_MEMORY {
        allow(Path::new(path), AccessFs::ReadFile.into())?;
    }
    for view in &job.views {
        if let Source::Files { hot, .. } = &view.source {
            for path in hot {
                allow(path, AccessFs::ReadFile.into())?;
            }
        }
    }
    let status = rules.restrict_self().map_err(io::Error::other)?;
    Ok(match status.ruleset {
        RulesetStatus::FullyEnforced => Wall::Enforced,
        RulesetStatus::PartiallyEnforced => Wall::Partial,
        RulesetStatus::NotEnforced => Wall::Missing,
    })
}

/// System calls that a reader of files has no need of. The lists are in `calls.json`: each filter has its own answer.
#[cfg(target_os = "linux")]
fn no_calls() -> io::Result<Wall> {
    let Ok(arch) = std::env::consts::ARCH.try_into() else {
        return Ok(Wall::Missing);
    };
    let mut lists = vec![include_str!("calls.json")];
    if cfg!(target_arch = "x86_64") {
        lists.push(include_str!("calls_x86_64.json"));
    }
    for list in lists {
        let filters = seccompiler::compile_from_json(list.as_bytes(), arch).map_err(io::Error::other)?;
        for filter in filters.values() {
            if seccompiler::apply_filter(filter).is_err() {
                return Ok(Wall::Missing);
            }
        }
    }
    Ok(Wall::Enforced)
}

#[cfg(not(target_os = "linux"))]
fn read_only(_job: &Job) -> io::Result<Wall> {
    Ok(Wall::Missing)
}

#[cfg(not(target_os = "linux"))]
fn no_calls() -> io::Result<Wall> {
    Ok(Wall::Missing)
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests;
