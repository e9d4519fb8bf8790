//! Tables that materializers keep: made at start, changed in the offset's commit, read as a snapshot and a live tail.
//!
//! Guarantee: a row carries in `_partition` and `_offset` the message that changed it last, and a snapshot is read in one
//! database snapshot together with the group's offsets. So "what changed at or after this position" is exact: a reader that
//! takes a snapshot and then the changes since sees each row's newest state, and misses none.
//! Bound: a tail reads the table once per call, so it suits tables that fit in memory; deleted rows are remembered for
//! [`TOMBSTONES`], after which a reader that was away that long starts from a new snapshot.

pub mod apply;
pub mod feed;
pub mod late;
pub mod spec;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Row};
use tokio::sync::watch;

use crate::ids::{GroupName, LogEpoch, Place, TableName, TopicName};
use crate::pg::pool::{Pool, Session};
use crate::replay::Position;
pub use spec::{Cell, Change, ColumnSpec, ColumnType, TableSpec};

/// How long a deleted row is remembered for live readers.
pub const TOMBSTONES: Duration = Duration::from_secs(600);

/// The schema that tables are made in.
pub const SCHEMA: &str = "public";

#[derive(Debug, thiserror::Error)]
pub enum TableError {
    #[error("there is no table {0:?} kept by a pipeline; `tidemill status` lists them")]
    Unknown(String),
    #[error(
        "table {table} exists but was not made by tidemill; choose another name in the stage's `tables`, or drop it"
    )]
    Foreign { table: String },
    #[error(
        "table {table} is kept by stage {owner}, so {wanted} cannot write it too; choose another name in `tables`"
    )]
    OtherStage { table: String, owner: String, wanted: String },
    #[error(
        "table {table} was made with other columns or another key than the plugin declares now; \
         drop it (the stage then rebuilds it if its group seeks to earliest) or choose another name"
    )]
    Changed { table: String },
    #[error("table {table}: {reason}")]
    BadSpec { table: String, reason: String },
    #[error(transparent)]
    Postgres(#[from] sqlx::Error),
}

/// A table as listings show it.
#[derive(Clone, Debug, Serialize)]
pub struct TableInfo {
    pub name: String,
    pub schema: String,
    /// `pipeline/stage`.
    pub stage: String,
    pub key: Vec<String>,
    pub columns: Vec<ColumnSpec>,
    pub rows: u64,
}

/// All rows of a table at one position of its input.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub key: Vec<String>,
    pub rows: Vec<serde_json::Value>,
    pub position: Position,
}

/// What changed in a table since a position.
#[derive(Clone, Debug)]
pub struct Changes {
    pub upserts: Vec<serde_json::Value>,
    /// The key columns of rows that went away.
    pub deletes: Vec<serde_json::Value>,
    pub position: Position,
}

/// A table that exists and is ours.
#[derive(Debug)]
pub struct Table {
    pub id: i32,
    pub name: TableName,
    pub group: GroupName,
    pub topic: TopicName,
    pub spec: TableSpec,
    pub(crate) sql: apply::Statements,
    changed: watch::Sender<u64>,
}

/// Who wants a table.
#[derive(Clone, Debug)]
pub struct Keeper<'a> {
    pub pipeline: &'a str,
    pub stage: &'a str,
    pub group: &'a GroupName,
    pub topic: &'a TopicName,
}

/// All tables of pipelines. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tables {
    pool: Pool,
    known: Arc<Mutex<HashMap<String, Arc<Table>>>>,
}

impl Tables {
    pub fn new(pool: Pool) -> Self {
        Self { pool, known: Arc::default() }
    }

    /// Makes a table, or checks that the one that is there is ours and has the same shape.
    pub async fn ensure(
        &self,
        name: &TableName,
        spec: &TableSpec,
        keeper: Keeper<'_>,
    ) -> Result<Arc<Table>, TableError> {
        spec.check().map_err(|reason| TableError::BadSpec { table: name.to_string(), reason })?;
        let columns = serde_json::to_value(&spec.columns).unwrap_or_default();
        let mut transaction = self.pool.begin().await?;
        sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('tidemill.tables.' || $1, 0))")
            .bind(name.as_str())
            .execute(&mut *transaction)
            .await?;
        let exists: bool = sqlx::query_scalar("SELECT to_regclass(format('%I.%I', $1, $2)) IS NOT NULL")
            .bind(SCHEMA)
            .bind(name.as_str())
            .fetch_one(&mut *transaction)
            .await?;
        let row = sqlx::query("SELECT * FROM tidemill.tables WHERE schema_name = $1 AND table_name = $2")
            .bind(SCHEMA)
            .bind(name.as_str())
            .fetch_optional(&mut *transaction)
            .await?;
        match row {
            Some(row) if exists => check_same(name, spec, &columns, &keeper, &row)?,
            None if exists => return Err(TableError::Foreign { table: name.to_string() }),
            stale => {
                // Registered, but a user dropped the table: make it again.
                if stale.is_some() {
                    sqlx::query("DELETE FROM tidemill.tables WHERE schema_name = $1 AND table_name = $2")
                        .bind(SCHEMA)
                        .bind(name.as_str())
                        .execute(&mut *transaction)
                        .await?;
                }
                sqlx::raw_sql(AssertSqlSafe(spec.create_sql(name))).execute(&mut *transaction).await?;
            }
        }
        let id: i32 = sqlx::query_scalar(
            "INSERT INTO tidemill.tables AS t
                 (schema_name, table_name, pipeline, stage, group_name, topic, columns, key, newest_by)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
             ON CONFLICT ON CONSTRAINT tables_unique DO UPDATE SET group_name = excluded.group_name, topic = excluded.topic
             RETURNING table_id",
        )
        .bind(SCHEMA)
        .bind(name.as_str())
        .bind(keeper.pipeline)
        .bind(keeper.stage)
        .bind(keeper.group.as_str())
        .bind(keeper.topic.as_str())
        .bind(&columns)
        .bind(&spec.key)
        .bind(&spec.newest_by)
        .fetch_one(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(self.remember(id, name, spec, keeper))
    }

