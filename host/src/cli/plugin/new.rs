//! `tidemill plugin new`: a project of its own out of what is embedded here.
//!
//! The same as `plugins/templates/new.sh`, which builds the templates where there is no host yet. The project holds the
//! template with its name put in, and copies of the language's SDK, the interface and the list of pinned tools.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, ValueEnum};
use rust_embed::RustEmbed;
use serde_json::json;

use super::component;
use crate::cli::Invalid;
use crate::cli::output::{print, print_json};
use crate::plugin::PluginKind;

/// Where the name goes in the files of a template.
const NAME: &str = "{{name}}";
/// As long as the name of a component may be.
const MAX_NAME: usize = 63;
/// Names that Cargo or the project itself have taken.
const TAKEN: [&str; 8] =
    ["alloc", "core", "proc-macro", "serde", "std", "test", "tidemill", "tidemill-plugin"];

#[derive(RustEmbed)]
#[folder = "../plugins/templates"]
struct Templates;

#[derive(RustEmbed)]
#[folder = "../plugins/sdk"]
struct SdkRust;

#[derive(RustEmbed)]
#[folder = "../plugins/sdk-js"]
struct SdkTypeScript;

#[derive(RustEmbed)]
#[folder = "../plugins/sdk-python"]
struct SdkPython;

#[derive(RustEmbed)]
#[folder = "../plugins/sdk-c"]
struct SdkC;

#[derive(RustEmbed)]
#[folder = "../plugins/tools"]
struct Tools;

#[derive(RustEmbed)]
#[folder = "../wit/0.1.0"]
struct Interface;

/// The versions of the Rust SDK's dependencies.
const CARGO_LOCK: &str = include_str!("../../../../plugins/Cargo.lock");

/// What a project is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Language {
    Rust,
    #[value(name = "typescript", alias = "ts")]
    TypeScript,
    Python,
    C,
}

impl Language {
    /// As on the command line, and in the names of folders.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::TypeScript => "typescript",
            Self::Python => "python",
            Self::C => "c",
        }
    }

    /// The plugin's own source.
    pub fn source(self) -> &'static str {
        match self {
            Self::Rust => "src/lib.rs",
            Self::TypeScript => "src/plugin.ts",
            Self::Python => "src/plugin.py",
            Self::C => "src/plugin.c",
        }
    }
}

/// Start a plugin: a small project that builds, with a test and a pipeline
///
/// The project needs nothing of Tidemill's sources: it holds copies of the SDK and of the interface.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  tidemill plugin new low-flyers --lang rust\n  \
                        tidemill plugin new low-flyers --lang typescript --dir ~/plugins/low-flyers")]
