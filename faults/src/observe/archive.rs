//! What the objects in the bucket hold, read from their files by the catalog, past the host and past every fault.

use std::path::Path;

use anyhow::{Context, Result};
use sqlx::Row as _;
use tidemill::archive::parquet::read::decode;

use crate::cluster::server::Server;
use crate::history::{Item, Place, Read};

/// All archived records of a topic. `folder` is where keys of the bucket are paths.
pub async fn by_objects(server: &Server, folder: &Path, topic: &str) -> Result<Vec<Read>> {
    let mut connection = server.connect().await?;
    let rows = sqlx::query(
        "SELECT o.path, o.partition, o.first_offset, o.next_offset
           FROM tidemill.objects o JOIN tidemill.topics t USING (topic_id) WHERE t.name = $1 ORDER BY 2, 3",
    )
    .bind(topic)
    .fetch_all(&mut connection)
    .await?;
    let mut reads = Vec::new();
    for row in rows {
        let (path, partition): (&str, i32) = (row.try_get(0)?, row.try_get(1)?);
        let (first, next): (i64, i64) = (row.try_get(2)?, row.try_get(3)?);
        let file = folder.join(path);
        let batches = decode(&file, first.cast_unsigned()..next.cast_unsigned())
            .with_context(|| format!("the catalogued object {}", file.display()))?;
        for record in batches.iter().flat_map(|batch| batch.records.iter()) {
            let place = Place { partition: partition.cast_unsigned(), offset: record.offset };
            let item = Item::parse(&record.payload).with_context(|| format!("a record of ours in {path}"))?;
            reads.push(Read { place, item });
        }
    }
    Ok(reads)
}
