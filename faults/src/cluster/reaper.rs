//! Leaves no process behind, however this one ends.
//!
//! A shell waits on a pipe that only this process holds open. When it closes (a return, a panic, Ctrl-C, kill -9) the shell
//! ends every process that is still noted in the folder `pids`, with the signal noted there. Logs stay: whoever started the
//! run removes the folder when all is well.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

/// `$0` is the folder. Postgres is told to stop at once and waited for; a host is killed, also when it is stopped. One that
/// has ended and that nobody waits for any more (Z) is no process to wait for.
const REAPER: &str = r#"
    read -r _
    for file in "$0"/pids/*; do
        [ -f "$file" ] && kill -"$(cat "$file")" "${file##*/}" 2>/dev/null
    done
    for file in "$0"/pids/*; do
        while [ -f "$file" ] && kill -0 "${file##*/}" 2>/dev/null &&
            ! grep -qs '^State:.*Z' "/proc/${file##*/}/status"; do sleep 0.1; done
    done
"#;

/// Ends what was noted when it is dropped.
pub struct Reaper {
    folder: PathBuf,
    shell: Child,
}

impl Reaper {
    /// For a run in `folder`, which is made here.
    pub fn start(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder.join("pids")).with_context(|| folder.display().to_string())?;
        let mut command = Command::new("sh");
        // A group of its own: Ctrl-C ends the run, and the cleaning goes on.
        command.arg("-c").arg(REAPER).arg(folder).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let shell = command.spawn().context("a shell that cleans up")?;
        Ok(Self { folder: folder.to_path_buf(), shell })
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        self.shell.stdin.take();
        let _ = self.shell.wait();
        let _ = std::fs::remove_dir_all(self.folder.join("pids"));
    }
}

/// Notes a process that must not outlive the run, with the name of the signal that ends it.
pub fn note(folder: &Path, pid: u32, signal: &str) -> Result<()> {
    let file = folder.join("pids").join(pid.to_string());
    std::fs::write(&file, signal).with_context(|| file.display().to_string())
}

/// Forgets a process that has ended and was waited for.
pub fn forget(folder: &Path, pid: u32) {
    let _ = std::fs::remove_file(folder.join("pids").join(pid.to_string()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_ends_with_the_reaper_also_when_it_is_stopped() {
        let folder = std::env::temp_dir().join(format!("tidemill-reaper-{}", std::process::id()));
        let reaper = Reaper::start(&folder).unwrap();
        let start = || Command::new("sleep").arg("600").spawn().unwrap();
        let (mut running, mut stopped, mut forgotten) = (start(), start(), start());
        for child in [&running, &stopped, &forgotten] {
            note(&folder, child.id(), "KILL").unwrap();
        }
        let pid = rustix::process::Pid::from_child(&stopped);
        rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
        forget(&folder, forgotten.id());
        drop(reaper);
        assert!(!running.wait().unwrap().success());
        assert!(!stopped.wait().unwrap().success());
        assert!(forgotten.try_wait().unwrap().is_none(), "it was forgotten, and is ended");
        forgotten.kill().unwrap();
        forgotten.wait().unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
