//! Tables as pages and as server-sent events.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::host::TestHost;
use super::streaming::Events;
use crate::config::plan::Start;
use crate::pg::pool::Pool;
use crate::tables::{ColumnSpec, ColumnType, Keeper, TableSpec};

/// A host with a table that a stage of group `latest` would keep.
async fn with_table() -> TestHost {
    let host = TestHost::start().await;
    host.topic("positions", 1, "json").await;
    let column = |name: &str, kind| ColumnSpec { name: name.to_string(), kind };
    let spec = TableSpec {
        columns: vec![column("id", ColumnType::Text), column("n", ColumnType::Integer)],
        key: vec!["id".to_string()],
        newest_by: None,
    };
    let (group, topic) = ("latest".parse().unwrap(), "positions".parse().unwrap());
    host.state.groups.join(&group, &topic, Start::Earliest).await.unwrap();
    let keeper = Keeper { pipeline: "p", stage: "latest", group: &group, topic: &topic };
    host.state.tables.ensure(&"current".parse().unwrap(), &spec, keeper).await.unwrap();
    host
}

/// What a stage's commit does: the row and the offset move together.
async fn commit(pool: &Pool, offset: i64, id: &str, n: Option<i64>) {
    let mut transaction = pool.begin().await.unwrap();
    match n {
        Some(n) => sqlx::query(
            "INSERT INTO current (id, n, _partition, _offset) VALUES ($1, $2, 0, $3)
             ON CONFLICT (id) DO UPDATE SET n = excluded.n, _offset = excluded._offset",
        )
        .bind(id)
        .bind(n)
        .bind(offset)
        .execute(&mut *transaction)
        .await
        .unwrap(),
        None => {
            sqlx::query(
                "INSERT INTO tidemill.tombstones (table_id, partition, c_offset, key)
                 SELECT table_id, 0, $2, jsonb_build_object('id', $1::text) FROM tidemill.tables",
            )
            .bind(id)
            .bind(offset)
            .execute(&mut *transaction)
            .await
            .unwrap();
            sqlx::query("DELETE FROM current WHERE id = $1")
                .bind(id)
                .execute(&mut *transaction)
                .await
                .unwrap()
        }
    };
    sqlx::query("UPDATE tidemill.consumer_offsets SET next_offset = $1")
        .bind(offset + 1)
        .execute(&mut *transaction)
        .await
        .unwrap();
    transaction.commit().await.unwrap();
}

fn apply(rows: &mut BTreeMap<String, i64>, upserts: &Value, deletes: &Value) {
    for row in deletes.as_array().into_iter().flatten() {
        rows.remove(row["id"].as_str().unwrap());
    }
    for row in upserts.as_array().into_iter().flatten() {
        rows.insert(row["id"].as_str().unwrap().to_string(), row["n"].as_i64().unwrap());
    }
}

#[tokio::test]
async fn rows_come_with_the_position_they_stand_for() {
    let host = with_table().await;
    commit(&host.database.pool, 0, "a", Some(1)).await;
    let table = host.get("/v1/tables/current?limit=10").await;
    assert_eq!(table["position"], "0:1@1");
    assert_eq!(table["key"], json!(["id"]));
    assert_eq!(table["rows"][0]["n"], 1);
    let tables = host.get("/v1/tables").await;
    assert_eq!((&tables["tables"][0]["name"], &tables["tables"][0]["rows"]), (&json!("current"), &json!(1)));
}

#[tokio::test]
async fn a_snapshot_and_its_changes_are_the_table_also_after_coming_back() {
    let host = with_table().await;
    let pool = &host.database.pool;
    for n in 0..5 {
        commit(pool, n, &format!("k{n}"), Some(n)).await;
    }
    let mut rows = BTreeMap::new();
    let mut events = Events::open(&host, "/v1/tables/current/stream?interval=50", None).await;
    let snapshot = events.next().await;
    assert_eq!((snapshot.name.as_str(), &snapshot.data["last"]), ("snapshot", &json!(true)));
    apply(&mut rows, &snapshot.data["rows"], &json!([]));
    assert_eq!(rows.len(), 5);
    assert_eq!(events.last_id.as_deref(), Some("0:5@1"));

    commit(pool, 5, "k1", Some(100)).await;
    commit(pool, 6, "k2", None).await;
    while events.last_id.as_deref() != Some("0:7@1") {
        let change = events.next().await;
        assert_eq!(change.name, "change");
        apply(&mut rows, &change.data["upserts"], &change.data["deletes"]);
    }
    // Away while things change; back with the id, it gets only those.
    let id = events.last_id.clone();
    drop(events);
    commit(pool, 7, "k3", Some(300)).await;
    commit(pool, 8, "k2", Some(200)).await;
    let mut events = Events::open(&host, "/v1/tables/current/stream?interval=50", id.as_deref()).await;
    let mut sent = 0;
    while events.last_id.as_deref() != Some("0:9@1") {
        let change = events.next().await;
        assert_eq!(change.name, "change", "no new snapshot");
        sent += change.data["upserts"].as_array().unwrap().len();
        apply(&mut rows, &change.data["upserts"], &change.data["deletes"]);
    }
    assert_eq!(sent, 2);
    let expected = [("k0", 0), ("k1", 100), ("k2", 200), ("k3", 300), ("k4", 4)];
    assert_eq!(rows, expected.map(|(k, n)| (k.to_string(), n)).into());
}

#[tokio::test]
async fn a_position_that_is_not_known_gets_a_new_snapshot() {
    let host = with_table().await;
    commit(&host.database.pool, 0, "a", Some(1)).await;
    for id in ["0:50", "nonsense", "0:0,1:0"] {
        let mut events = Events::open(&host, "/v1/tables/current/stream?interval=50", Some(id)).await;
        let event = events.next().await;
        assert_eq!((event.name.as_str(), event.data["rows"][0]["n"].as_i64()), ("snapshot", Some(1)), "{id}");
    }
}
