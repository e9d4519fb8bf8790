//! The bucket: a local folder or S3, through one interface.
//!
//! An object is put once, whole, and never changed. Its key holds the hash of its content, so a repeated put of the same
//! bytes finds itself. The local folder is synced, file and directory, before a put is said to be done, since a table in
//! Postgres is dropped for it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, Checksum};
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::{ClientOptions, Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, RetryConfig};
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;

/// A bucket, open. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Bucket {
    store: Arc<dyn ObjectStore>,
    /// In front of every key.
    prefix: Key,
    /// Where the objects are files.
    folder: Option<Arc<Path>>,
    url: Arc<str>,
}

/// Bounds on requests to S3.
#[derive(Clone, Debug)]
pub struct BucketOptions {
    /// The whole of one request, so also the time to send or receive one object. Default 5 minutes.
    pub request: Duration,
    /// Without a byte received. Default 30 s.
    pub silence: Duration,
    /// To connect. Default 5 s.
    pub connect: Duration,
    /// Further attempts at a request that failed in a way that passes. Default 3.
    pub retries: usize,
    /// Settings as in the environment (`aws_access_key_id`, `aws_region`, `aws_endpoint`), which they go before.
    pub settings: Vec<(String, String)>,
}

impl Default for BucketOptions {
    fn default() -> Self {
        Self {
            request: Duration::from_secs(300),
            silence: Duration::from_secs(30),
            connect: Duration::from_secs(5),
            retries: 3,
            settings: Vec::new(),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum BucketError {
    #[error(
        "{url:?} is not a bucket: write a folder, file:///a/folder, or s3://bucket/prefix (its endpoint and region as \
         ?endpoint=http://127.0.0.1:9000&region=eu-west-1, its keys in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY){}",
        .reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default()
    )]
    Url { url: String, reason: Option<String> },
    #[error("{}: {source}", .path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("object {key} is not in the bucket")]
    NotFound { key: String },
    #[error(
        "object {key} is in the bucket with {found} bytes instead of {wanted}: it was not written by this tidemill"
    )]
    Different { key: String, found: u64, wanted: u64 },
    #[error("bucket: {0}")]
    Store(#[from] Error),
}

/// What a put found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    Created,
    /// It is there, by its size: from an attempt before, or from one whose answer was lost. Verify it.
    Found,
}

/// An object as it was read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    pub bytes: u64,
    /// Lower-case hex.
    pub sha256: String,
}

impl Bucket {
    /// A folder (made if it is not there) or `s3://bucket/prefix`. Does not yet talk to S3.
    pub fn open(url: &str, options: &BucketOptions) -> Result<Self, BucketError> {
        match url.split_once("://") {
            None => Self::folder(Path::new(url), url),
            Some(("file", path)) if path.starts_with('/') => Self::folder(Path::new(path), url),
            Some(("s3", rest)) => Self::s3(url, rest, options),
            Some(_) => Err(BucketError::Url { url: without_query(url), reason: None }),
        }
    }

    fn folder(path: &Path, url: &str) -> Result<Self, BucketError> {
        let io = |source| BucketError::Io { path: path.to_path_buf(), source };
        std::fs::create_dir_all(path).map_err(io)?;
        let folder = std::fs::canonicalize(path).map_err(io)?;
        let store = LocalFileSystem::new_with_prefix(&folder)?.with_fsync(true).with_automatic_cleanup(true);
        Ok(Self {
            store: Arc::new(store),
            prefix: Key::default(),
            folder: Some(folder.into()),
            url: url.into(),
        })
    }

