//! A component from a file, and how it is set up to run here. Needs no host and no Postgres.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use serde_json::Value;
use tokio::runtime::Handle;

use crate::cli::Invalid;
use crate::config::grants::{HttpPlan, Origin};
use crate::config::plan::StageLimits;
use crate::config::units;
use crate::pipeline::trial::{Reader, Trial};
use crate::plugin::http::{HttpClient, system_lookup};
use crate::plugin::{
    Descriptor, EngineOptions, Grant, Grants, LoadError, MAX_COMPONENT_BYTES, Plugin, PluginEngine,
    PluginKind,
};

/// How a component is set up.
#[derive(Args, Clone, Debug)]
pub struct Setup {
    /// Its configuration: JSON, or @FILE with JSON in it
    #[arg(long, value_name = "JSON or @FILE", default_value = "{}")]
    pub config: String,
    /// Its kind: producer, transform, materializer, sink or worker; else what it exports decides
    #[arg(long, value_name = "KIND", value_parser = kind)]
    pub kind: Option<PluginKind>,
    /// What it may import: clock, metrics, random or state; may be repeated
    #[arg(long = "grant", value_name = "IMPORT", value_parser = grant)]
    pub grants: Vec<Grant>,
    /// Let it send real requests to this origin, which grants http; may be repeated
    #[arg(long, value_name = "ORIGIN")]
    pub http_allow: Vec<Origin>,
    /// Memory of one instance
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = units::size)]
    pub memory: u64,
    /// Time for one call
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = units::duration)]
    pub deadline: Duration,
}

/// A component that was read, compiled and asked what it is.
#[derive(Debug)]
pub struct Opened {
    pub path: PathBuf,
    pub plugin: Plugin,
    pub descriptor: Descriptor,
    /// Next to nothing if it was compiled before.
    pub compiled_in: Duration,
}

/// Compiled code is kept for the next time: some languages take seconds.
pub fn engine() -> anyhow::Result<PluginEngine> {
    let kept = EngineOptions { cache_dir: cache_dir(), ..EngineOptions::default() };
    match PluginEngine::new(kept) {
        Ok(engine) => Ok(engine),
        // A home that cannot be written to is no reason to fail.
        Err(_) => Ok(PluginEngine::new(EngineOptions::default())?),
    }
}

fn cache_dir() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let home = || std::env::home_dir().map(|home| home.join(".cache"));
    cache.or_else(home).map(|cache| cache.join("tidemill/compiled-plugins"))
}

/// Reads a file, compiles it, and asks it what it is.
pub async fn open(engine: &PluginEngine, path: &Path, kind: Option<PluginKind>) -> anyhow::Result<Opened> {
    let bytes = read(path).await?;
    let began = Instant::now();
    let loaded = match kind {
        Some(kind) => engine.load(bytes, kind).await,
        None => engine.load_any(bytes).await,
    };
    let plugin = loaded.map_err(|error| refused(path, &error))?;
    let compiled_in = began.elapsed();
    // A runtime of a whole language needs more than a small plugin may have; describing is not what limits are for.
    let limits =
        StageLimits { memory: 512 << 20, deadline: Duration::from_secs(10), ..StageLimits::default() };
    let descriptor = plugin.describe(&crate::pipeline::stage::limits(&limits)).await;
    let descriptor = descriptor.map_err(|error| Invalid(format!("{}: {error}", path.display())))?;
    Ok(Opened { path: path.to_path_buf(), plugin, descriptor, compiled_in })
}

fn refused(path: &Path, error: &LoadError) -> Invalid {
    let file = path.display();
    match error {
        LoadError::NoWorld { .. } => Invalid(format!("{file}: {error}; say it with --kind")),
        error => Invalid(format!("{file}: {error}")),
    }
}

async fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let unreadable = || format!("cannot read {}", path.display());
    let size = tokio::fs::metadata(path).await.with_context(unreadable)?.len();
    if size > MAX_COMPONENT_BYTES as u64 {
        return Err(refused(path, &LoadError::TooLarge { size }).into());
    }
    tokio::fs::read(path).await.with_context(unreadable)
}

impl Setup {
    /// The configuration, read.
    pub fn config(&self) -> anyhow::Result<Value> {
        let (text, place) = match self.config.strip_prefix('@') {
            Some(path) => {
                let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
                (text, path.to_string())
            }
            None => (self.config.clone(), "--config".to_string()),
        };
        let not_json =
            |error| Invalid(format!("{place} is not JSON: {error}; it looks like '{{\"key\": 1}}'"));
        Ok(serde_json::from_str(&text).map_err(not_json)?)
    }

    /// The plan's limits with those that were given.
    pub fn limits(&self) -> StageLimits {
        StageLimits { memory: self.memory, deadline: self.deadline, ..StageLimits::default() }
    }

    /// The plugin with what it was granted.
    pub fn granted(&self, opened: &Opened) -> anyhow::Result<Plugin> {
        let http = match self.http_allow.is_empty() {
            true => None,
            false => {
                let plan = HttpPlan { allow: self.http_allow.clone(), ..HttpPlan::default() };
                Some(HttpClient::new(plan, system_lookup(), Handle::current())?)
            }
        };
        let grants = self.grants.iter().copied().chain(http.is_some().then_some(Grant::Http));
        opened.plugin.granted(Grants::new(grants, http)).map_err(|error| match error {
            LoadError::NotGranted { missing } => {
                let flag = |grant: &Grant| format!("--grant {grant}");
                let names: Vec<&str> = missing.iter().map(|grant| grant.as_str()).collect();
                Invalid(format!(
                    "{} imports {}; add {} if it may have that",
                    opened.path.display(),
                    names.join(", "),
                    missing.iter().map(flag).collect::<Vec<_>>().join(" ")
                ))
                .into()
            }
            error => refused(&opened.path, &error).into(),
        })
    }

    /// The component, configured and ready for records.
    pub async fn trial(&self, opened: &Opened, reader: Reader) -> anyhow::Result<Trial> {
        let plugin = self.granted(opened)?;
        let trial = Trial::start(plugin, self.config()?, &self.limits(), reader).await;
        Ok(trial.map_err(|error| Invalid(format!("{}: {error}", opened.path.display())))?)
    }
}

pub fn kind(text: &str) -> Result<PluginKind, String> {
    let known = PluginKind::ALL.into_iter().find(|kind| kind.as_str() == text);
    known.ok_or_else(|| {
        let names: Vec<&str> = PluginKind::ALL.iter().map(|kind| kind.as_str()).collect();
        format!("there is no kind {text:?}: it is one of {}", names.join(", "))
    })
}

fn grant(text: &str) -> Result<Grant, String> {
    let known = Grant::ALL.into_iter().find(|grant| grant.as_str() == text);
    known.ok_or_else(|| {
        let names: Vec<&str> = Grant::ALL.iter().map(|grant| grant.as_str()).collect();
        format!("there is nothing called {text:?} to grant: there are {}", names.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_and_grants_are_read_by_their_names() {
        assert_eq!(kind("sink"), Ok(PluginKind::Sink));
        assert_eq!(grant("state"), Ok(Grant::State));
        assert!(kind("sinks").is_err_and(|error| error.contains("materializer")));
        assert!(grant("files").is_err_and(|error| error.contains("clock, http")));
    }
}
