//! A stage's component, from the name in the pipeline file to code that was checked against it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

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
    pub plugin: Plugin,
    pub descriptor: Descriptor,
}

/// A component as it came, and from where.
#[derive(Clone, Debug)]
pub struct Bytes {
    pub bytes: Arc<[u8]>,
    /// A file, or other words for messages.
    pub from: String,
}

/// Why a stage has no component. All but `Unreadable` are mistakes in the user's files.
#[derive(Debug, thiserror::Error)]
pub enum ComponentError {
    #[error(transparent)]
    NotFound(PluginNotFound),
    #[error("cannot read {}: {error}", path.display())]
    Unreadable { path: PathBuf, error: std::io::Error },
    #[error("{from}: {error}")]
    Load { from: String, error: LoadError },
    #[error("{from} has SHA-256 {found}, but the pipeline file pins {wanted}")]
    Pinned { from: String, wanted: String, found: String },
    #[error("{from}: {error}; {help}")]
    NotGranted { from: String, error: LoadError, help: String },
    #[error(transparent)]
    Http(#[from] HttpSetupError),
    #[error("{from}: {error}")]
    Describe { from: String, error: CallError },
    #[error("the bytes of plugin {digest} are not kept any more; push the component again")]
    Forgotten { digest: String },
    /// It described itself, and then failed on its config.
    #[error("{from}: {words}")]
    Configure { from: String, words: String },
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
            StageKind::Worker => Self::Worker,
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
    check(engine, &read(&path).await?, stage).await
}

/// The same for bytes that are at hand.
pub async fn check(
    engine: &PluginEngine,
    component: &Bytes,
    stage: &StagePlan,
) -> Result<Component, ComponentError> {
    let from = || component.from.clone();
    let plugin = engine.load(component.bytes.clone(), stage.kind.into()).await;
    let plugin = plugin.map_err(|error| ComponentError::Load { from: from(), error })?;
    if let Some(wanted) = &stage.plugin.sha256 {
        let found = plugin.digest().as_str().trim_start_matches("sha256:");
        if found != wanted {
            let (wanted, found) = (wanted.clone(), found.to_string());
            return Err(ComponentError::Pinned { from: from(), wanted, found });
        }
    }
    let plugin = grant(plugin, &component.from, stage)?;
    let described = plugin.describe(&limits(&stage.limits)).await;
    let descriptor = described.map_err(|error| ComponentError::Describe { from: from(), error })?;
    let findings = lint::findings(stage, &descriptor);
    if !findings.is_empty() {
        return Err(ComponentError::Lint(findings));
    }
    Ok(Component { plugin, descriptor })
}

/// What the stage grants, given to the plugin before any of its code runs.
fn grant(plugin: Plugin, from: &str, stage: &StagePlan) -> Result<Plugin, ComponentError> {
    let client = |plan: &HttpPlan| HttpClient::new(plan.clone(), system_lookup(), Handle::current());
    let http = stage.http.as_ref().map(client).transpose()?;
    let missing = match plugin.granted(Grants::new(stage.grants.iter().copied(), http)) {
        Ok(granted) => return Ok(granted),
        Err(LoadError::NotGranted { missing }) => missing,
        Err(error) => return Err(ComponentError::Load { from: from.to_string(), error }),
    };
    let all: BTreeSet<Grant> = stage.grants.iter().chain(&missing).copied().collect();
    let names: Vec<String> = all.iter().map(|grant| format!("\"{grant}\"")).collect();
    let mut help = format!("write `grants = [{}]` if it may have that", names.join(", "));
    if missing.contains(&Grant::Http) {
        help.push_str(", and `http = { allow = [\"https://…\"] }` with the origins it may ask");
    }
    let (from, error) = (from.to_string(), LoadError::NotGranted { missing });
    Err(ComponentError::NotGranted { from, error, help })
}

/// Reads a component once: everything after is about these bytes.
pub async fn read(path: &Path) -> Result<Bytes, ComponentError> {
    let unreadable = |error| ComponentError::Unreadable { path: path.to_path_buf(), error };
    let from = path.display().to_string();
    let size = tokio::fs::metadata(path).await.map_err(unreadable)?.len();
    if size > MAX_COMPONENT_BYTES as u64 {
        let error = LoadError::TooLarge { size };
        return Err(ComponentError::Load { from, error });
    }
    let bytes = tokio::fs::read(path).await.map_err(unreadable)?;
    Ok(Bytes { bytes: bytes.into(), from })
}