    fn s3(url: &str, rest: &str, options: &BucketOptions) -> Result<Self, BucketError> {
        let wrong = |reason: String| BucketError::Url { url: without_query(url), reason: Some(reason) };
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        if bucket.is_empty() {
            return Err(wrong("the bucket has no name".to_owned()));
        }
        // The TLS provider is chosen once in a process; somebody else may have done it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = ClientOptions::new()
            .with_timeout(options.request)
            .with_read_timeout(options.silence)
            .with_connect_timeout(options.connect);
        let retry = RetryConfig {
            max_retries: options.retries,
            retry_timeout: options.request,
            ..Default::default()
        };
        // The store compares what it got with this, so half a body is not taken for the whole.
        let mut builder = AmazonS3Builder::from_env()
            .with_client_options(client)
            .with_retry(retry)
            // Not every server knows the request for many at once, and the sweep deletes one by one anyway.
            .with_disable_bulk_delete(true)
            .with_checksum_algorithm(Checksum::SHA256);
        for (name, value) in &options.settings {
            let key: AmazonS3ConfigKey =
                name.parse().map_err(|_| wrong(format!("there is no setting {name:?}")))?;
            builder = builder.with_config(key, value);
        }
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            builder = match pair.split_once('=') {
                Some(("endpoint", endpoint)) => {
                    builder.with_endpoint(endpoint).with_allow_http(endpoint.starts_with("http://"))
                }
                Some(("region", region)) => builder.with_region(region),
                _ => {
                    return Err(wrong(format!(
                        "{:?} is neither endpoint= nor region=",
                        pair.split('=').next()
                    )));
                }
            };
        }
        let store = builder.with_bucket_name(bucket).build()?;
        let prefix = Key::parse(prefix).map_err(|error| wrong(error.to_string()))?;
        Ok(Self { store: Arc::new(store), prefix, folder: None, url: without_query(url).into() })
    }

    /// For people: without a query, which may name what is nobody's business.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The file of an object, where objects are files.
    pub fn local_path(&self, key: &str) -> Option<PathBuf> {
        self.folder.as_ref().map(|folder| folder.join(key))
    }

    fn key(&self, key: &str) -> Key {
        self.prefix.parts().chain(Key::from(key).parts()).collect()
    }

    /// Puts bytes under a key that nothing is under yet.
    ///
    /// That something is there already is no answer by itself: the store says so too when it could not decide (409), and
    /// when an answer was lost and the request was sent again (412). So it is looked at.
    pub async fn put_new(&self, key: &str, bytes: bytes::Bytes) -> Result<Put, BucketError> {
        self.remove_unfinished(key).await?;
        let wanted = bytes.len() as u64;
        let options = PutOptions { mode: PutMode::Create, ..Default::default() };
        match self.store.put_opts(&self.key(key), bytes.into(), options).await {
            Ok(_) => Ok(Put::Created),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => match self.size(key).await? {
                Some(found) if found == wanted => Ok(Put::Found),
                Some(found) => Err(BucketError::Different { key: key.to_owned(), found, wanted }),
                // A conflict, and nothing is there: the next attempt may do.
                None => Err(BucketError::NotFound { key: key.to_owned() }),
            },
            Err(error) => Err(error.into()),
        }
    }

    /// Its size in bytes; None if it is not there.
    pub async fn size(&self, key: &str) -> Result<Option<u64>, BucketError> {
        match self.store.head(&self.key(key)).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Copies an object into a file, which is replaced, and says what it got.
    pub async fn fetch_to(&self, key: &str, path: &Path) -> Result<Fetched, BucketError> {
        let io = |source| BucketError::Io { path: path.to_path_buf(), source };
        let answer = match self.store.get(&self.key(key)).await {
            Err(Error::NotFound { .. }) => return Err(BucketError::NotFound { key: key.to_owned() }),
            answer => answer?,
        };
        let mut file = tokio::fs::File::create(path).await.map_err(io)?;
        let mut hasher = Sha256::new();
        let mut bytes = 0;
        let mut stream = answer.into_stream();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk?;
            hasher.update(&chunk);
            bytes += chunk.len() as u64;
            file.write_all(&chunk).await.map_err(io)?;
        }
        file.flush().await.map_err(io)?;
        Ok(Fetched { bytes, sha256: hex::encode(hasher.finalize()) })
    }

    /// The bytes of a small object; None if it is not there.
    pub async fn read(&self, key: &str) -> Result<Option<bytes::Bytes>, BucketError> {
        match self.store.get(&self.key(key)).await {
            Ok(answer) => Ok(Some(answer.bytes().await?)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Deletes an object; that it is gone already is fine.
    pub async fn delete(&self, key: &str) -> Result<(), BucketError> {
        self.remove_unfinished(key).await?;
        match self.store.delete(&self.key(key)).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// A put into a folder writes a file beside the object, named `KEY#1` or by the next number that is free, and makes it the
    /// object when it is whole. One that was killed leaves it, and no listing shows it. Should it be another host's that
    /// still writes, then its put fails and is made again.
    async fn remove_unfinished(&self, key: &str) -> Result<(), BucketError> {
        let Some(path) = self.local_path(key) else { return Ok(()) };
        for number in 1.. {
            let mut name = path.clone().into_os_string();
            name.push(format!("#{number}"));
            let path = PathBuf::from(name);
            match tokio::fs::remove_file(&path).await {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => break,
                Err(source) => return Err(BucketError::Io { path, source }),
            }
        }
        Ok(())
    }

    /// The keys that begin with `folder`. For tests and people; nothing is decided by it.
    pub async fn list(&self, folder: &str) -> Result<Vec<String>, BucketError> {
        let prefix = self.key(folder);
        let mut listed = self.store.list(Some(&prefix));
        let mut keys = Vec::new();
        while let Some(object) = listed.next().await {
            let location = object?.location;
            let parts: Option<Key> = location.prefix_match(&self.prefix).map(Iterator::collect);
            keys.extend(parts.map(|key| key.to_string()));
        }
        keys.sort();
        Ok(keys)
    }
}

fn without_query(url: &str) -> String {
    url.split('?').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_object_in_a_folder_is_put_once() {
        let folder = tempfile::tempdir().unwrap();
        let bucket = Bucket::open(folder.path().to_str().unwrap(), &BucketOptions::default()).unwrap();
        let key = "archive/t/date=2026-11-22/0-0-9-ab.parquet";
        assert_eq!(bucket.size(key).await.unwrap(), None);
        assert_eq!(bucket.put_new(key, "hello".into()).await.unwrap(), Put::Created);
        assert_eq!(bucket.put_new(key, "hello".into()).await.unwrap(), Put::Found);
        let other = bucket.put_new(key, "longer than that".into()).await.unwrap_err();
        assert!(matches!(other, BucketError::Different { found: 5, wanted: 16, .. }), "{other}");
        assert_eq!(std::fs::read(bucket.local_path(key).unwrap()).unwrap(), b"hello");
        let copy = folder.path().join("copy");
        let fetched = bucket.fetch_to(key, &copy).await.unwrap();
        assert_eq!((fetched.bytes, std::fs::read(copy).unwrap().as_slice()), (5, b"hello".as_slice()));
        assert_eq!(fetched.sha256, "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
        assert_eq!(bucket.list("archive").await.unwrap(), [key]);
        bucket.delete(key).await.unwrap();
        bucket.delete(key).await.unwrap();
        assert!(matches!(
            bucket.fetch_to(key, &folder.path().join("x")).await,
            Err(BucketError::NotFound { .. })
        ));
    }

    #[tokio::test]
    async fn what_a_killed_put_left_goes_with_the_next_put_or_the_delete() {
        let folder = tempfile::tempdir().unwrap();
        let bucket = Bucket::open(folder.path().to_str().unwrap(), &BucketOptions::default()).unwrap();
        let key = "archive/t/date=2026-11-22/0-0-9-ab.parquet";
        let path = bucket.local_path(key).unwrap();
        // Its folder goes with the last object.
        let files = || std::fs::read_dir(path.parent().unwrap()).map_or(0, Iterator::count);
        let leave = |number: u32| std::fs::write(format!("{}#{number}", path.display()), "half").unwrap();
        bucket.put_new(key, "hello".into()).await.unwrap();
        assert_eq!(files(), 1);
        leave(1);
        leave(2);
        assert_eq!(bucket.put_new(key, "hello".into()).await.unwrap(), Put::Found);
        assert_eq!(files(), 1);
        leave(1);
        bucket.delete(key).await.unwrap();
        assert_eq!(files(), 0);
    }

    #[test]
    fn what_is_no_bucket_is_said_without_its_secrets() {
        for bad in ["http://x/y?token=hunter2", "s3://", "s3://b/p?user=hunter2", "file://relative"] {
            let error = Bucket::open(bad, &BucketOptions::default()).unwrap_err().to_string();
            assert!(error.contains("s3://bucket/prefix") && !error.contains("hunter2"), "{error}");
        }
    }
}