    fn remember(&self, id: i32, name: &TableName, spec: &TableSpec, keeper: Keeper<'_>) -> Arc<Table> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(table) = known.get(name.as_str())
            && table.id == id
            && table.spec == *spec
            && table.group == *keeper.group
        {
            return table.clone();
        }
        let table = Arc::new(Table {
            id,
            name: name.clone(),
            group: keeper.group.clone(),
            topic: keeper.topic.clone(),
            spec: spec.clone(),
            sql: apply::Statements::new(name, spec),
            changed: watch::Sender::new(0),
        });
        known.insert(name.to_string(), table.clone());
        table
    }

    /// A table by name, whichever host made it.
    pub async fn get(&self, name: &str) -> Result<Arc<Table>, TableError> {
        if let Some(table) = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(name) {
            return Ok(table.clone());
        }
        let unknown = || TableError::Unknown(name.to_string());
        let row = sqlx::query("SELECT * FROM tidemill.tables WHERE schema_name = $1 AND table_name = $2")
            .bind(SCHEMA)
            .bind(name)
            .fetch_optional(&self.pool)
            .await?
            .ok_or_else(unknown)?;
        let spec = TableSpec {
            columns: serde_json::from_value(row.try_get("columns")?).map_err(|_| unknown())?,
            key: row.try_get("key")?,
            newest_by: row.try_get("newest_by")?,
        };
        let text = |column: &str| row.try_get::<String, _>(column);
        let (pipeline, stage) = (text("pipeline")?, text("stage")?);
        let group = GroupName::parse(&text("group_name")?).map_err(|_| unknown())?;
        let topic = TopicName::parse(&text("topic")?).map_err(|_| unknown())?;
        let name = TableName::parse(name).map_err(|_| unknown())?;
        let keeper = Keeper { pipeline: &pipeline, stage: &stage, group: &group, topic: &topic };
        Ok(self.remember(row.try_get("table_id")?, &name, &spec, keeper))
    }

    pub async fn list(&self) -> Result<Vec<TableInfo>, TableError> {
        let rows = sqlx::query("SELECT * FROM tidemill.tables ORDER BY schema_name, table_name")
            .fetch_all(&self.pool)
            .await?;
        let mut tables = Vec::with_capacity(rows.len());
        for row in rows {
            let (schema, name): (String, String) = (row.try_get("schema_name")?, row.try_get("table_name")?);
            let (pipeline, stage): (String, String) = (row.try_get("pipeline")?, row.try_get("stage")?);
            let columns: Vec<ColumnSpec> =
                serde_json::from_value(row.try_get("columns")?).unwrap_or_default();
            // The planner's estimate once there is one: counting a large table on each look at the status would be costly.
            let rows: Option<i64> = sqlx::query_scalar(
                "SELECT CASE WHEN c.reltuples >= 10000 THEN c.reltuples::bigint
                             ELSE (xpath('/row/n/text()', query_to_xml(
                                  format('SELECT count(*) AS n FROM %I.%I', $1, $2), false, true, '')))[1]::text::bigint
                        END FROM pg_class c WHERE c.oid = to_regclass(format('%I.%I', $1, $2))",
            )
            .bind(&schema)
            .bind(&name)
            .fetch_optional(&self.pool)
            .await?;
            let (key, stage) = (row.try_get("key")?, format!("{pipeline}/{stage}"));
            tables.push(TableInfo {
                name,
                schema,
                stage,
                key,
                columns,
                rows: rows.unwrap_or(0).max(0) as u64,
            });
        }
        Ok(tables)
    }

