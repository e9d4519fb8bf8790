use std::path::Path;

use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;

use crate::archive::store::{Bucket, BucketOptions};

use super::*;

/// A real S3 server over a folder, in this process.
async fn s3(folder: &Path) -> Bucket {
    fs::create_dir_all(folder.join("history")).unwrap();
    let service = {
        let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(folder).unwrap());
        builder.set_auth(SimpleAuth::from_single("key", "secret"));
        builder.build()
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let serving = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service.clone());
            tokio::spawn(serving);
        }
    });
    let settings = [("aws_access_key_id", "key"), ("aws_secret_access_key", "secret")];
    let options = BucketOptions {
        settings: settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
        retries: 0,
        ..BucketOptions::default()
    };
    Bucket::open(&format!("s3://history?endpoint=http://{address}&region=us-east-1"), &options).unwrap()
}

async fn put(bucket: &Bucket, path: &str, content: Vec<u8>) -> Object {
    let object = Object {
        path: path.to_owned(),
        bytes: content.len() as u64,
        sha256: hex::encode(Sha256::digest(&content)),
    };
    bucket.put_new(path, content.into()).await.unwrap();
    object
}

#[tokio::test]
async fn objects_of_a_folder_are_read_where_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let bucket = Bucket::open(folder.path().to_str().unwrap(), &BucketOptions::default()).unwrap();
    let object = put(&bucket, "archive/t/date=2026-01-01/a.parquet", b"one".to_vec()).await;
    let cache = tempfile::tempdir().unwrap();
    let objects = Objects::open(bucket, cache.path(), 0).unwrap();
    let _pin = objects.provide(std::slice::from_ref(&object)).await.unwrap();
    assert!(!objects.is_mirror());
    assert_eq!(fs::read(objects.root().join(&object.path)).unwrap(), b"one");
    assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn objects_of_s3_are_mirrored_once_and_make_room() {
    let (server, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let bucket = s3(server.path()).await;
    let mut all = Vec::new();
    for n in 0..3u8 {
        all.push(put(&bucket, &format!("archive/t/date=2026-01-0{}/{n}.parquet", n + 1), vec![n; 100]).await);
    }
    let objects = Objects::open(bucket.clone(), cache.path(), 250).unwrap();
    let there = |n: usize| objects.root().join(&all[n].path).exists();
    let first = objects.provide(&all[..2]).await.unwrap();
    assert!(there(0) && there(1) && fs::read(objects.root().join(&all[1].path)).unwrap() == vec![1; 100]);
    let refused = objects.provide(&all[2..]).await;
    assert!(matches!(refused, Err(ObjectError::TooMany(250))), "both files are in use: {refused:?}");
    drop(first);
    drop(objects.provide(&all[1..2]).await.unwrap());
    let _third = objects.provide(&all[2..]).await.unwrap();
    assert!(!there(0) && there(1) && there(2), "the one longest unused makes room");

    // What is mirrored is not fetched again, also not after a restart.
    fs::remove_dir_all(server.path().join("history/archive")).unwrap();
    drop(objects.provide(&all[1..]).await.unwrap());
    fs::write(cache.path().join("mirror/archive/t/x.half"), "h").unwrap();
    let again = Objects::open(bucket, cache.path(), 250).unwrap();
    let _pin = again.provide(&all[1..]).await.unwrap();
    assert!(!cache.path().join("mirror/archive/t/x.half").exists());
    assert!(again.provide(&all[..1]).await.is_err(), "it is in the bucket no more");
    again.keep_only(&[]);
    assert!(again.root().join(&all[1].path).exists(), "a query uses it");
}

#[tokio::test]
async fn an_object_that_is_not_what_was_put_there_is_refused() {
    let (server, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let bucket = s3(server.path()).await;
    let object = put(&bucket, "archive/t/a.parquet", b"right".to_vec()).await;
    fs::write(server.path().join("history/archive/t/a.parquet"), b"wrong").unwrap();
    let objects = Objects::open(bucket, cache.path(), 1 << 20).unwrap();
    let refused = objects.provide(std::slice::from_ref(&object)).await;
    assert!(matches!(refused, Err(ObjectError::Damaged { .. })), "{refused:?}");
    assert!(!objects.root().join(&object.path).exists());
}

#[tokio::test]
async fn a_file_of_a_folder_that_changes_is_found_out() {
    let folder = tempfile::tempdir().unwrap();
    let bucket = Bucket::open(folder.path().to_str().unwrap(), &BucketOptions::default()).unwrap();
    let object = put(&bucket, "archive/t/a.parquet", b"right".to_vec()).await;
    let objects = Objects::open(bucket, folder.path(), 0).unwrap();
    objects.provide(std::slice::from_ref(&object)).await.unwrap();
    let file = objects.root().join(&object.path);
    for (day, damage) in (1..).zip([&b"wrong"[..], b"rig"]) {
        fs::write(&file, damage).unwrap();
        // Not the time that it had, on a file system that counts in whole seconds too.
        let other = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(day * 86_400);
        fs::File::open(&file).unwrap().set_modified(other).unwrap();
        let refused = objects.provide(std::slice::from_ref(&object)).await;
        assert!(matches!(refused, Err(ObjectError::Damaged { .. })), "{refused:?}");
    }
    fs::write(&file, b"right").unwrap();
    objects.provide(std::slice::from_ref(&object)).await.unwrap();
}
