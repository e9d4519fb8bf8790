//! The archive's objects as files that can be read.
//!
//! Guarantee: a file that is provided has the bytes that the catalog's hash names, so a damaged object is named and never
//! served. Where the bucket is a folder, its objects are files already, which are hashed once and again when their size or
//! time changes. Of a bucket elsewhere a mirror is kept: objects never change, so what was fetched once, and had that hash,
//! stays good. Bounds: bytes of the mirror; objects that nobody reads make room, those longest unused first.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use futures::{StreamExt, TryStreamExt, stream};

use sha2::{Digest, Sha256};
use tokio::task::spawn_blocking;

use super::store::Bucket;

/// Bytes of archived objects that a host keeps, where the bucket is elsewhere.
pub const MIRROR_BYTES: u64 = 20 << 30;

/// Objects that are fetched or hashed at a time.
const SIDE_BY_SIDE: usize = 4;

/// An object of the archive, as the catalog names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Object {
    /// From the bucket's root.
    pub path: String,
    pub bytes: u64,
    /// Lower-case hex.
    pub sha256: String,
}

/// Why an object is not provided.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ObjectError {
    /// Trying again does not help.
    #[error(
        "object {path} is damaged: its bytes are not those that were put there; restore it from a copy of the bucket, \
         or seek past its records"
    )]
    Damaged { path: String },
    #[error("object {path} cannot be read: {reason}")]
    Unreadable { path: String, reason: String },
    #[error("they are more than the cache of archived objects holds ({} MiB)", .0 >> 20)]
    TooMany(u64),
}

/// Where objects are read. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Objects {
    root: PathBuf,
    place: Place,
}

#[derive(Clone, Debug)]
enum Place {
    /// The bucket is a folder. What was hashed of it: size and time of the file, by path.
    Folder(Arc<Mutex<HashMap<String, Seen>>>),
    Mirror(Arc<Mirror>),
}

/// A file as it was when it was hashed.
type Seen = (u64, Option<SystemTime>);

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
    /// Readers that need it.
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
            return Ok(Self { root, place: Place::Folder(Arc::default()) });
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
        Ok(Self { root, place: Place::Mirror(Arc::new(mirror)) })
    }

    /// Objects are files below it, by their paths.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether objects are only there once they were [provided](Self::provide).
    pub fn is_mirror(&self) -> bool {
        matches!(self.place, Place::Mirror(_))
    }

    /// Sees to it that these objects are below the root and whole, for as long as the pin is kept.
    pub async fn provide(&self, objects: &[Object]) -> Result<Pin, ObjectError> {
        match &self.place {
            Place::Folder(seen) => {
                let checks = objects.iter().cloned().map(|object| {
                    let (root, seen) = (self.root.clone(), seen.clone());
                    async move { check(&root, &seen, &object).await }
                });
                stream::iter(checks).buffer_unordered(SIDE_BY_SIDE).try_collect::<()>().await?;
                Ok(Pin::default())
            }
            Place::Mirror(mirror) => Mirror::provide(mirror, objects).await,
        }
    }

    /// Forgets what is not among all objects that there are.
    pub fn keep_only(&self, objects: &[Object]) {
        let known: HashSet<&str> = objects.iter().map(|object| object.path.as_str()).collect();
        match &self.place {
            Place::Folder(seen) => locked(seen).retain(|path, _| known.contains(path.as_str())),
            Place::Mirror(mirror) => {
                mirror.remove(|path, kept| kept.pins == 0 && !known.contains(path));
            }
        }
    }
}

/// Hashes a file of the bucket's folder, unless it was and has not changed since.
async fn check(root: &Path, seen: &Mutex<HashMap<String, Seen>>, object: &Object) -> Result<(), ObjectError> {
    let unreadable = |error: &dyn std::fmt::Display| ObjectError::Unreadable {
        path: object.path.clone(),
        reason: error.to_string(),
    };
    let file = root.join(&object.path);
    let meta = tokio::fs::metadata(&file).await.map_err(|error| unreadable(&error))?;
    let now = (meta.len(), meta.modified().ok());
    let is_known = locked(seen).get(&object.path) == Some(&now);
    if is_known {
        return Ok(());
    }
    let hashed = spawn_blocking(move || hash(&file)).await.map_err(|error| unreadable(&error))?;
    let sha256 = hashed.map_err(|error| unreadable(&error))?;
    if (now.0, sha256) != (object.bytes, object.sha256.clone()) {
        return Err(ObjectError::Damaged { path: object.path.clone() });
    }
    locked(seen).insert(object.path.clone(), now);
    Ok(())
}

fn hash(file: &Path) -> io::Result<String> {
    const BLOCK: usize = 1 << 16;
    let (mut file, mut hash, mut block) = (fs::File::open(file)?, Sha256::new(), vec![0; BLOCK]);
    loop {
        match file.read(&mut block)? {
            0 => return Ok(hex::encode(hash.finalize())),
            read => hash.update(&block[..read]),
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
    async fn provide(this: &Arc<Self>, objects: &[Object]) -> Result<Pin, ObjectError> {
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
        locked(&self.kept)
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

    fn make_room(&self, bytes: u64) -> Result<(), ObjectError> {
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
            return Err(ObjectError::TooMany(self.limit));
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
    async fn fetch(&self, object: &Object) -> Result<(), ObjectError> {
        let failed = |reason: String| ObjectError::Unreadable { path: object.path.clone(), reason };
        let place = self.root.join(&object.path);
        let half = place.with_extension("half");
        let folder = place.parent().unwrap_or(&self.root);
        fs::create_dir_all(folder).map_err(|error| failed(error.to_string()))?;
        let fetched =
            self.bucket.fetch_to(&object.path, &half).await.map_err(|error| failed(error.to_string()))?;
        if (fetched.bytes, fetched.sha256.as_str()) != (object.bytes, object.sha256.as_str()) {
            let _ = fs::remove_file(&half);
            return Err(ObjectError::Damaged { path: object.path.clone() });
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
