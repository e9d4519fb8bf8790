//! Compilers: whether they are there, what to do if not, and how each makes a component.

use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context;
use serde::Deserialize;

use super::Language;
use crate::cli::Invalid;
use crate::plugin::PluginKind;

const TARGET: &str = "wasm32-wasip2";
/// The oldest Node.js that the tools of TypeScript and C run on.
const NODE: (u32, u32) = (20, 19);
/// Where the tools are that projects share, if somewhere.
const TOOLS: &str = "TIDEMILL_TOOLS";

/// Looks whether the tools that cannot be installed into a project are there.
///
/// # Errors
///
/// What to install, in one command where there is one.
pub(super) fn check(language: Language) -> Result<(), Invalid> {
    match language {
        Language::Rust => rust(),
        Language::TypeScript => node(),
        Language::Python => python(),
        Language::C => node().and_then(|()| python()),
    }
}

fn rust() -> Result<(), Invalid> {
    let install = "curl --proto '=https' -sSf https://sh.rustup.rs | sh";
    answer("cargo", &["--version"]).ok_or_else(|| missing("cargo", install))?;
    let folder = answer("rustc", &["--print", "target-libdir", "--target", TARGET]);
    match folder.is_some_and(|folder| Path::new(folder.trim()).is_dir()) {
        true => Ok(()),
        false => Err(missing(&format!("the Rust target {TARGET}"), &format!("rustup target add {TARGET}"))),
    }
}

fn node() -> Result<(), Invalid> {
    let wanted = format!("Node.js {}.{} or later", NODE.0, NODE.1);
    let install = "curl -fsSL https://fnm.vercel.app/install | bash && fnm install 22";
    let version = answer("node", &["--version"]).ok_or_else(|| missing(&wanted, install))?;
    if version_of(&version).is_none_or(|version| version < NODE) {
        return Err(missing(&format!("{wanted} (there is {})", version.trim()), install));
    }
    answer("npm", &["--version"]).map(drop).ok_or_else(|| missing("npm, which comes with Node.js,", install))
}

fn python() -> Result<(), Invalid> {
    answer("python3", &["--version"])
        .ok_or_else(|| missing("python3", "apt-get install python3 python3-pip"))?;
    let pip = answer("python3", &["-m", "pip", "--version"]);
    pip.map(drop).ok_or_else(|| missing("pip of python3", "apt-get install python3-pip"))
}

fn missing(what: &str, install: &str) -> Invalid {
    Invalid(format!("{what} is missing; install it with: {install}"))
}

/// `v20.19.1` as (20, 19).
fn version_of(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.trim().trim_start_matches('v').split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// What a program says; None if it is not there or fails.
fn answer(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Makes the component of the project in `dir` as the file `out`. Both paths are absolute.
pub(super) fn build(language: Language, kind: PluginKind, dir: &Path, out: &Path) -> anyhow::Result<()> {
    if language == Language::Rust {
        let component = cargo(dir)?;
        std::fs::copy(&component, out).with_context(|| format!("cannot copy {}", component.display()))?;
        return Ok(());
    }
    if std::env::var_os(TOOLS).is_none() {
        run(Command::new("sh").args(["tools/install.sh", ".tools", language.as_str()]).current_dir(dir))?;
    }
    let mut command = match language {
        Language::Python => {
            let mut command = Command::new("sh");
            command.args(["sdk/build.sh", language.source()]).arg(out).env("WORLD", world(kind));
            command
        }
        _ => {
            let mut command = Command::new("node");
            let world = if language == Language::C { kind.to_string() } else { world(kind) };
            command.args(["sdk/build.mjs", language.source()]).arg(out).args(["--world", &world]);
            command
        }
    };
    run(command.current_dir(dir))
}

fn world(kind: PluginKind) -> String {
    format!("tidemill:plugin/{kind}")
}

/// What Cargo says of a crate that it has built.
#[derive(Deserialize)]
struct Artifact {
    reason: String,
    manifest_path: Option<PathBuf>,
    #[serde(default)]
    filenames: Vec<PathBuf>,
}

/// Builds a package, and says where its component is.
fn cargo(dir: &Path) -> anyhow::Result<PathBuf> {
    let format = "--message-format=json-render-diagnostics";
    let mut command = Command::new("cargo");
    command.args(["build", "--release", "--target", TARGET, format]).current_dir(dir);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().context("cannot start cargo")?;
    let manifest = dir.join("Cargo.toml");
    let mut found = None;
    for line in child.stdout.take().map(BufReader::new).into_iter().flat_map(BufRead::lines) {
        let line = line.context("cannot read what cargo says")?;
        let Ok(artifact) = serde_json::from_str::<Artifact>(&line) else { continue };
        if artifact.reason == "compiler-artifact" && artifact.manifest_path.as_deref() == Some(&manifest) {
            found = artifact.filenames.into_iter().find(|file| file.extension().is_some_and(|e| e == "wasm"));
        }
    }
    let status = child.wait().context("cannot wait for cargo")?;
    if !status.success() {
        anyhow::bail!("it does not compile; see the messages above");
    }
    let no_component = || {
        Invalid(format!(
            "{} makes no component; write `crate-type = [\"cdylib\"]` under `[lib]`",
            manifest.display()
        ))
    };
    Ok(found.ok_or_else(no_component)?)
}

/// Runs a tool. What it prints goes to standard error, which leaves standard output to the report.
fn run(command: &mut Command) -> anyhow::Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::null()).stdout(Stdio::from(io::stderr()));
    let status = command.status().with_context(|| format!("cannot start {name}"))?;
    if status.success() { Ok(()) } else { anyhow::bail!("it does not build; see the messages above") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(version_of("v20.19.1\n"), Some((20, 19)));
        assert!(version_of("v9.11.2").is_some_and(|version| version < NODE));
        assert!(version_of("v22.3.0").is_some_and(|version| version >= NODE));
        assert_eq!(version_of("nonsense"), None);
    }

    #[test]
    fn what_is_missing_comes_with_the_command_that_installs_it() {
        assert_eq!(
            missing("the Rust target wasm32-wasip2", "rustup target add wasm32-wasip2").to_string(),
            "the Rust target wasm32-wasip2 is missing; install it with: rustup target add wasm32-wasip2"
        );
        assert_eq!(answer("no-such-program-of-tidemill", &[]), None);
    }
}