    /// Up to `limit` rows (None: all) and the position they stand for, from one database snapshot.
    pub async fn snapshot(&self, name: &str, limit: Option<u32>) -> Result<Snapshot, TableError> {
        let table = self.get(name).await?;
        let mut transaction = self.pool.begin().await?;
        sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            .execute(&mut *transaction)
            .await?;
        let position = position_of(&mut transaction, &table).await?;
        let rows = sqlx::query_scalar(AssertSqlSafe(table.sql.snapshot.clone()))
            .bind(limit.map(i64::from))
            .fetch_all(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(Snapshot { key: table.spec.key.clone(), rows, position })
    }

    /// What changed at or after `since`. None: that is not known any more, take a new snapshot.
    pub async fn changes(&self, name: &str, since: &Position) -> Result<Option<Changes>, TableError> {
        let table = self.get(name).await?;
        let mut transaction = self.pool.begin().await?;
        sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            .execute(&mut *transaction)
            .await?;
        let position = position_of(&mut transaction, &table).await?;
        // Also where another server has taken over: then it may have gone back and forth again.
        let went_back = position.places().any(|(partition, now)| {
            since.place(partition).is_some_and(|seen| {
                seen.offset > now.offset || seen.epoch.is_some_and(|epoch| Some(epoch) != now.epoch)
            })
        });
        if went_back || since.iter().count() != position.iter().count() {
            return Ok(None);
        }
        let (partitions, offsets): (Vec<i32>, Vec<i64>) =
            since.iter().map(|(partition, next)| (partition as i32, next as i64)).unzip();
        let forgotten: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM tidemill.tombstone_floors f
                              JOIN unnest($2::int[], $3::bigint[]) AS s(partition, next) ON f.partition = s.partition
                             WHERE f.table_id = $1 AND f.c_offset >= s.next)",
        )
        .bind(table.id)
        .bind(&partitions)
        .bind(&offsets)
        .fetch_one(&mut *transaction)
        .await?;
        if forgotten {
            return Ok(None);
        }
        let mut upserts = sqlx::query_scalar(AssertSqlSafe(table.sql.changed.clone()))
            .bind(&partitions)
            .bind(&offsets)
            .fetch_all(&mut *transaction)
            .await?;
        let noted: Vec<(serde_json::Value, bool)> = sqlx::query_as(
            "SELECT DISTINCT d.key, d.gone FROM tidemill.tombstones d
               JOIN unnest($2::int[], $3::bigint[]) AS s(partition, next) ON d.partition = s.partition
              WHERE d.table_id = $1 AND d.c_offset >= s.next",
        )
        .bind(table.id)
        .bind(&partitions)
        .bind(&offsets)
        .fetch_all(&mut *transaction)
        .await?;
        let (deletes, late): (Vec<_>, Vec<_>) = noted.into_iter().partition(|(_, gone)| *gone);
        let keys = |noted: Vec<(serde_json::Value, bool)>| noted.into_iter().map(|(key, _)| key).collect();
        let (deletes, late): (Vec<_>, Vec<_>) = (keys(deletes), keys(late));
        if !late.is_empty() {
            let rows = sqlx::query_scalar(AssertSqlSafe(table.sql.late.clone())).bind(&late);
            upserts.extend(rows.fetch_all(&mut *transaction).await?);
        }
        transaction.commit().await?;
        Ok(Some(Changes { upserts, deletes, position }))
    }

    /// A live tail of a table that starts after `since`.
    pub async fn feed(&self, name: &str, since: Position) -> Result<feed::TableFeed, TableError> {
        let table = self.get(name).await?;
        Ok(feed::TableFeed::new(self.clone(), table.name.clone(), table.changed.subscribe(), since))
    }
}

impl Table {
    /// Tells live readers in this process that a commit changed the table.
    pub fn wake(&self) {
        self.changed.send_modify(|version| *version += 1);
    }
}

fn check_same(
    name: &TableName,
    spec: &TableSpec,
    columns: &serde_json::Value,
    keeper: &Keeper<'_>,
    row: &PgRow,
) -> Result<(), TableError> {
    let (pipeline, stage): (String, String) = (row.try_get("pipeline")?, row.try_get("stage")?);
    if pipeline != keeper.pipeline || stage != keeper.stage {
        return Err(TableError::OtherStage {
            table: name.to_string(),
            owner: format!("{pipeline}/{stage}"),
            wanted: format!("{}/{}", keeper.pipeline, keeper.stage),
        });
    }
    let stored: serde_json::Value = row.try_get("columns")?;
    let key: Vec<String> = row.try_get("key")?;
    if stored != *columns || key != spec.key {
        return Err(TableError::Changed { table: name.to_string() });
    }
    Ok(())
}

async fn position_of(connection: &mut Session, table: &Table) -> Result<Position, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT o.partition, o.next_offset, c.log_epoch
           FROM tidemill.consumer_offsets o JOIN tidemill.topics t USING (topic_id)
           JOIN tidemill.log_counter c USING (topic_id, partition)
          WHERE o.group_name = $1 AND t.name = $2",
    )
    .bind(table.group.as_str())
    .bind(table.topic.as_str())
    .fetch_all(connection)
    .await?;
    let mut position = Position::default();
    for row in rows {
        let place =
            Place { offset: row.try_get::<i64, _>(1)? as u64, epoch: Some(LogEpoch(row.try_get(2)?)) };
        position.insert(row.try_get::<i32, _>(0)? as u32, place);
    }
    Ok(position)
}

#[cfg(test)]
mod tests;
