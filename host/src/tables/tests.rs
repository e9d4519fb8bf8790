//! Tables against a real Postgres: made, changed, read as a snapshot and as what changed since.

use serde_json::json;

use super::apply::{apply_in, fold};
use super::spec::RowChange;
use super::*;
use crate::clock::Clock;
use crate::config::plan::Start;
use crate::ids::{HostId, PipelineName, StageName};
use crate::log::offsets::{Groups, Lease, advance_in};
use crate::log::testing::{records, with_topic};
use crate::pg::testing::TestDatabase;
use crate::segments::{Maintainer, MaintainerOptions};

struct Setting {
    database: TestDatabase,
    tables: Tables,
    table: Arc<Table>,
    lease: Lease,
    at: u64,
}

fn spec() -> TableSpec {
    let column = |name: &str, kind| ColumnSpec { name: name.to_string(), kind };
    TableSpec {
        columns: vec![
            column("id", ColumnType::Text),
            column("seen", ColumnType::Timestamp),
            column("order", ColumnType::Integer),
            column("more", ColumnType::Json),
        ],
        key: vec!["id".to_string()],
        newest_by: Some("seen".to_string()),
    }
}

fn keeper<'a>(group: &'a GroupName, topic: &'a TopicName) -> Keeper<'a> {
    Keeper { pipeline: "p", stage: "s", group, topic }
}

/// A table kept by a group that stands at the start of ten records.
async fn setting() -> Setting {
    let (database, log, topic) = with_topic(1).await;
    log.append(&topic, records(0..10), Default::default()).await.unwrap();
    let groups = Groups::new(database.pool.clone());
    let group = GroupName::parse("keeper").unwrap();
    groups.join(&group, &topic.name, Start::Earliest).await.unwrap();
    let lease = groups.acquire(&group, topic.id, 0, &HostId("h".into()), "p/s").await.unwrap().unwrap();
    let tables = Tables::new(database.pool.clone());
    let name = TableName::parse("things").unwrap();
    let table = tables.ensure(&name, &spec(), keeper(&group, &topic.name)).await.unwrap();
    Setting { database, tables, table, lease, at: 0 }
}

impl Setting {
    /// One commit of the keeper: the message at its offset leads to these changes.
    async fn commit(&mut self, rows: Vec<RowChange>) {
        let offset = self.at;
        let changes = rows.into_iter().map(|row| Change { partition: 0, offset, row }).collect();
        let mut transaction = self.database.pool.begin().await.unwrap();
        advance_in(&mut transaction, &self.lease, offset, offset + 1, "sha256:t").await.unwrap();
        apply_in(&mut transaction, &self.table, fold(&self.table.spec, changes)).await.unwrap();
        transaction.commit().await.unwrap();
        self.at += 1;
    }

    async fn rows(&self) -> Vec<serde_json::Value> {
        self.tables.snapshot("things", None).await.unwrap().rows
    }
}

fn row(id: &str, seen: i64, order: i64) -> RowChange {
    let more = Cell::Json(format!("{{\"n\": {order}}}"));
    RowChange::Upsert(vec![Cell::Text(id.into()), Cell::Timestamp(seen), Cell::Integer(order), more])
}

fn gone(id: &str) -> RowChange {
    RowChange::Delete(vec![Cell::Text(id.into())])
}

fn shown(id: &str, second: u8, order: i64) -> serde_json::Value {
    let seen = format!("1970-01-01T00:00:0{second}+00:00");
    json!({ "id": id, "seen": seen, "order": order, "more": { "n": order } })
}

#[tokio::test]
async fn an_older_version_of_a_row_never_replaces_a_newer_one() {
    let mut s = setting().await;
    s.commit(vec![row("a", 2_000_000, 1), row("b", 1_000_000, 2)]).await;
    s.commit(vec![row("a", 1_000_000, 3), row("b", 1_000_000, 4)]).await;
    assert_eq!(s.rows().await, [shown("a", 2, 1), shown("b", 1, 4)]);
}

#[tokio::test]
async fn a_snapshot_and_what_changed_since_are_the_table() {
    let mut s = setting().await;
    s.commit(vec![row("a", 1_000_000, 1), row("b", 1_000_000, 1)]).await;
    let snapshot = s.tables.snapshot("things", None).await.unwrap();
    assert_eq!((snapshot.rows.len(), snapshot.position.to_string()), (2, "0:1@1".to_string()));
    s.commit(vec![gone("a"), row("c", 1_000_000, 1)]).await;
    let changes = s.tables.changes("things", &snapshot.position).await.unwrap().unwrap();
    assert_eq!(changes.upserts, [shown("c", 1, 1)]);
    assert_eq!(changes.deletes, [json!({ "id": "a" })]);
    let quiet = s.tables.changes("things", &changes.position).await.unwrap().unwrap();
    assert!(quiet.upserts.is_empty() && quiet.deletes.is_empty());
}

#[tokio::test]
async fn a_reader_away_for_too_long_is_told_to_start_again() {
    let mut s = setting().await;
    s.commit(vec![row("a", 1_000_000, 1)]).await;
    let before = s.tables.snapshot("things", None).await.unwrap().position;
    s.commit(vec![gone("a")]).await;
    let after = s.tables.snapshot("things", None).await.unwrap().position;
    let options = MaintainerOptions { forget_tombstones_after: Duration::ZERO, ..Default::default() };
    Maintainer::new(s.database.pool.clone(), Clock::system(), options).tick().await.unwrap();
    assert!(s.tables.changes("things", &before).await.unwrap().is_none(), "the deletion is no longer known");
    assert!(s.tables.changes("things", &after).await.unwrap().is_some());
    let earlier: Position = after.to_string().replace("@1", "@7").parse().unwrap();
    assert!(
        s.tables.changes("things", &earlier).await.unwrap().is_none(),
        "another server took over meanwhile"
    );
    let ahead: Position = "0:9".parse().unwrap();
    assert!(s.tables.changes("things", &ahead).await.unwrap().is_none(), "the group was moved back");
}

#[tokio::test]
async fn a_table_belongs_to_one_stage_and_keeps_its_shape() {
    let s = setting().await;
    let (group, topic) = (s.table.group.clone(), s.table.topic.clone());
    let name = TableName::parse("things").unwrap();
    let other = Keeper { stage: "other", ..keeper(&group, &topic) };
    let refused = s.tables.ensure(&name, &spec(), other).await;
    assert!(matches!(refused, Err(TableError::OtherStage { .. })), "{refused:?}");
    let mut changed = spec();
    changed.columns.pop();
    let refused = s.tables.ensure(&name, &changed, keeper(&group, &topic)).await;
    assert!(matches!(refused, Err(TableError::Changed { .. })), "{refused:?}");
    sqlx::query("CREATE TABLE mine (id int)").execute(&s.database.pool).await.unwrap();
    let refused = s.tables.ensure(&TableName::parse("mine").unwrap(), &spec(), keeper(&group, &topic)).await;
    assert!(matches!(refused, Err(TableError::Foreign { .. })), "{refused:?}");
    // Dropped by its user, it is made again.
    sqlx::query("DROP TABLE things").execute(&s.database.pool).await.unwrap();
    s.tables.ensure(&name, &spec(), keeper(&group, &topic)).await.unwrap();
    assert!(s.rows().await.is_empty());
    let id = PipelineName::parse("p").unwrap();
    assert_eq!(s.tables.list().await.unwrap()[0].stage, format!("{id}/{}", StageName::parse("s").unwrap()));
}
