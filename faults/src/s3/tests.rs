//! The faults are told from each other by a client, and what is stored is what was put.

use std::time::Duration;

use tidemill::archive::{Bucket as Client, BucketOptions};

use super::*;

fn client(server: &Bucket) -> Client {
    let settings = [("aws_access_key_id", KEY), ("aws_secret_access_key", SECRET)];
    let options = BucketOptions {
        request: Duration::from_secs(5),
        silence: Duration::from_millis(200),
        connect: Duration::from_secs(2),
        retries: 0,
        settings: settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
    };
    Client::open(&server.url(server.address()), &options).unwrap()
}

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("tidemill-s3-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_is_well_keeps_what_it_gets() {
    let folder = Folder::new("well");
    let server = Bucket::start(&folder.0, Rng::with_seed(1)).await.unwrap();
    client(&server).put_new("archive/a", Bytes::from_static(b"the bytes")).await.unwrap();
    assert_eq!(std::fs::read(server.folder().join("archive/a")).unwrap(), b"the bytes");
    assert_eq!((server.puts(), server.faults()), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_misbehaves_does_so_each_time_and_tries_all_ways() {
    let folder = Folder::new("bad");
    let server = Bucket::start(&folder.0, Rng::with_seed(2)).await.unwrap();
    let client = client(&server);
    client.put_new("archive/well", Bytes::from_static(b"the bytes")).await.unwrap();
    server.misbehave(1.0);
    let (mut stored, mut not) = (0, 0);
    for number in 0..40 {
        let key = format!("archive/{number}");
        // Whatever it answers, a HEAD that fails too keeps the client from believing it.
        let _ = client.put_new(&key, Bytes::from_static(b"the bytes")).await;
        match std::fs::read(server.folder().join(&key)) {
            Ok(bytes) => {
                assert_eq!(bytes, b"the bytes");
                stored += 1;
            }
            Err(_) => not += 1,
        }
        if let Ok(Some(read)) = client.read("archive/well").await {
            assert_ne!(read, &b"the bytes"[..], "a read that was failed gave the very bytes");
        }
    }
    assert!(stored > 5 && not > 5, "{stored} were stored and {not} were not");
    assert!(server.faults() >= 80);
}
