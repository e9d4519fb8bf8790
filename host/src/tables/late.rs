//! Changes of a message that comes late: a dead letter that is run again, after newer messages.
//!
//! Guarantee: a row that a newer message changed stays as it is. Newer is what has a higher offset in the same partition, or
//! a higher value of `newest_by`; a row that another partition changed last is left alone too, since nothing orders the two. A
//! row that a newer message deleted does not come back while that is remembered ([`super::TOMBSTONES`]).
//! What is changed carries the offset of the late message, which live readers have passed. So the keys are noted under the
//! offset at which the group stands, and [`super::Tables::changes`] looks there too.

use sqlx::{AssertSqlSafe, Row};

use super::Table;
use super::apply::{bind_column, key_json};
use super::spec::{Cell, Change, RowChange};
use crate::ids::{Offset, Partition};
use crate::pg::pool::Session;

/// Where a change comes from and what is noted of it.
struct Late<'a> {
    table: &'a Table,
    partition: Partition,
    /// Of the message.
    offset: Offset,
    /// Where the group stands.
    now: Offset,
}

/// Writes the folded changes of one late message inside the transaction that ends its letter. The group stands at `now`.
pub async fn apply_late_in(
    connection: &mut Session,
    table: &Table,
    changes: Vec<Change>,
    now: Offset,
) -> Result<(), sqlx::Error> {
    let Some(first) = changes.first() else { return Ok(()) };
    let late = Late { table, partition: first.partition, offset: first.offset, now };
    let (mut rows, mut keys) = (Vec::new(), Vec::new());
    for change in changes {
        match change.row {
            RowChange::Upsert(cells) => rows.push(cells),
            RowChange::Delete(cells) => keys.push(cells),
        }
    }
    if !rows.is_empty() {
        late.upsert(connection, rows).await?;
    }
    if !keys.is_empty() {
        late.delete(connection, keys).await?;
    }
    Ok(())
}

impl Late<'_> {
    async fn upsert(&self, connection: &mut Session, mut rows: Vec<Vec<Cell>>) -> Result<(), sqlx::Error> {
        let spec = &self.table.spec;
        let indexes = spec.key_indexes();
        let key = |row: &Vec<Cell>| {
            let cells: Vec<Cell> = indexes.iter().map(|&at| row[at].clone()).collect();
            key_json(spec, &cells)
        };
        let keys: Vec<serde_json::Value> = rows.iter().map(key).collect();
        let count = rows.len();
        let mut query = sqlx::query(AssertSqlSafe(self.table.sql.late_upsert.clone()));
        for (i, column) in spec.columns.iter().enumerate() {
            let cells = rows.iter_mut().map(|row| std::mem::replace(&mut row[i], Cell::Null));
            query = bind_column(query, column.kind, cells);
        }
        let changed = query
            .bind(vec![self.partition as i32; count])
            .bind(vec![self.offset as i64; count])
            .bind(keys)
            .bind(self.table.id)
            .fetch_all(&mut *connection)
            .await?;
        let changed = changed.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        self.note(connection, changed, false).await
    }

    async fn delete(&self, connection: &mut Session, mut keys: Vec<Vec<Cell>>) -> Result<(), sqlx::Error> {
        let spec = &self.table.spec;
        let named: Vec<serde_json::Value> = keys.iter().map(|cells| key_json(spec, cells)).collect();
        let mut query = sqlx::query(AssertSqlSafe(self.table.sql.late_delete.clone()));
        for (i, at) in spec.key_indexes().into_iter().enumerate() {
            let cells = keys.iter_mut().map(|row| std::mem::replace(&mut row[i], Cell::Null));
            query = bind_column(query, spec.columns[at].kind, cells);
        }
        let rows =
            query.bind(self.partition as i32).bind(self.offset as i64).fetch_all(&mut *connection).await?;
        let mut gone = Vec::with_capacity(rows.len());
        for row in rows {
            gone.extend(named.get(row.try_get::<i64, _>(0)? as usize - 1).cloned());
        }
        self.note(connection, gone, true).await
    }

    async fn note(
        &self,
        connection: &mut Session,
        keys: Vec<serde_json::Value>,
        gone: bool,
    ) -> Result<(), sqlx::Error> {
        if keys.is_empty() {
            return Ok(());
        }
        sqlx::query(
            "INSERT INTO tidemill.tombstones (table_id, partition, c_offset, late_offset, gone, key)
             SELECT $1, $2, $3, $4, $5, key FROM unnest($6::jsonb[]) key",
        )
        .bind(self.table.id)
        .bind(self.partition as i32)
        .bind(self.now as i64)
        .bind(self.offset as i64)
        .bind(gone)
        .bind(keys)
        .execute(connection)
        .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
