//! Late messages against a real Postgres: what they may change, and that live readers hear of it.

use std::time::Duration;

use serde_json::json;

use super::apply_late_in;
use crate::clock::Clock;
use crate::config::plan::Start;
use crate::ids::{GroupName, HostId, TableName};
use crate::log::offsets::{Groups, Lease, advance_in, hold_in};
use crate::log::testing::{records, with_topic};
use crate::pg::testing::TestDatabase;
use crate::segments::{Maintainer, MaintainerOptions};
use crate::tables::apply::{apply_in, fold};
use crate::tables::feed::Tail;
use crate::tables::spec::{Cell, Change, ColumnSpec, ColumnType, RowChange, TableSpec};
use crate::tables::{Keeper, Table, Tables};

struct Setting {
    database: TestDatabase,
    tables: Tables,
    table: std::sync::Arc<Table>,
    lease: Lease,
    at: u64,
}

/// A table of ids and numbers, kept by a group that stands at the start of a topic of ten records.
async fn setting(newest_by: Option<&str>) -> Setting {
    let (database, log, topic) = with_topic(1).await;
    log.append(&topic, records(0..10), Default::default()).await.unwrap();
    let groups = Groups::new(database.pool.clone());
    let group = GroupName::parse("keeper").unwrap();
    groups.join(&group, &topic.name, Start::Earliest).await.unwrap();
    let lease = groups.acquire(&group, topic.id, 0, &HostId("h".into()), "p/s").await.unwrap().unwrap();
    let tables = Tables::new(database.pool.clone());
    let column = |name: &str, kind| ColumnSpec { name: name.to_string(), kind };
    let spec = TableSpec {
        columns: vec![column("id", ColumnType::Text), column("n", ColumnType::Integer)],
        key: vec!["id".to_string()],
        newest_by: newest_by.map(str::to_string),
    };
    let keeper = Keeper { pipeline: "p", stage: "s", group: &group, topic: &topic.name };
    let table = tables.ensure(&TableName::parse("things").unwrap(), &spec, keeper).await.unwrap();
    Setting { database, tables, table, lease, at: 0 }
}

fn row(id: &str, n: i64) -> RowChange {
    RowChange::Upsert(vec![Cell::Text(id.into()), Cell::Integer(n)])
}

fn gone(id: &str) -> RowChange {
    RowChange::Delete(vec![Cell::Text(id.into())])
}

impl Setting {
    /// The next message of the group leads to these changes.
    async fn commit(&mut self, rows: Vec<RowChange>) {
        let mut transaction = self.database.pool.begin().await.unwrap();
        advance_in(&mut transaction, &self.lease, self.at, self.at + 1, "sha256:t").await.unwrap();
        apply_in(&mut transaction, &self.table, self.changes(0, self.at, rows)).await.unwrap();
        transaction.commit().await.unwrap();
        self.at += 1;
    }

    /// A message of this partition and offset comes late.
    async fn late(&self, partition: u32, offset: u64, rows: Vec<RowChange>) {
        let mut transaction = self.database.pool.begin().await.unwrap();
        let now = hold_in(&mut transaction, &self.lease).await.unwrap();
        apply_late_in(&mut transaction, &self.table, self.changes(partition, offset, rows), now)
            .await
            .unwrap();
        transaction.commit().await.unwrap();
        self.table.wake();
    }

    fn changes(&self, partition: u32, offset: u64, rows: Vec<RowChange>) -> Vec<Change> {
        fold(&self.table.spec, rows.into_iter().map(|row| Change { partition, offset, row }).collect())
    }

    async fn rows(&self) -> Vec<(String, i64)> {
        let rows = self.tables.snapshot("things", None).await.unwrap().rows;
        rows.iter().map(|row| (row["id"].as_str().unwrap().to_string(), row["n"].as_i64().unwrap())).collect()
    }
}

fn pairs(expected: &[(&str, i64)]) -> Vec<(String, i64)> {
    expected.iter().map(|(id, n)| (id.to_string(), *n)).collect()
}

