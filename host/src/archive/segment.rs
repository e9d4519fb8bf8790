//! One segment, step by step: read and encode, note, put, read back, and then all its objects into the catalog at once.
//!
//! Each step may be repeated from the start. What a crash leaves behind: a temporary file (deleted at the next start), a
//! claim (runs out), a loose object (found again by its name, or swept).

use std::ops::Range;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::task::spawn_blocking;

use super::archiver::{ArchiveError, Archiver, Report};
use super::catalog::{self, Claim, NewObject};
use super::key::object_key;
use super::parquet::write::MAX_RECORDS;
use super::parquet::{self, Encoded, Encoder, Layout};
use super::store::{BucketError, Put};
use super::sweep;
use crate::crash;
use crate::ids::{Offset, Partition};
use crate::record::{Record, StoredBatch};

/// Bytes of records that are read from Postgres at once.
const PAGE_BYTES: u64 = 8 << 20;
/// Bytes of records in one object at most, unless one batch has more: an object is put in one piece, from memory.
const OBJECT_BYTES: u64 = 128 << 20;
/// Times an object is read back before what comes is taken for what is there.
const READS: u32 = 3;

/// Archives one claimed segment, and holds on to the claim meanwhile.
pub(super) async fn archive(archiver: &Archiver, claim: &Claim) -> Result<Report, ArchiveError> {
    tokio::select! {
        done = steps(archiver, claim) => done,
        lost = keep(archiver, claim) => Err(lost),
    }
}

async fn steps(archiver: &Archiver, claim: &Claim) -> Result<Report, ArchiveError> {
    crash::point("archive.claim");
    let topic = archiver.log.topic(claim.name.as_str()).await?;
    let layout = Layout::of(&topic);
    let mut objects = Vec::new();
    for (partition, range) in catalog::ranges(&archiver.pool, claim.segment).await? {
        let mut from = range.start;
        while from < range.end {
            let object = one_object(archiver, claim, &layout, partition, from..range.end).await?;
            from = object.footer.next_offset;
            objects.push(object);
        }
    }
    crash::point("archive.verify");
    catalog::commit(&archiver.pool, claim, &objects).await?;
    crash::point("archive.committed");
    Ok(Report {
        segments: 1,
        objects: objects.len() as u64,
        records: objects.iter().map(|object| object.footer.records()).sum(),
        bytes: objects.iter().map(|object| object.bytes).sum(),
        ..Report::default()
    })
}

/// Writes the next object of a partition, puts it and reads it back.
async fn one_object(
    archiver: &Archiver,
    claim: &Claim,
    layout: &Layout,
    partition: Partition,
    range: Range<Offset>,
) -> Result<NewObject, ArchiveError> {
    let file = archiver.work.join(format!("{}-{partition}-{}.parquet", claim.segment, range.start));
    let _remove = RemoveFile(file.clone());
    let (encoder, record_bytes) = read(archiver, claim, layout, partition, range).await?;
    let (encoded, content, sha256) = spawn_blocking(move || finish(encoder, &file)).await??;
    crash::point("archive.write");
    let offsets = encoded.footer.first_offset..encoded.footer.next_offset;
    let path = object_key(&claim.name, claim.lower, partition, &offsets, &sha256);
    catalog::intend(&archiver.pool, claim, &path).await?;
    crash::point("archive.intend");
    if archiver.bucket.put_new(&path, content).await? == Put::Found {
        tracing::debug!(path, "the object is there already, from an attempt before");
    }
    crash::point("archive.put");
    let object =
        NewObject { path, bytes: encoded.bytes, sha256, record_bytes, footer: encoded.footer.clone() };
    verify(archiver, &object, &encoded).await?;
    Ok(object)
}

