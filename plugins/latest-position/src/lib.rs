//! Keeps the current position of each aircraft in the table `current_positions`.
//!
//! A row is the newest report of its aircraft by the report's own time (`ts`), in whatever order the reports arrive:
//! the table is `newest-by` that time, and of several reports of one aircraft in a batch only the newest crosses the
//! boundary. A payload that is not a report is rejected with the name of the field at fault.

mod report;

use std::collections::BTreeMap;

use tidemill_plugin::{
    Changes, ColumnType, Descriptor, Failure, Materializer, Message, NoConfig, Plugin, Table,
};

use crate::report::Report;

const TABLE: &str = "current_positions";

/// The plugin.
pub struct LatestPosition;

impl Plugin for LatestPosition {
    type Config = NoConfig;

    fn describe() -> Descriptor {
        let table = Table::new(TABLE, &["id"])
            .column("id", ColumnType::Text)
            .column("callsign", ColumnType::Text)
            .column("kind", ColumnType::Text)
            .column("lat", ColumnType::Float)
            .column("lon", ColumnType::Float)
            .column("altitude", ColumnType::Integer)
            .column("heading", ColumnType::Float)
            .column("speed", ColumnType::Float)
            .column("vertical_rate", ColumnType::Integer)
            .column("squawk", ColumnType::Text)
            .column("reported_at", ColumnType::Timestamp)
            .newest_by("reported_at");
        Descriptor::new(
            env!("CARGO_PKG_NAME"),
            env!("CARGO_PKG_VERSION"),
            "Keeps the current position of each aircraft in a table",
        )
        .table(table)
    }

    fn new(_: NoConfig) -> Result<Self, String> {
        Ok(LatestPosition)
    }
}

impl Materializer for LatestPosition {
    fn materialize(&mut self, batch: Vec<Message>) -> Result<Changes, Failure> {
        let mut changes = Changes::new();
        let mut reports = Vec::with_capacity(batch.len());
        for (input, message) in (0..).zip(&batch) {
            match Report::parse(message) {
                Ok(report) => reports.push((input, report)),
                Err(refusal) => changes.refuse(input, refusal),
            }
        }
        for (input, report) in newest(&reports) {
            changes.upsert(*input, TABLE, report.row());
        }
        Ok(changes)
    }
}

/// The newest report of each aircraft; of equally old ones the last, as the host decides for the stored row.
fn newest<'a>(reports: &'a [(u32, Report<'a>)]) -> impl Iterator<Item = &'a (u32, Report<'a>)> {
    let mut newest: BTreeMap<&str, &(u32, Report<'_>)> = BTreeMap::new();
    for candidate in reports {
        newest
            .entry(candidate.1.id())
            .and_modify(|kept| {
                if candidate.1.reported_at() >= kept.1.reported_at() {
                    *kept = candidate;
                }
            })
            .or_insert(candidate);
    }
    newest.into_values()
}

tidemill_plugin::export_materializer!(LatestPosition);
