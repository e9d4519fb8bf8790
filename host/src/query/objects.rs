//! The archive's objects as files that a query can read.
//!
//! Where the bucket is a folder, its objects are files already. Of a bucket elsewhere a mirror is kept in the query cache:
//! objects never change, so what was fetched once, and had the hash that the catalog names, stays good. Bounds: bytes of
//! the mirror; objects that no running query needs make room, those longest unused first.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use futures::{StreamExt, TryStreamExt, stream};

use super::catalog::Object;
use super::error::QueryError;
use crate::archive::store::Bucket;

/// Objects that are fetched at a time.
const SIDE_BY_SIDE: usize = 4;

/// Where objects are read. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Objects {
    root: PathBuf,
    mirror: Option<Arc<Mirror>>,
}

#[derive(Debug)]
struct Mirror {
    bucket: Bucket,
    root: PathBuf,
    /// Bytes of all files.
    limit: u64,
    kept: Mutex<HashMap<String, Kept>>,
    /// Held while files are fetched, so that none is fetched twice.
    fetching: tokio::sync::Mutex<()>,
}

/// A file of the mirror.
#[derive(Debug)]
struct Kept {
    bytes: u64,
    used: Instant,
    /// Queries that need it.
    pins: usize,
}

/// Keeps files in the mirror until it is dropped.
#[derive(Debug, Default)]
pub struct Pin {
    mirror: Option<Arc<Mirror>>,
    paths: Vec<String>,
}

impl Objects {
    /// `cache` is a folder for the mirror, if there is to be one; what is in it from before is used.
    pub fn open(bucket: Bucket, cache: &Path, limit: u64) -> io::Result<Self> {
        if let Some(archive) = bucket.local_path("archive") {
            let root = archive.parent().unwrap_or(&archive).canonicalize()?;
            return Ok(Self { root, mirror: None });
        }
        let root = cache.join("mirror");
        fs::create_dir_all(&root)?;
        let root = root.canonicalize()?;
        let mut kept = HashMap::new();
        find(&root, &root, &mut kept)?;
        let mirror = Mirror {
            bucket,
            root: root.clone(),
            limit,
            kept: Mutex::new(kept),
            fetching: tokio::sync::Mutex::default(),
        };
        Ok(Self { root, mirror: Some(Arc::new(mirror)) })
    }

    /// Objects are files below it, by their paths.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether objects are only there once they were [provided](Self::provide).
    pub fn is_mirror(&self) -> bool {
        self.mirror.is_some()
    }

    /// Sees to it that these objects are below the root, for as long as the pin is kept.
    pub async fn provide(&self, objects: &[Object]) -> Result<Pin, QueryError> {
        match &self.mirror {
            None => Ok(Pin::default()),
            Some(mirror) => Mirror::provide(mirror, objects).await,
        }
    }

    /// Removes what is not among all objects that there are.
    pub fn keep_only(&self, objects: &[Object]) {
        if let Some(mirror) = &self.mirror {
            let known: HashSet<&str> = objects.iter().map(|object| object.path.as_str()).collect();
            mirror.remove(|path, kept| kept.pins == 0 && !known.contains(path));
        }
    }
}

/// Files of an earlier run.
fn find(root: &Path, folder: &Path, kept: &mut HashMap<String, Kept>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (path, meta) = (entry.path(), entry.metadata()?);
        if meta.is_dir() {
            find(root, &path, kept)?;
        } else if path.extension().is_some_and(|extension| extension == "parquet")
            && let Ok(key) = path.strip_prefix(root)
        {
            let file = Kept { bytes: meta.len(), used: Instant::now(), pins: 0 };
            kept.insert(key.to_string_lossy().into_owned(), file);
        } else {
            // Half of an object, from a fetch that was cut short.
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

impl Mirror {
    async fn provide(this: &Arc<Self>, objects: &[Object]) -> Result<Pin, QueryError> {
        let _turn = this.fetching.lock().await;
        let mut pin = Pin { mirror: Some(this.clone()), paths: Vec::new() };
        let missing: Vec<Object> =
            objects.iter().filter(|object| !this.pin(object, &mut pin)).cloned().collect();
        this.make_room(missing.iter().map(|object| object.bytes).sum())?;
        let fetches = missing.into_iter().map(|object| {
            let this = this.clone();
            async move { this.fetch(&object).await.map(|()| object) }
        });
        let mut fetched = stream::iter(fetches).buffer_unordered(SIDE_BY_SIDE);
        while let Some(object) = fetched.try_next().await? {
            let file = Kept { bytes: object.bytes, used: Instant::now(), pins: 0 };
            this.kept().insert(object.path.clone(), file);
            this.pin(&object, &mut pin);
        }
        Ok(pin)
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<String, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pins a file that is there.
    fn pin(&self, object: &Object, pin: &mut Pin) -> bool {
        match self.kept().get_mut(&object.path).filter(|kept| kept.bytes == object.bytes) {
            None => false,
            Some(kept) => {
                kept.pins += 1;
                kept.used = Instant::now();
                pin.paths.push(object.path.clone());
                true
            }
        }
    }

    fn make_room(&self, bytes: u64) -> Result<(), QueryError> {
        let used: u64 = self.kept().values().map(|kept| kept.bytes).sum();
        let mut excess = (used + bytes).saturating_sub(self.limit);
        let mut idle: Vec<(Instant, String, u64)> = self
            .kept()
            .iter()
            .filter(|(_, kept)| kept.pins == 0)
            .map(|(path, kept)| (kept.used, path.clone(), kept.bytes))
            .collect();
        idle.sort();
        let mut going = HashSet::new();
        for (_, path, bytes) in idle {
            if excess == 0 {
                break;
            }
            excess = excess.saturating_sub(bytes);
            going.insert(path);
        }
        if excess > 0 {
            return Err(QueryError::Archive(format!(
                "they are more than the query cache holds ({} MiB)",
                self.limit >> 20
            )));
        }
        self.remove(|path, _| going.contains(path));
        Ok(())
    }

    fn remove(&self, going: impl Fn(&str, &Kept) -> bool) {
        self.kept().retain(|path, kept| {
            let goes = going(path, kept);
            if goes && let Err(error) = fs::remove_file(self.root.join(path)) {
                tracing::debug!(%error, path, "a file of the mirror was not removed");
            }
            !goes
        });
    }

    /// Fetches an object beside its place, checks it, and moves it there.
    async fn fetch(&self, object: &Object) -> Result<(), QueryError> {
        let failed = |reason: String| QueryError::Archive(format!("{}: {reason}", object.path));
        let place = self.root.join(&object.path);
        let half = place.with_extension("half");
        let folder = place.parent().unwrap_or(&self.root);
        fs::create_dir_all(folder).map_err(|error| failed(error.to_string()))?;
        let fetched =
            self.bucket.fetch_to(&object.path, &half).await.map_err(|error| failed(error.to_string()))?;
        if (fetched.bytes, fetched.sha256.as_str()) != (object.bytes, object.sha256.as_str()) {
            let _ = fs::remove_file(&half);
            return Err(failed("it is not what was put there".to_string()));
        }
        fs::rename(&half, &place).map_err(|error| failed(error.to_string()))
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        if let Some(mirror) = &self.mirror {
            let mut kept = mirror.kept();
            for path in &self.paths {
                if let Some(kept) = kept.get_mut(path) {
                    kept.pins = kept.pins.saturating_sub(1);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
