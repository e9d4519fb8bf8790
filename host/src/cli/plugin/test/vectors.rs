//! Conformance vectors, each file on an instance of its own.

use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::json;

use super::TestArgs;
use crate::cli::Invalid;
use crate::cli::output::{plain, print};
use crate::cli::plugin::component::Opened;
use crate::pipeline::stage::limits;
use crate::plugin::Vectors;

/// Differences of one file that people are shown.
const MAX_SHOWN: usize = 10;

/// Runs them all. False if one does not hold.
pub(super) async fn run(args: &TestArgs, opened: &Opened) -> anyhow::Result<bool> {
    let plugin = args.setup.granted(opened)?;
    let limits = limits(&args.setup.limits());
    let (mut passed, mut failed) = (0, 0);
    for file in files(&args.vectors)? {
        let vectors = read(&file)?;
        let differences = match vectors.run(&plugin, &limits).await {
            Ok(differences) => differences,
            Err(error) => vec![error.to_string()],
        };
        if differences.is_empty() {
            passed += 1
        } else {
            failed += 1
        }
        print(&match args.json {
            true => {
                let (file, about) = (file.display().to_string(), &vectors.about);
                let held = differences.is_empty();
                let line =
                    json!({ "file": file, "about": about, "passed": held, "differences": differences });
                format!("{}\n", json!({ "vectors": line }))
            }
            false => text(&file, &vectors, &differences),
        })?;
    }
    if !args.json {
        let failures = if failed > 0 { format!(", {failed} failed") } else { String::new() };
        print(&format!("{passed} files of vectors passed{failures}\n"))?;
    }
    Ok(failed == 0)
}

fn text(file: &Path, vectors: &Vectors, differences: &[String]) -> String {
    let word = if differences.is_empty() { "ok" } else { "FAILED" };
    let name = file.file_name().unwrap_or_default().display();
    let mut out = format!("{word:<8}{name}: {}\n", plain(&vectors.about));
    let shown = differences.iter().take(MAX_SHOWN);
    out.extend(shown.map(|difference| format!("          {}\n", plain(difference))));
    if differences.len() > MAX_SHOWN {
        out.push_str(&format!("          and {} more\n", differences.len() - MAX_SHOWN));
    }
    out
}

fn read(file: &Path) -> anyhow::Result<Vectors> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(Vectors::parse(&text).map_err(|error| Invalid(format!("{}: {error}", file.display())))?)
}

/// Files as they are given, and those of folders in the order of their names.
fn files(given: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in given {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let unreadable = || format!("cannot read {}", path.display());
        let mut found = Vec::new();
        for entry in std::fs::read_dir(path).with_context(unreadable)? {
            let file = entry.with_context(unreadable)?.path();
            found.extend(file.extension().is_some_and(|ending| ending == "json").then_some(file));
        }
        if found.is_empty() {
            return Err(Invalid(format!("there are no vectors (*.json) in {}", path.display())).into());
        }
        found.sort();
        files.extend(found);
    }
    Ok(files)
}