pub struct NewArgs {
    /// Its name: lower-case letters, digits and `-`
    #[arg(value_name = "NAME")]
    name: String,
    /// What it is written in
    #[arg(long, value_enum)]
    lang: Language,
    /// What it is
    #[arg(long, value_name = "KIND", default_value = "transform", value_parser = component::kind)]
    kind: PluginKind,
    /// The folder to make; else one of its name
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: NewArgs) -> anyhow::Result<ExitCode> {
    check_name(&args.name).map_err(Invalid)?;
    if args.kind != PluginKind::Transform {
        let samples = "aircraft-generator (producer), latest-position (materializer), http-sink (sink) and incident-report \
                       (worker)";
        return Err(Invalid(format!(
            "there is no template of a {} yet; begin with a transform, and with one of the samples beside it: {samples}",
            args.kind
        ))
        .into());
    }
    let folder = args.dir.unwrap_or_else(|| PathBuf::from(&args.name));
    if folder.exists() {
        return Err(Invalid(format!("{} is there already; give another --dir", folder.display())).into());
    }
    let files = files(args.lang, &args.name);
    for (path, contents) in &files {
        write(&folder.join(path), contents)?;
    }
    if args.json {
        let (language, paths) = (args.lang.as_str(), files.keys().collect::<Vec<_>>());
        print_json(&json!({ "name": args.name, "language": language, "folder": folder, "files": paths }))?;
    } else {
        print(&next(&args.name, args.lang, &folder))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn check_name(name: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let shaped = name.starts_with(|c: char| c.is_ascii_lowercase())
        && !name.ends_with('-')
        && !name.contains("--")
        && name.chars().all(fits)
        && name.len() <= MAX_NAME;
    if !shaped {
        return Err(format!(
            "{name:?} cannot be the name of a plugin: write lower-case letters, digits and single `-` between them, a \
             letter first, at most {MAX_NAME}; such as low-flyers"
        ));
    }
    if TAKEN.contains(&name) { Err(format!("{name:?} is taken; choose another name")) } else { Ok(()) }
}

/// The files of a project by their paths in it.
fn files(language: Language, name: &str) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let own = format!("{}/", language.as_str());
    for path in Templates::iter() {
        let to = match path.strip_prefix(own.as_str()) {
            Some(path) => path,
            None if !path.contains('/') && (path.ends_with(".json") || path.ends_with(".toml")) => &path,
            None => continue,
        };
        add::<Templates>(&mut files, &path, to.to_string());
    }
    match language {
        Language::Rust => copy::<SdkRust>(&mut files, "sdk"),
        Language::TypeScript => copy::<SdkTypeScript>(&mut files, "sdk"),
        Language::Python => copy::<SdkPython>(&mut files, "sdk"),
        Language::C => copy::<SdkC>(&mut files, "sdk"),
    }
    copy::<Interface>(&mut files, "wit");
    match language {
        Language::Rust => drop(files.insert("Cargo.lock".to_string(), CARGO_LOCK.as_bytes().to_vec())),
        _ => copy::<Tools>(&mut files, "tools"),
    }
    for contents in files.values_mut() {
        if let Ok(text) = std::str::from_utf8(contents)
            && text.contains(NAME)
        {
            *contents = text.replace(NAME, name).into_bytes();
        }
    }
    files
}

fn copy<E: RustEmbed>(files: &mut BTreeMap<String, Vec<u8>>, folder: &str) {
    for path in E::iter() {
        // What interpreters leave behind is not part of an SDK.
        if !path.contains("__pycache__") {
            add::<E>(files, &path, format!("{folder}/{path}"));
        }
    }
}

fn add<E: RustEmbed>(files: &mut BTreeMap<String, Vec<u8>>, from: &str, to: String) {
    if let Some(file) = E::get(from) {
        files.insert(to, Cow::into_owned(file.data));
    }
}

fn write(path: &Path, contents: &[u8]) -> anyhow::Result<()> {
    let failed = || format!("cannot write {}", path.display());
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(failed)?;
    }
    std::fs::write(path, contents).with_context(failed)?;
    if path.extension().is_some_and(|ending| ending == "sh") {
        executable(path).with_context(failed)?;
    }
    Ok(())
}

#[cfg(unix)]
fn executable(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
}

#[cfg(not(unix))]
fn executable(_path: &Path) -> std::io::Result<()> {
    Ok(())
}

fn next(name: &str, language: Language, folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "made {folder}: {name}, a transform in {}; the plugin is in {folder}/{}

next:
  cd {folder}
  tidemill plugin build
  tidemill plugin test dist/{name}.wasm --vectors vectors.json
  tidemill up pipeline.toml --plugins dist
",
        language.as_str(),
        language.source()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_has_its_source_its_sdk_and_the_interface_under_its_own_name() {
        for language in Language::value_variants() {
            let files = files(*language, "my-plugin");
            for path in [
                language.source(),
                "build.sh",
                "README.md",
                "pipeline.toml",
                "vectors.json",
                "wit/worlds.wit",
            ] {
                assert!(files.contains_key(path), "{language:?} has no {path}: {:?}", files.keys());
            }
            assert!(files.keys().any(|path| path.starts_with("sdk/")));
            assert!(!files.keys().any(|path| path.contains("new.sh")));
            let named = String::from_utf8_lossy(&files["pipeline.toml"]).contains("my-plugin");
            assert!(named);
            let left: Vec<&String> = files
                .iter()
                .filter(|(_, contents)| String::from_utf8_lossy(contents).contains(NAME))
                .map(|(path, _)| path)
                .collect();
            assert_eq!(left, Vec::<&String>::new(), "{language:?}");
        }
    }

    #[test]
    fn names_that_no_toolchain_takes_are_refused() {
        for good in ["a", "low-flyers", "v2-parser"] {
            assert_eq!(check_name(good), Ok(()));
        }
        for bad in ["", "Low", "low_flyers", "-a", "a-", "a--b", "2a", "a/b", "../a", "std", &"a".repeat(64)]
        {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
