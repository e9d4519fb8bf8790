//! Files and folders in, one plan out.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::document::Document;
use super::error::{ConfigError, ConfigErrors};
use super::links;
use super::plan::{PipelinePlan, Plan};
use super::secret::Vault;
use super::validate::{self, Draft};

/// A pipeline file larger than this is not one.
const MAX_BYTES: u64 = 1 << 20;

/// Reads files, and the `*.toml` of folders in the order of their names; environment variables give the secrets.
/// Either all is valid, or everything that is wrong is told.
pub fn load<P: AsRef<Path>>(paths: &[P]) -> Result<Plan, ConfigErrors> {
    let vault = Vault { env: &|name| std::env::var(name).ok() };
    load_with(paths, &vault)
}

/// [`load`] with other secrets.
pub fn load_with<P: AsRef<Path>>(paths: &[P], vault: &Vault<'_>) -> Result<Plan, ConfigErrors> {
    let mut errors = Vec::new();
    let mut drafts = Vec::new();
    for file in files(paths, &mut errors) {
        match read(&file) {
            Ok(doc) => {
                let (draft, found) = validate::draft(doc, vault);
                errors.extend(found);
                drafts.push(draft);
            }
            Err(found) => errors.extend(found),
        }
    }
    errors.extend(links::check(&drafts));
    match ConfigErrors::new(errors) {
        Some(errors) => Err(errors),
        None => Ok(plan(drafts)),
    }
}

fn plan(drafts: Vec<Draft>) -> Plan {
    let pipelines = drafts.into_iter().filter_map(|draft| {
        let name = draft.name?;
        let pipeline = PipelinePlan {
            name: name.clone(),
            file: draft.doc.file,
            topics: draft.topics,
            queues: draft.queues,
            stages: draft.stages,
            tests: draft.tests,
        };
        Some((name, pipeline))
    });
    Plan { pipelines: pipelines.collect() }
}

/// The pipeline files that a list of files and folders stands for now, those that cannot be read included.
pub fn files_in<P: AsRef<Path>>(paths: &[P]) -> Vec<PathBuf> {
    files(paths, &mut Vec::new())
}

/// The files meant by a list of files and folders, each once.
fn files<P: AsRef<Path>>(paths: &[P], errors: &mut Vec<ConfigError>) -> Vec<PathBuf> {
    let mut seen = BTreeSet::new();
    let mut files = Vec::new();
    for path in paths {
        let path = path.as_ref();
        let found = match path.is_dir() {
            true => folder(path),
            false => Ok(vec![path.to_path_buf()]),
        };
        match found {
            Ok(found) => files.extend(found),
            Err(found) => errors.extend(found),
        }
    }
    files.retain(|file| seen.insert(file.canonicalize().unwrap_or_else(|_| file.clone())));
    files
}

fn folder(path: &Path) -> Result<Vec<PathBuf>, Vec<ConfigError>> {
    let entries = std::fs::read_dir(path).map_err(|e| unreadable(path, &e))?;
    let mut files = Vec::new();
    for entry in entries {
        let file = entry.map_err(|e| unreadable(path, &e))?.path();
        if file.extension().is_some_and(|e| e == "toml") && file.is_file() {
            files.push(file);
        }
    }
    if files.is_empty() {
        let message = "there is no pipeline file (*.toml) in this folder".to_string();
        return Err(vec![whole(path, message, None)]);
    }
    files.sort();
    Ok(files)
}

fn read(file: &Path) -> Result<Document, Vec<ConfigError>> {
    let size = std::fs::metadata(file).map_err(|e| unreadable(file, &e))?.len();
    if size > MAX_BYTES {
        let message = format!("{size} bytes are too many for a pipeline file, at most {MAX_BYTES}");
        return Err(vec![whole(file, message, None)]);
    }
    let bytes = std::fs::read(file).map_err(|e| unreadable(file, &e))?;
    let text = String::from_utf8(bytes).map_err(|_| {
        let message = "not TOML: not text in UTF-8".to_string();
        vec![whole(file, message, None)]
    })?;
    Document::parse(file, &text)
}

fn unreadable(path: &Path, error: &std::io::Error) -> Vec<ConfigError> {
    let help = match error.kind() {
        std::io::ErrorKind::NotFound => Some("name a pipeline file or a folder of them".to_string()),
        _ => None,
    };
    vec![whole(path, format!("cannot be read: {error}"), help)]
}

fn whole(path: &Path, message: String, help: Option<String>) -> ConfigError {
    ConfigError { file: path.to_path_buf(), place: None, key: String::new(), message, help }
}
