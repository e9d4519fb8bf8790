//! A stage's component, from the name in the pipeline file to code that was checked against it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use tokio::runtime::Handle;

use super::lint;
use super::stage::limits;
use crate::config::grants::HttpPlan;
use crate::config::plan::{StageKind, StagePlan};
use crate::config::plugins::{PluginFolders, PluginNotFound};
use crate::config::shape::Finding;
use crate::plugin::http::{HttpClient, HttpSetupError, system_lookup};
use crate::plugin::{
    CallError, Descriptor, Grant, Grants, LoadError, MAX_COMPONENT_BYTES, Plugin, PluginEngine, PluginKind,
};

/// A component that fits its stage.
#[derive(Debug)]
pub struct Component {
    pub path: PathBuf,
    pub plugin: Plugin,
    pub descriptor: Descriptor,
}

/// Why a stage has no component. All but `Unreadable` are mistakes in the user's files.
#[derive(Debug, thiserror::Error)]
pub enum ComponentError {
    #[error(transparent)]
    NotFound(PluginNotFound),
    #[error("cannot read {}: {error}", path.display())]
    Unreadable { path: PathBuf, error: std::io::Error },
    #[error("{}: {error}", path.display())]
    Load { path: PathBuf, error: LoadError },
    #[error("{} has SHA-256 {found}, but the pipeline file pins {wanted}", path.display())]
    Pinned { path: PathBuf, wanted: String, found: String },
    #[error("{}: {error}; {help}", path.display())]
    NotGranted { path: PathBuf, error: LoadError, help: String },
    #[error(transparent)]
    Http(#[from] HttpSetupError),
    #[error("{}: {error}", path.display())]
    Describe { path: PathBuf, error: CallError },
    #[error("{}", .0.iter().map(lint::sentence).collect::<Vec<_>>().join("; "))]
    Lint(Vec<Finding>),
}

impl From<StageKind> for PluginKind {
    fn from(kind: StageKind) -> Self {
        match kind {
            StageKind::Producer => Self::Producer,
            StageKind::Transform => Self::Transform,
            StageKind::Materializer => Self::Materializer,
            StageKind::Sink => Self::Sink,
        }
    }
}

/// Finds, reads, pins, compiles and describes a stage's component, and holds the stage against what it says.
/// `file` is the pipeline file.
pub async fn open(
    engine: &PluginEngine,
    folders: &PluginFolders,
    file: &Path,
    stage: &StagePlan,
) -> Result<Component, ComponentError> {
    let path = folders.find(&stage.plugin, file).map_err(ComponentError::NotFound)?;
    let bytes = read(&path).await?;
    let plugin = engine.load(bytes, stage.kind.into()).await;
    let plugin = plugin.map_err(|error| ComponentError::Load { path: path.clone(), error })?;
    if let Some(wanted) = &stage.plugin.sha256 {
        let found = plugin.digest().as_str().trim_start_matches("sha256:");
        if found != wanted {
            let (wanted, found) = (wanted.clone(), found.to_string());
            return Err(ComponentError::Pinned { path, wanted, found });
        }
    }
    let plugin = grant(plugin, &path, stage)?;
    let described = plugin.describe(&limits(&stage.limits)).await;
    let descriptor = described.map_err(|error| ComponentError::Describe { path: path.clone(), error })?;
    let findings = lint::findings(stage, &descriptor);
    if !findings.is_empty() {
        return Err(ComponentError::Lint(findings));
    }
    Ok(Component { path, plugin, descriptor })
}

/// What the stage grants, given to the plugin before any of its code runs.
fn grant(plugin: Plugin, path: &Path, stage: &StagePlan) -> Result<Plugin, ComponentError> {
    let client = |plan: &HttpPlan| HttpClient::new(plan.clone(), system_lookup(), Handle::current());
    let http = stage.http.as_ref().map(client).transpose()?;
    let missing = match plugin.granted(Grants::new(stage.grants.iter().copied(), http)) {
        Ok(granted) => return Ok(granted),
        Err(LoadError::NotGranted { missing }) => missing,
        Err(error) => return Err(ComponentError::Load { path: path.to_path_buf(), error }),
    };
    let all: BTreeSet<Grant> = stage.grants.iter().chain(&missing).copied().collect();
    let names: Vec<String> = all.iter().map(|grant| format!("\"{grant}\"")).collect();
    let mut help = format!("write `grants = [{}]` if it may have that", names.join(", "));
    if missing.contains(&Grant::Http) {
        help.push_str(", and `http = { allow = [\"https://…\"] }` with the origins it may ask");
    }
    let (path, error) = (path.to_path_buf(), LoadError::NotGranted { missing });
    Err(ComponentError::NotGranted { path, error, help })
}

async fn read(path: &Path) -> Result<Vec<u8>, ComponentError> {
    let unreadable = |error| ComponentError::Unreadable { path: path.to_path_buf(), error };
    let size = tokio::fs::metadata(path).await.map_err(unreadable)?.len();
    if size > MAX_COMPONENT_BYTES as u64 {
        let error = LoadError::TooLarge { size };
        return Err(ComponentError::Load { path: path.to_path_buf(), error });
    }
    tokio::fs::read(path).await.map_err(unreadable)
}
