//! Sees pipeline files and components change on disk.
//!
//! It looks every [`LOOK`] at the size, times and inode of the few files that matter, and takes a file for whole when two
//! looks in a row agree. Notifications of the system (inotify and its like) are not used: they do not come from network and
//! container mounts, they run out, and they tell of half-written files; a look costs a few microseconds a file.
//! What is seen only proposes: [`Runtime::offer`] and [`Runtime::apply`] check, and what fails leaves what runs alone.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::component::{self, Bytes};
use super::runtime::{Runtime, lock};
use super::status::FilesError;
use crate::config::{self, StageKey};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(250);

/// When pipeline files are applied again that are valid and still could not be: what they lack may have come.
const APPLY_AGAIN: Duration = Duration::from_secs(5);

/// What tells one state of a file from the next. The change time and the inode catch what keeps size and times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    inode: u64,
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        std::fs::metadata(path).ok().map(|metadata| Self::from(&metadata))
    }
}

impl From<&Metadata> for Stamp {
    fn from(metadata: &Metadata) -> Self {
        Self {
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            inode: metadata.ino(),
        }
    }
}

/// Something that is looked at again and again.
#[derive(Debug)]
struct Sight<T> {
    handled: Option<T>,
    pending: Option<T>,
}

impl<T> Default for Sight<T> {
    fn default() -> Self {
        Self { handled: None, pending: None }
    }
}

impl<T: PartialEq> Sight<T> {
    /// True, once, when a new state has been seen twice in a row.
    fn settles(&mut self, now: T) -> bool {
        if self.handled.as_ref() == Some(&now) {
            self.pending = None;
            return false;
        }
        if self.pending.as_ref() != Some(&now) {
            self.pending = Some(now);
            return false;
        }
        self.handled = self.pending.take();
        true
    }

    /// The state was not dealt with after all.
    fn again(&mut self) {
        self.handled = None;
    }
}

/// A changed component, and the stages whose file it is.
struct Changed {
    path: PathBuf,
    stamp: Stamp,
    stages: Vec<StageKey>,
}

#[derive(Default)]
struct Seen {
    components: BTreeMap<StageKey, (PathBuf, Sight<Stamp>)>,
    pipelines: Sight<Vec<(PathBuf, Option<Stamp>)>>,
}