#[tokio::test]
async fn a_late_message_changes_only_what_no_newer_one_has_changed() {
    let mut s = setting(None).await;
    s.commit(vec![row("old", 0)]).await;
    s.commit(vec![]).await;
    s.commit(vec![row("new", 2), row("away", 2)]).await;
    s.commit(vec![gone("away")]).await;
    // The message at offset 1 was given up on, and runs now.
    s.late(0, 1, vec![row("old", 1), row("new", 1), row("away", 1), row("first", 1)]).await;
    assert_eq!(s.rows().await, pairs(&[("first", 1), ("new", 2), ("old", 1)]));
    s.late(0, 1, vec![gone("new"), gone("first")]).await;
    assert_eq!(s.rows().await, pairs(&[("new", 2), ("old", 1)]));
    // Another partition's row: nothing says which of the two is newer.
    s.late(1, 9, vec![row("old", 9), row("other", 9)]).await;
    assert_eq!(s.rows().await, pairs(&[("new", 2), ("old", 1), ("other", 9)]));
}

#[tokio::test]
async fn late_messages_keep_their_own_order() {
    let mut s = setting(None).await;
    for _ in 0..6 {
        s.commit(vec![]).await;
    }
    s.late(0, 2, vec![row("a", 2), row("b", 2)]).await;
    s.late(0, 3, vec![gone("a"), row("b", 3)]).await;
    s.late(0, 4, vec![row("a", 4)]).await;
    s.late(0, 1, vec![row("a", 1), row("b", 1)]).await;
    assert_eq!(s.rows().await, pairs(&[("a", 4), ("b", 3)]));
    s.late(0, 5, vec![gone("a")]).await;
    s.late(0, 4, vec![row("a", 4)]).await;
    assert_eq!(s.rows().await, pairs(&[("b", 3)]));
}

#[tokio::test]
async fn a_column_that_orders_versions_decides_before_offsets_do() {
    let mut s = setting(Some("n")).await;
    s.commit(vec![]).await;
    s.commit(vec![row("a", 5), row("b", 5), row("c", 5)]).await;
    s.late(0, 0, vec![row("a", 4), row("b", 5), row("c", 6)]).await;
    assert_eq!(s.rows().await, pairs(&[("a", 5), ("b", 5), ("c", 6)]));
}

/// Positions do not move with late messages: a reader that is up to date is told all the same, once, and so is one that
/// comes back to its position.
#[tokio::test]
async fn live_readers_are_told_what_a_late_message_changed() {
    let mut s = setting(None).await;
    s.commit(vec![]).await;
    s.commit(vec![row("a", 1), row("b", 1)]).await;
    let position = s.tables.snapshot("things", None).await.unwrap().position;
    let mut feed = s.tables.feed("things", position.clone()).await.unwrap();
    s.late(0, 0, vec![row("first", 0)]).await;
    let Tail::Changed(changes) = feed.next(Duration::from_secs(5)).await.unwrap() else {
        panic!("it is told")
    };
    assert_eq!((changes.upserts, changes.deletes.len()), (vec![json!({ "id": "first", "n": 0 })], 0));
    assert_eq!(changes.position, position);
    assert!(matches!(feed.next(Duration::ZERO).await.unwrap(), Tail::Quiet));
    s.late(0, 1, vec![gone("b")]).await;
    let Tail::Changed(changes) = feed.next(Duration::from_secs(5)).await.unwrap() else {
        panic!("it is told")
    };
    assert_eq!(changes.deletes, [json!({ "id": "b" })]);

    let back = s.tables.changes("things", &position).await.unwrap().unwrap();
    assert_eq!((back.upserts.len(), back.deletes.len()), (1, 1));
    // What is noted at the head of a group is not forgotten before the group moves on.
    let options = MaintainerOptions { forget_tombstones_after: Duration::ZERO, ..Default::default() };
    let pool = s.database.pool.clone();
    let maintainer = || Maintainer::new(pool.clone(), Clock::system(), options.clone());
    maintainer().tick().await.unwrap();
    assert!(s.tables.changes("things", &position).await.unwrap().is_some());
    s.commit(vec![row("a", 2)]).await;
    maintainer().tick().await.unwrap();
    assert!(s.tables.changes("things", &position).await.unwrap().is_none(), "it begins anew");
    let after = s.tables.snapshot("things", None).await.unwrap().position;
    assert!(s.tables.changes("things", &after).await.unwrap().is_some());
}
