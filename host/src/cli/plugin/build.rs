//! `tidemill plugin build`: calls the toolchain of a project, and looks at what came out of it.
//!
//! The component is built beside the one that is there, checked, and put in its place in one step: a host that watches the
//! folder sees whole components that fit a world, and nothing else.

mod toolchain;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use clap::Args;
use serde_json::json;

use super::component::{self, Opened};
use super::inspect::Report;
use super::new::Language;
use crate::cli::Invalid;
use crate::cli::output::{print, print_json, seconds};
use crate::plugin::PluginKind;

/// Build the plugin of a folder into its dist/NAME.wasm
///
/// Knows the projects of `tidemill plugin new`, and any Cargo package that makes a component. The name is the one that the
/// component gives itself.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  tidemill plugin build\n  \
                        tidemill plugin build low-flyers --out plugins/dist/low-flyers.wasm")]
pub struct BuildArgs {
    /// The folder of the project
    #[arg(value_name = "FOLDER", default_value = ".")]
    dir: PathBuf,
    /// Where to put the component
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// What it is: producer, transform, materializer, sink or worker
    #[arg(long, value_name = "KIND", default_value = "transform", value_parser = component::kind)]
    kind: PluginKind,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub async fn run(args: BuildArgs) -> anyhow::Result<ExitCode> {
    let dir = args.dir.canonicalize().with_context(|| format!("cannot open {}", args.dir.display()))?;
    let language = language_of(&dir)?;
    toolchain::check(language)?;
    let folder = match &args.out {
        Some(out) => parent(out).to_path_buf(),
        None => dir.join("dist"),
    };
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let folder = folder.canonicalize().with_context(|| format!("cannot open {}", folder.display()))?;
    let building = folder.join(format!(".building-{}.wasm", std::process::id()));
    let began = Instant::now();
    let built = match toolchain::build(language, args.kind, &dir, &building) {
        Ok(()) => place(&args, &folder, &building).await,
        Err(error) => Err(error),
    };
    // Gone if all went well.
    let _ = std::fs::remove_file(&building);
    let opened = built?;
    let report = Report::of(&opened);
    let took = began.elapsed().as_secs_f64();
    if args.json {
        print_json(&json!({ "language": language.as_str(), "seconds": took, "component": report }))?;
    } else {
        print(&format!("built {} in {}\n\n{}", opened.path.display(), seconds(took), report.text()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The component is looked at before it is put where it belongs.
async fn place(args: &BuildArgs, folder: &Path, building: &Path) -> anyhow::Result<Opened> {
    // A Cargo package may be of any kind, whatever was said.
    let mut opened = component::open(&component::engine()?, building, None).await?;
    let path = match &args.out {
        Some(out) => folder.join(out.file_name().unwrap_or_default()),
        None => folder.join(file_name(&opened.descriptor.name)?),
    };
    std::fs::rename(building, &path).with_context(|| format!("cannot write {}", path.display()))?;
    // As it was asked for, where that is shorter.
    opened.path = match &args.out {
        Some(out) => out.clone(),
        None => args.dir.join("dist").join(path.file_name().unwrap_or_default()),
    };
    Ok(opened)
}

/// What the project is written in.
fn language_of(dir: &Path) -> Result<Language, Invalid> {
    if dir.join("Cargo.toml").is_file() {
        return Ok(Language::Rust);
    }
    let others = [Language::TypeScript, Language::Python, Language::C];
    others.into_iter().find(|language| dir.join(language.source()).is_file()).ok_or_else(|| {
        Invalid(format!(
            "{} is no project of a plugin: there is no Cargo.toml, {}; make one with `tidemill plugin new`",
            dir.display(),
            others.map(Language::source).join(", ")
        ))
    })
}

fn file_name(name: &str) -> Result<String, Invalid> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.chars().all(fits) && !name.starts_with('.') {
        return Ok(format!("{name}.wasm"));
    }
    Err(Invalid(format!(
        "the component calls itself {name:?}, which makes no file name; say where with --out"
    )))
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_language_is_told_by_the_files() {
        let folder = tempfile::tempdir().unwrap();
        let error = language_of(folder.path()).unwrap_err().to_string();
        assert!(error.contains("no project of a plugin") && error.contains("plugin.py"), "{error}");
        std::fs::create_dir(folder.path().join("src")).unwrap();
        std::fs::write(folder.path().join("src/plugin.py"), "").unwrap();
        assert_eq!(language_of(folder.path()).unwrap(), Language::Python);
        std::fs::write(folder.path().join("Cargo.toml"), "").unwrap();
        assert_eq!(language_of(folder.path()).unwrap(), Language::Rust);
    }

    #[test]
    fn a_name_that_leaves_the_folder_is_no_file() {
        assert_eq!(file_name("low-flyers").unwrap(), "low-flyers.wasm");
        assert!(file_name("../a").is_err() && file_name(".a").is_err());
    }
}
