//! What a case is run with: how much, from which seed, and where its files go.
//!
//! All chance comes from the seed. Each role (a producer, the one who injects faults, ...) has a generator of its own, drawn
//! from seed, case and role, so that one role's draws do not depend on how far another got.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use fastrand::Rng;
use tidemill::clock::{Clock, rfc3339};

/// How much is injected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// The figures of `docs/reliability.md`.
    Full,
    /// The same cases in seconds, for each change of the code.
    Fast,
}

/// One run of one case.
#[derive(Clone, Debug)]
pub struct Run {
    pub case: &'static str,
    pub scale: Scale,
    pub seed: u64,
    /// Of the case's own, with logs of hosts and Postgres; kept when the case fails.
    pub folder: PathBuf,
    /// The program under test.
    pub tidemill: PathBuf,
    /// Components that pipelines name.
    pub plugins: PathBuf,
    /// In place of the case's own number of injections.
    pub rounds: Option<u32>,
    /// For a case that has no end of its own.
    pub lasts: Duration,
}

impl Run {
    /// A generator for one role of the case.
    pub fn rng(&self, role: &str) -> Rng {
        // FNV-1a, so that the draws of a seed stay the same from build to build.
        let mut hash = self.seed ^ 0xcbf2_9ce4_8422_2325;
        for byte in self.case.bytes().chain([b'/']).chain(role.bytes()) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        Rng::with_seed(hash)
    }

    /// The same run in a folder below its own, for a case that needs several clusters. Short, as a socket's path must be.
    pub fn inside(&self, name: &str) -> Self {
        Self { folder: self.folder.join(name), ..self.clone() }
    }

    /// One of two sizes.
    pub fn size(&self, full: u32, fast: u32) -> u32 {
        match self.scale {
            Scale::Full => full,
            Scale::Fast => fast,
        }
    }

    /// How often the case injects its fault.
    pub fn rounds(&self, full: u32, fast: u32) -> u32 {
        self.rounds.unwrap_or_else(|| self.size(full, fast))
    }

    /// Notes a fault in `faults.log`, with the time as hosts log it, so that the two can be laid side by side.
    pub fn note(&self, what: impl std::fmt::Display) {
        let now = rfc3339(Clock::system().now());
        let file = File::options().create(true).append(true).open(self.folder.join("faults.log"));
        // It helps whoever looks for a cause, and decides nothing.
        let _ = file.and_then(|mut file| writeln!(file, "{now} {what}"));
    }

    /// Says how far the case is; a line in the terminal, so not too often.
    pub fn say(&self, what: impl std::fmt::Display) {
        eprintln!("  {}: {what}", self.case);
    }
}

/// The program beside this one, unless another is named: tests have it one folder up.
pub fn tidemill(named: Option<PathBuf>) -> Result<PathBuf> {
    if let Some(path) = named {
        return path.canonicalize().with_context(|| path.display().to_string());
    }
    let own = std::env::current_exe().context("where this program is")?;
    let beside = own.with_file_name("tidemill");
    if !beside.is_file() {
        bail!(
            "there is no {}; build it (cargo build --workspace), or name a program with --tidemill",
            beside.display()
        );
    }
    Ok(beside)
}

/// The folder of built components in this checkout.
pub fn plugins() -> Result<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/dist");
    folder.canonicalize().context("there are no components in plugins/dist; run: make plugins")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(seed: u64) -> Run {
        Run {
            case: "R0",
            scale: Scale::Fast,
            seed,
            folder: PathBuf::new(),
            tidemill: PathBuf::new(),
            plugins: PathBuf::new(),
            rounds: None,
            lasts: Duration::ZERO,
        }
    }

    #[test]
    fn a_seed_gives_each_role_the_same_draws_again() {
        let draw = |seed, role: &str| run(seed).rng(role).u64(..);
        assert_eq!(draw(42, "faults"), draw(42, "faults"));
        assert_ne!(draw(42, "faults"), draw(42, "producer 0"));
        assert_ne!(draw(42, "faults"), draw(43, "faults"));
    }
}