/// Reads records page by page, each in a short read of its own, and encodes one page while the next is on its way.
async fn read(
    archiver: &Archiver,
    claim: &Claim,
    layout: &Layout,
    partition: Partition,
    range: Range<Offset>,
) -> Result<(Encoder, u64), ArchiveError> {
    let mut encoder = Encoder::new(layout, partition, range.start);
    let mut bytes = 0;
    let mut page = catalog::page(&archiver.pool, claim, partition, range.start, PAGE_BYTES).await?;
    loop {
        let fits = page.iter().scan((encoder.records(), bytes), |(records, bytes), batch| {
            *records += batch.records.len();
            *bytes += batch.records.iter().map(|record: &Record| record.size() as u64).sum::<u64>();
            Some((*records, *bytes))
        });
        let taken: Vec<(usize, u64)> =
            fits.take_while(|(records, size)| *records <= MAX_RECORDS && *size <= OBJECT_BYTES).collect();
        // A single batch always fits: it has 10,000 records at most.
        let count = if encoder.records() == 0 { taken.len().max(1) } else { taken.len() };
        let full = count < page.len();
        bytes = taken.last().map_or(bytes, |(_, size)| *size);
        page.truncate(count);
        let next = page.last().map_or(encoder.next_offset(), StoredBatch::next_offset);
        let pushing = spawn_blocking(move || push(encoder, &page));
        let done = full || next >= range.end;
        let following = async {
            match done {
                true => Ok(Vec::new()),
                false => catalog::page(&archiver.pool, claim, partition, next, PAGE_BYTES).await,
            }
        };
        let (pushed, following) = tokio::join!(pushing, following);
        encoder = pushed??;
        if done {
            return Ok((encoder, bytes));
        }
        page = following?;
        if page.is_empty() {
            return Err(ArchiveError::Hole {
                table: claim.table.clone(),
                partition,
                offset: next,
                end: range.end,
            });
        }
    }
}

fn push(mut encoder: Encoder, page: &[StoredBatch]) -> Result<Encoder, parquet::ParquetError> {
    for batch in page {
        encoder.push(batch)?;
    }
    Ok(encoder)
}

/// The file, its content and the content's hash.
fn finish(encoder: Encoder, file: &Path) -> Result<(Encoded, Bytes, String), ArchiveError> {
    let encoded = encoder.finish(file)?;
    let content =
        std::fs::read(file).map_err(|source| ArchiveError::Io { path: file.to_path_buf(), source })?;
    let sha256 = hex::encode(Sha256::digest(&content));
    Ok((encoded, content.into(), sha256))
}

/// Makes sure that the bucket gives back the records that were read from Postgres.
async fn verify(archiver: &Archiver, object: &NewObject, encoded: &Encoded) -> Result<(), ArchiveError> {
    let copy = encoded.path.with_extension("back");
    let _remove = RemoveFile(copy.clone());
    let size = archiver.bucket.size(&object.path).await?;
    let mut attempt = 1;
    let found = loop {
        let fetched = archiver.bucket.fetch_to(&object.path, &copy).await;
        let same = fetched.as_ref().is_ok_and(|got| got.bytes == object.bytes && got.sha256 == object.sha256);
        match fetched {
            Ok(_) if same && size == Some(object.bytes) => break Ok(()),
            Err(BucketError::NotFound { key }) => break Err(BucketError::NotFound { key }.into()),
            fetched if attempt == READS => match fetched {
                Err(error) => break Err(error.into()),
                Ok(_) => break Err(ArchiveError::Corrupt { path: object.path.clone() }),
            },
            _ => attempt += 1,
        }
    };
    match found {
        Ok(()) => {
            let checked = spawn_blocking(move || parquet::check(&copy)).await??;
            let same = checked.fingerprint == encoded.fingerprint && checked.records == encoded.records;
            if same { Ok(()) } else { Err(ArchiveError::NotTheSame { path: object.path.clone() }) }
        }
        Err(error @ ArchiveError::Corrupt { .. }) => {
            // What is there is not what was put: out of the way with it, so that the next attempt can put it again.
            sweep::discard(archiver, &object.path).await?;
            Err(error)
        }
        Err(error) => Err(error),
    }
}

/// Renews the claim until it is lost. When Postgres does not answer the steps find out for themselves.
async fn keep(archiver: &Archiver, claim: &Claim) -> ArchiveError {
    loop {
        tokio::time::sleep(archiver.options.claim / 3).await;
        match catalog::renew(&archiver.pool, claim, archiver.options.claim).await {
            Ok(true) => {}
            Ok(false) => return catalog::CommitError::Fenced.into(),
            Err(error) => tracing::debug!(%error, table = claim.table, "the claim was not renewed"),
        }
    }
}

/// Removes a temporary file at the end of its use, however that comes.
struct RemoveFile(PathBuf);

impl Drop for RemoveFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
