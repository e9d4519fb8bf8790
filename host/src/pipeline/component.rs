//! A stage's component, from the name in the pipeline file to code that was checked against it.

use std::path::{Path, PathBuf};

use super::lint;
use super::stage::limits;
use crate::config::plan::{StageKind, StagePlan};
use crate::config::plugins::{PluginFolders, PluginNotFound};
use crate::config::shape::Finding;
use crate::plugin::{
    CallError, Descriptor, LoadError, MAX_COMPONENT_BYTES, Plugin, PluginEngine, PluginKind,
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
    let described = plugin.describe(&limits(&stage.limits)).await;
    let descriptor = described.map_err(|error| ComponentError::Describe { path: path.clone(), error })?;
    let findings = lint::findings(stage, &descriptor);
    if !findings.is_empty() {
        return Err(ComponentError::Lint(findings));
    }
    Ok(Component { path, plugin, descriptor })
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
