//! Deleting what is in the bucket and in no catalog row: objects of attempts that did not end, of deleted topics, and
//! those whose retention is over.
//!
//! Only what is noted in `loose_objects` is deleted, so another's object in the same bucket is safe. A path is first
//! doomed, then deleted, then forgotten: while it is doomed nobody puts or catalogues it, so a delete never meets an
//! object that counts. What is in the catalog is never doomed, whoever noted it.

use std::time::{Duration, Instant};

use super::archiver::{ArchiveError, Archiver};
use crate::crash;

/// Objects that one sweep takes.
const MOST: i64 = 200;
/// A sweep that was doomed with has this long to delete; another may try after twice that.
const TIME: Duration = Duration::from_secs(300);

/// Deletes what has been loose for long enough; how many.
pub(super) async fn sweep(archiver: &Archiver) -> Result<u64, ArchiveError> {
    let doomed: Vec<String> = sqlx::query_scalar(
        "UPDATE tidemill.loose_objects SET doomed_at = clock_timestamp() WHERE path IN ( \
           SELECT path FROM tidemill.loose_objects l \
            WHERE NOT EXISTS (SELECT FROM tidemill.objects o WHERE o.path = l.path) \
              AND CASE WHEN doomed_at IS NOT NULL THEN doomed_at < clock_timestamp() - make_interval(secs => $3) \
                       WHEN reason = 'put' THEN since < clock_timestamp() - make_interval(secs => $1) \
                       ELSE since < clock_timestamp() - make_interval(secs => $2) END \
            ORDER BY since LIMIT $4 FOR UPDATE SKIP LOCKED) \
         RETURNING path",
    )
    .bind(archiver.options.orphan_after.as_secs_f64())
    .bind(archiver.options.gone_after.as_secs_f64())
    .bind(2.0 * TIME.as_secs_f64())
    .bind(MOST)
    .fetch_all(&archiver.pool)
    .await?;
    crash::point("archive.doom");
    delete(archiver, &doomed).await
}

/// Deletes one object that was put and is not what it should be, unless it is in the catalog or being swept already.
pub(super) async fn discard(archiver: &Archiver, path: &str) -> Result<(), ArchiveError> {
    let doomed = sqlx::query(
        "UPDATE tidemill.loose_objects l SET doomed_at = clock_timestamp() WHERE path = $1 AND doomed_at IS NULL \
         AND NOT EXISTS (SELECT FROM tidemill.objects o WHERE o.path = l.path)",
    )
    .bind(path)
    .execute(&archiver.pool)
    .await?;
    if doomed.rows_affected() == 1 {
        delete(archiver, &[path.to_owned()]).await?;
    }
    Ok(())
}

async fn delete(archiver: &Archiver, doomed: &[String]) -> Result<u64, ArchiveError> {
    let began = Instant::now();
    let mut deleted = 0;
    for path in doomed {
        // After this time somebody else may have deleted it, and a third may have put it again.
        let left = TIME.saturating_sub(began.elapsed());
        match tokio::time::timeout(left, archiver.bucket.delete(path)).await {
            Ok(done) => done?,
            Err(_elapsed) => break,
        }
        crash::point("archive.sweep");
        sqlx::query("DELETE FROM tidemill.loose_objects WHERE path = $1 AND doomed_at IS NOT NULL")
            .bind(path)
            .execute(&archiver.pool)
            .await?;
        tracing::info!(path, "deleted an object that no catalog row names");
        deleted += 1;
    }
    Ok(deleted)
}
