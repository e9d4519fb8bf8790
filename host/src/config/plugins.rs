//! Where components are looked for.

use std::fmt;
use std::path::{Path, PathBuf};

use super::plan::PluginRef;
use super::suggest;

/// Looked for in the folder of a pipeline file and in those above it.
const BUILT: &str = "plugins/dist";
/// How many folders above a pipeline file are looked at.
const LEVELS: usize = 3;

/// The folders that a bare plugin name is looked up in: the given ones, then `plugins/dist` beside the pipeline file, in
/// the folders above it, and in the current one.
#[derive(Clone, Debug, Default)]
pub struct PluginFolders {
    given: Vec<PathBuf>,
}

/// No component of that name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct PluginNotFound {
    /// As it is written in the pipeline file.
    pub name: String,
    /// The files that are not there, in the order of the search.
    pub looked: Vec<PathBuf>,
    /// A component that is there and was perhaps meant, as it would be written.
    pub near: Option<String>,
}

impl PluginNotFound {
    pub fn message(&self) -> String {
        let looked: Vec<String> = self.looked.iter().map(|path| path.display().to_string()).collect();
        format!("there is no plugin {:?}; looked at {}", self.name, looked.join(", "))
    }

    /// What to do about it.
    pub fn help(&self) -> String {
        match &self.near {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => "build the plugin, or name its folder with --plugins DIR".to_string(),
        }
    }
}

impl fmt::Display for PluginNotFound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.message(), self.help())
    }
}

impl PluginFolders {
    pub fn new(given: Vec<PathBuf>) -> Self {
        Self { given }
    }

    /// The file of a stage's component. `pipeline` is the file that names it.
    pub fn find(&self, plugin: &PluginRef, pipeline: &Path) -> Result<PathBuf, PluginNotFound> {
        let file_name = format!("{}.wasm", plugin.name);
        let looked = match &plugin.path {
            Some(path) => vec![path.clone()],
            None => self.folders(pipeline).iter().map(|folder| folder.join(&file_name)).collect(),
        };
        if let Some(found) = looked.iter().find(|path| path.is_file()) {
            return Ok(found.clone());
        }
        let near = near(plugin, &looked);
        Err(PluginNotFound { name: plugin.name.clone(), looked, near })
    }

    /// [`find`](Self::find) without the search for what was meant, for those who look often.
    pub fn locate(&self, plugin: &PluginRef, pipeline: &Path) -> Option<PathBuf> {
        let found = |path: &PathBuf| path.is_file();
        match &plugin.path {
            Some(path) => Some(path.clone()).filter(found),
            None => {
                let file_name = format!("{}.wasm", plugin.name);
                self.folders(pipeline).iter().map(|folder| folder.join(&file_name)).find(found)
            }
        }
    }

    fn folders(&self, pipeline: &Path) -> Vec<PathBuf> {
        let file = std::path::absolute(pipeline).unwrap_or_else(|_| pipeline.to_path_buf());
        let above = file.ancestors().skip(1).take(LEVELS).map(|folder| folder.join(BUILT));
        let here = std::env::current_dir().map(|folder| folder.join(BUILT));
        let mut folders: Vec<PathBuf> = Vec::new();
        for folder in self.given.iter().cloned().chain(above).chain(here) {
            if !folders.contains(&folder) {
                folders.push(folder);
            }
        }
        folders
    }
}

/// A component in one of the folders with nearly that name.
fn near(plugin: &PluginRef, looked: &[PathBuf]) -> Option<String> {
    let mut names: Vec<String> = Vec::new();
    for folder in looked.iter().filter_map(|path| path.parent()) {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        names.extend(entries.filter_map(|entry| {
            let path = entry.path();
            let stem = path.file_stem()?.to_str()?.to_string();
            path.extension().is_some_and(|e| e == "wasm").then_some(stem)
        }));
    }
    let wanted = Path::new(&plugin.name).file_stem()?.to_str()?;
    let near = suggest::nearest(wanted, names.iter().map(String::as_str))?;
    match &plugin.path {
        None => Some(near.to_string()),
        Some(_) => {
            Some(Path::new(&plugin.name).with_file_name(near).with_extension("wasm").display().to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Result;

    fn named(name: &str) -> PluginRef {
        PluginRef { name: name.to_string(), path: None, sha256: None }
    }

    #[test]
    fn a_name_is_looked_up_in_the_given_folders_and_then_above_the_pipeline() -> Result<()> {
        let root = tempfile::tempdir()?;
        let (given, built) = (root.path().join("given"), root.path().join(BUILT));
        for folder in [&given, &built] {
            std::fs::create_dir_all(folder)?;
        }
        let pipeline = root.path().join("pipelines/a.toml");
        let folders = PluginFolders::new(vec![given.clone()]);
        assert!(folders.find(&named("watch"), &pipeline).is_err());
        std::fs::write(built.join("watch.wasm"), "")?;
        assert_eq!(folders.find(&named("watch"), &pipeline), Ok(built.join("watch.wasm")));
        std::fs::write(given.join("watch.wasm"), "")?;
        assert_eq!(folders.find(&named("watch"), &pipeline), Ok(given.join("watch.wasm")));
        Ok(())
    }

    #[test]
    fn a_missing_plugin_says_where_it_was_looked_for_and_what_is_there() -> Result<()> {
        let root = tempfile::tempdir()?;
        std::fs::write(root.path().join("flight-watch.wasm"), "")?;
        let folders = PluginFolders::new(vec![root.path().to_path_buf()]);
        let Err(error) = folders.find(&named("flight-wach"), Path::new("a.toml")) else {
            anyhow::bail!("it was found");
        };
        assert_eq!(error.looked[0], root.path().join("flight-wach.wasm"));
        assert!(error.to_string().ends_with("did you mean \"flight-watch\"?"), "{error}");

        let written =
            PluginRef { path: Some(root.path().join("./flight_watch.wasm")), ..named("./flight_watch.wasm") };
        let error = folders.find(&written, Path::new("a.toml")).map_err(|e| (e.looked.len(), e.near));
        assert_eq!(error, Err((1, Some("./flight-watch.wasm".to_string()))));
        Ok(())
    }
}