/// Watches the pipeline files (or folders of them) and the components of what runs, until the token is cancelled.
pub async fn watch(runtime: Runtime, pipelines: Vec<PathBuf>, token: CancellationToken) {
    let mut seen = Seen::default();
    let mut apply_again: Option<Instant> = None;
    loop {
        tokio::select! {
            () = token.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        let (looked, plan_changed, changed) = look(seen, &runtime, &pipelines).await;
        seen = looked;
        if plan_changed || apply_again.is_some_and(|since| since.elapsed() >= APPLY_AGAIN) {
            apply_again = match reload(&runtime, &pipelines).await {
                Reload::Done => None,
                Reload::Later => Some(Instant::now()),
            };
        }
        for component in changed {
            if !offer(&runtime, &component).await {
                for key in &component.stages {
                    if let Some((_, sight)) = seen.components.get_mut(key) {
                        sight.again();
                    }
                }
            }
        }
    }
}

/// One look at everything, on a thread where a slow disk holds up nobody.
async fn look(mut seen: Seen, runtime: &Runtime, pipelines: &[PathBuf]) -> (Seen, bool, Vec<Changed>) {
    let (runtime, pipelines) = (runtime.clone(), pipelines.to_vec());
    let looked = tokio::task::spawn_blocking(move || {
        let files = config::load::files_in(&pipelines);
        let stamps = files.into_iter().map(|file| (Stamp::of(&file), file));
        let stamps = stamps.map(|(stamp, file)| (file, stamp)).collect();
        let plan_changed = !pipelines.is_empty() && seen.pipelines.settles(stamps);
        let changed = seen.components(&runtime);
        (seen, plan_changed, changed)
    });
    // A panic in there forgets what was seen, and all is looked at anew.
    looked.await.unwrap_or_default()
}

impl Seen {
    fn components(&mut self, runtime: &Runtime) -> Vec<Changed> {
        let mut changed: BTreeMap<PathBuf, Changed> = BTreeMap::new();
        let stages = runtime.inner.stages();
        self.components.retain(|key, _| stages.iter().any(|(running, _)| running == key));
        for (key, stage) in stages {
            let file = lock(&runtime.inner.plan).pipelines.get(&key.pipeline).map(|it| it.file.clone());
            let Some(path) = file.and_then(|file| runtime.inner.folders.locate(&stage.plan.plugin, &file))
            else {
                continue;
            };
            let Some(stamp) = Stamp::of(&path) else { continue };
            let (known, sight) = self.components.entry(key.clone()).or_default();
            if *known != path {
                (*known, *sight) = (path.clone(), Sight::default());
            }
            if sight.settles(stamp) {
                let new = || Changed { path: path.clone(), stamp, stages: Vec::new() };
                changed.entry(path.clone()).or_insert_with(new).stages.push(key);
            }
        }
        changed.into_values().collect()
    }
}

/// Reads a changed component and shows it to its stages. False: it is to be looked at again.
async fn offer(runtime: &Runtime, changed: &Changed) -> bool {
    let read = component::read(&changed.path).await;
    if Stamp::of(&changed.path) != Some(changed.stamp) {
        return false;
    }
    let file: Bytes = match read {
        Ok(file) => file,
        Err(error) => {
            changed.stages.iter().for_each(|key| runtime.unreadable(key, &changed.path, &error.to_string()));
            return true;
        }
    };
    let mut judged = true;
    for key in &changed.stages {
        judged &= runtime.offer(key, &file).await;
    }
    judged
}

enum Reload {
    Done,
    Later,
}

/// Applies the pipeline files as they are now. What is wrong with them is shown, and what runs goes on.
async fn reload(runtime: &Runtime, pipelines: &[PathBuf]) -> Reload {
    let paths = pipelines.to_vec();
    let loaded = tokio::task::spawn_blocking(move || config::load(&paths)).await;
    let (error, again) = match loaded {
        Ok(Ok(plan)) => match runtime.apply(plan).await {
            Ok(()) => (None, Reload::Done),
            Err(error) => (Some(error.to_string()), Reload::Later),
        },
        Ok(Err(errors)) => (Some(errors.to_string()), Reload::Done),
        Err(panic) => (Some(format!("internal error: {panic}")), Reload::Later),
    };
    let at = crate::clock::rfc3339(runtime.inner.services.log.clock().now());
    if runtime.set_files_error(error.clone().map(|error| FilesError { error, at })) {
        match error {
            Some(error) => {
                tracing::error!("the changed pipeline files do not run; what ran before goes on\n{error}")
            }
            None => tracing::info!("the pipeline files run as they are"),
        }
    }
    again
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_settles_once_when_it_was_seen_twice_in_a_row() {
        let mut sight = Sight::default();
        let said: Vec<bool> = [1, 1, 1, 2, 3, 3, 3, 2, 2].map(|state| sight.settles(state)).into();
        assert_eq!(said, [false, true, false, false, false, true, false, false, true]);
        sight.again();
        assert_eq!([2, 2, 2].map(|state| sight.settles(state)), [false, true, false]);
    }

    #[test]
    fn a_file_that_goes_back_before_it_settles_was_never_another() {
        let mut sight = Sight::default();
        let said = [1, 1, 2, 1, 1].map(|state| sight.settles(state));
        assert_eq!(said, [false, true, false, false, false]);
    }

    #[test]
    fn a_rewrite_of_the_same_length_with_the_old_times_has_another_stamp() -> std::io::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("a.wasm");
        std::fs::write(&path, "one")?;
        let before = Stamp::of(&path);
        let times = std::fs::FileTimes::new().set_modified(std::fs::metadata(&path)?.modified()?);
        let new = folder.path().join("new");
        std::fs::write(&new, "two")?;
        std::fs::File::options().write(true).open(&new)?.set_times(times)?;
        std::fs::rename(&new, &path)?;
        assert_ne!(Stamp::of(&path), before);
        Ok(())
    }
}
