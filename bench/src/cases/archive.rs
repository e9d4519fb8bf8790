//! Archiving one sealed segment: read from Postgres, encoded, put with fsync, read back, decoded, compared, catalogued.

use anyhow::{Context, Result};
use tidemill::archive::Report;

use super::history;
use crate::findings::{Bar, Findings, Row, Unit, Wanted};
use crate::meter::Meter;
use crate::rounds::interleaved;
use crate::scale::Scale;
use crate::server::Server;

pub async fn run(server: &Server, scale: &Scale) -> Result<Findings> {
    let log = server.log();
    let plan = history::positions(&server.topic_name(), 1, scale.segment)?;
    let topic = log.create_topic(&plan).await?;
    history::append_and_seal(server, &topic, scale.archived).await?;
    let hot = log.size(topic.id).await?;

    let mut report = Report::default();
    let samples = interleaved(&[()], scale.rounds, async |()| {
        // The same content has the same name, and would be found instead of put.
        let bucket = history::bucket(server, "archive-bucket")?;
        let mut archiver = history::archiver(server, &bucket)?;
        server.settle().await?;
        let meter = Meter::start(server).await?;
        report = history::archive(&mut archiver, scale.archived).await?;
        let sample = meter.stop(server, report.records).await?;
        history::forget(server, &topic).await?;
        std::fs::remove_dir_all(server.folder().join("archive-bucket"))?;
        Ok(sample)
    })
    .await?;
    log.delete_topic(&topic.name).await?;

    let samples = samples.into_iter().next().context("nothing was archived")?;
    let each = |bytes: u64, records: u64| vec![bytes as f64 / records.max(1) as f64];
    let rate = Row::rate("archive", "one sealed segment to verified objects in a folder", &samples)
        .noted(format!("{} records, {} objects", report.records, report.objects));
    let bar = Bar::new("archive: records a second", Wanted::AtLeast(150_000.0), rate.values.iter().copied());
    let hot_row = Row::plain(
        "archive",
        "in Postgres: table, index and TOAST",
        Unit::BytesPerRecord,
        each(hot.bytes, hot.records),
    )
    .noted("appended by key and with times, 4,000 at a time");
    let cold =
        Row::plain("archive", "in the bucket", Unit::BytesPerRecord, each(report.bytes, report.records));
    let small = Bar::new("archive: bytes a record", Wanted::AtMost(6.0), cold.values.iter().copied());
    Ok(Findings { rows: vec![rate, hot_row, cold], bars: vec![bar, small] })
}
