use std::sync::Arc;

use crate::archive::parquet::decode;
use crate::clock::Clock;
use crate::ids::Offset;
use crate::log::testing::{records, to, with_topic};
use crate::log::{Log, LogOptions, Topic};
use crate::pg::notify::NotifyHub;
use crate::query::protocol::Range;
use crate::replay::Replay;

use super::*;

struct Files {
    log: Log,
    topic: Arc<Topic>,
    hot: HotFiles,
    folder: tempfile::TempDir,
    _database: crate::pg::testing::TestDatabase,
}

async fn files(bytes: u64) -> Files {
    let (database, log, topic) = with_topic(2).await;
    let folder = tempfile::tempdir().unwrap();
    let options = HotOptions { folder: folder.path().join("hot"), bytes };
    let hot = HotFiles::open(Replay::new(log.clone()), options).unwrap();
    Files { log, topic, hot, folder, _database: database }
}

impl Files {
    async fn append(&self, partition: Partition, count: usize) {
        let bodies = records((0..count).map(|n| format!("record {n} of partition {partition}")));
        self.log.append(&self.topic, bodies, to(partition)).await.unwrap();
    }

    async fn collect(&self, partition: Partition, first: Offset, next: Offset) -> Vec<Arc<Chunk>> {
        self.hot.collect(&self.topic, &[Range { partition, first, next }]).await.unwrap()
    }

    fn on_disk(&self) -> usize {
        std::fs::read_dir(self.folder.path().join("hot")).unwrap().count()
    }
}

/// The offsets of files, in order; what is in them is read back.
fn held(chunks: &[Arc<Chunk>]) -> Vec<(Offset, Offset)> {
    for chunk in chunks {
        let batches = decode(&chunk.path, 0..Offset::MAX).unwrap();
        let offsets: Vec<Offset> = batches.iter().flat_map(|b| b.records.iter().map(|r| r.offset)).collect();
        assert_eq!(offsets, (chunk.first..chunk.next).collect::<Vec<_>>());
    }
    chunks.iter().map(|chunk| (chunk.first, chunk.next)).collect()
}

#[tokio::test]
async fn each_query_writes_what_is_new_and_small_files_grow_together() {
    let files = files(1 << 30).await;
    let mut most = 0;
    for round in 1..=40 {
        files.append(0, 10).await;
        let chunks = files.collect(0, 0, round * 10).await;
        let held = held(&chunks);
        assert_eq!((held[0].0, held.last().unwrap().1), (0, round * 10));
        assert!(held.windows(2).all(|pair| pair[0].1 == pair[1].0), "{held:?}");
        most = most.max(held.len());
        drop(chunks);
        assert_eq!(files.on_disk(), held.len(), "files that were merged are gone");
    }
    assert!(most <= 6, "{most} files for 40 queries");
    let again = files.collect(0, 0, 400).await;
    assert_eq!(files.collect(0, 0, 400).await.len(), again.len());
}

#[tokio::test]
async fn a_file_goes_when_its_records_are_archived_and_no_query_uses_it() {
    let files = files(1 << 30).await;
    files.append(0, 100).await;
    files.append(1, 10).await;
    let used = files.collect(0, 0, 50).await;
    let both = [Range { partition: 0, first: 50, next: 100 }, Range { partition: 1, first: 0, next: 10 }];
    let chunks = files.hot.collect(&files.topic, &both).await.unwrap();
    assert_eq!(held(&chunks), [(50, 100), (0, 10)]);
    assert_eq!(files.on_disk(), 3, "the first file is still used");
    drop(used);
    assert_eq!(files.on_disk(), 2);
    // The boundary lies within a file: it is used as it is, and the view cuts it.
    assert_eq!(held(&files.collect(0, 70, 100).await), [(50, 100)]);
    files.hot.keep_only(&[]);
    drop(chunks);
    assert_eq!(files.on_disk(), 0);
    assert_eq!(files.hot.used.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn batches_are_cut_at_the_snapshot_and_holes_are_filled() {
    let files = files(1 << 30).await;
    files.append(0, 100).await;
    let tail = files.collect(0, 60, 80).await;
    assert_eq!(held(&tail), [(60, 80)]);
    let all = files.collect(0, 0, 100).await;
    assert_eq!(held(&all).first().map(|held| held.0), Some(0));
    assert_eq!(held(&all).last().map(|held| held.1), Some(100));
    let holes = [Range { partition: 0, first: 0, next: 10 }, Range { partition: 0, first: 90, next: 100 }];
    let chunks = files.hot.collect(&files.topic, &holes).await.unwrap();
    assert!(chunks.iter().all(|chunk| holes.iter().any(|hole| chunk.overlaps(hole))));
}

#[tokio::test]
async fn the_cache_has_a_limit_and_unused_files_make_room() {
    let files = files(CHUNK_BYTES as u64 + 1_000).await;
    files.append(0, 1_000).await;
    files.append(1, 1_000).await;
    let first = files.collect(0, 0, 1_000).await;
    let refused = files.hot.collect(&files.topic, &[Range { partition: 1, first: 0, next: 1_000 }]).await;
    assert!(matches!(refused, Err(HotError::Failed(QueryError::Hot(_)))), "{refused:?}");
    drop(first);
    assert_eq!(files.collect(1, 0, 1_000).await.len(), 1);
    assert_eq!(files.on_disk(), 1);
}

#[tokio::test]
async fn records_that_are_not_there_are_an_error_and_never_an_empty_file() {
    let files = files(1 << 30).await;
    files.append(0, 10).await;
    let ahead = files.hot.collect(&files.topic, &[Range { partition: 0, first: 0, next: 11 }]).await;
    assert!(matches!(ahead, Err(HotError::Failed(QueryError::Hot(_)))), "{ahead:?}");
    sqlx::query("UPDATE tidemill.log_start SET start_offset = 5").execute(files.log.pool()).await.unwrap();
    // Another host's: this one has the batch in its cache, and may serve it from there a little longer.
    let options = HotOptions { folder: files.folder.path().join("other"), bytes: 1 << 30 };
    let pool = files.log.pool();
    let log =
        Log::new(pool.clone(), NotifyHub::start(pool.clone(), None), Clock::system(), LogOptions::default());
    let hot = HotFiles::open(Replay::new(log), options).unwrap();
    let gone = hot.collect(&files.topic, &[Range { partition: 0, first: 0, next: 10 }]).await;
    assert!(matches!(gone, Err(HotError::Gone)), "{gone:?}");
}
