//! Changes of a batch, folded to one per key and written with one statement per table.

use std::collections::HashMap;

use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Postgres};

use super::spec::{Cell, Change, ColumnType, RowChange, TableSpec};
use super::{SCHEMA, Table};
use crate::ids::TableName;
use crate::pg::pool::Session;

/// The statements of one table, made once.
#[derive(Debug)]
pub(crate) struct Statements {
    /// One array per column, then partitions and offsets.
    upsert: String,
    /// One array per key column.
    delete: String,
    /// As `upsert`, for messages that come late: rows that a newer message changed stay as they are. Gives the keys of rows
    /// that were changed, as JSON.
    pub(super) late_upsert: String,
    /// One array per key column, then a partition and an offset; as `late_upsert`.
    pub(super) late_delete: String,
    /// Rows as JSON objects; `$1` is a limit or NULL.
    pub(crate) snapshot: String,
    /// Rows changed at or after the positions in `$1` (partitions) and `$2` (offsets).
    pub(crate) changed: String,
    /// Rows that have one of the keys in `$1`.
    pub(crate) late: String,
}

impl Statements {
    pub(crate) fn new(name: &TableName, spec: &TableSpec) -> Self {
        let columns = quoted(spec.columns.iter().map(|c| c.name.as_str()));
        let key = quoted(spec.key.iter().map(String::as_str));
        let table = format!("{SCHEMA}.\"{name}\"");
        Self {
            upsert: upsert_sql(&table, spec, false),
            delete: delete_sql(&table, spec, false),
            late_upsert: upsert_sql(&table, spec, true),
            late_delete: delete_sql(&table, spec, true),
            late: format!(
                "SELECT row_to_json(r) FROM (SELECT {columns} FROM {table} t WHERE to_jsonb(t) @> ANY ($1::jsonb[])) r"
            ),
            snapshot: format!(
                "SELECT row_to_json(r) FROM (SELECT {columns} FROM {table} ORDER BY {key} LIMIT $1) r"
            ),
            changed: format!(
                "SELECT row_to_json(r) FROM (
                     SELECT {columns} FROM {table} t
                       JOIN unnest($1::int[], $2::bigint[]) AS s(partition, next) ON t._partition = s.partition
                      WHERE t._offset >= s.next ORDER BY t._offset) r"
            ),
        }
    }
}

/// How a column travels in an array parameter, and how SQL reads it from there.
fn wire(kind: ColumnType, alias: &str) -> (&'static str, String) {
    match kind {
        ColumnType::Timestamp => ("bigint[]", format!("tidemill.from_micros({alias})")),
        ColumnType::Json => ("text[]", format!("{alias}::jsonb")),
        ColumnType::Boolean => ("boolean[]", alias.to_string()),
        ColumnType::Integer => ("bigint[]", alias.to_string()),
        ColumnType::Float => ("float8[]", alias.to_string()),
        ColumnType::Text => ("text[]", alias.to_string()),
        ColumnType::Bytes => ("bytea[]", alias.to_string()),
    }
}

fn quoted<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
}

/// `late`: with the keys as JSON and the table's id as two more parameters, see [`super::late`].
fn upsert_sql(table: &str, spec: &TableSpec, late: bool) -> String {
    let columns = quoted(spec.columns.iter().map(|c| c.name.as_str()));
    let key = quoted(spec.key.iter().map(String::as_str));
    let (mut arrays, mut aliases, mut reads) = (Vec::new(), Vec::new(), Vec::new());
    for (i, column) in spec.columns.iter().enumerate() {
        let alias = format!("c{i}");
        let (array, read) = wire(column.kind, &alias);
        arrays.push(format!("${}::{array}", i + 1));
        reads.push(read);
        aliases.push(alias);
    }
    let next = spec.columns.len() + 1;
    arrays.push(format!("${next}::int[]"));
    arrays.push(format!("${}::bigint[]", next + 1));
    let set: Vec<String> = spec
        .columns
        .iter()
        .filter(|c| !spec.key.contains(&c.name))
        .map(|c| format!("\"{0}\" = excluded.\"{0}\"", c.name))
        .chain(["_partition = excluded._partition".to_string(), "_offset = excluded._offset".to_string()])
        .collect();
    let before = "t._partition = excluded._partition AND t._offset <= excluded._offset";
    let newer = match (&spec.newest_by, late) {
        (Some(by), false) => format!(" WHERE t.\"{by}\" IS NULL OR excluded.\"{by}\" >= t.\"{by}\""),
        (Some(by), true) => format!(
            " WHERE t.\"{by}\" IS NULL OR excluded.\"{by}\" > t.\"{by}\"
                 OR excluded.\"{by}\" = t.\"{by}\" AND {before}"
        ),
        (None, false) => String::new(),
        (None, true) => format!(" WHERE {before}"),
    };
    let (mut remembered, mut returning) = (String::new(), String::new());
    if late {
        arrays.push(format!("${}::jsonb[]", next + 2));
        remembered = format!(
            " WHERE NOT EXISTS (SELECT FROM tidemill.tombstones d
                                 WHERE d.table_id = ${} AND d.gone AND d.key = u.k
                                   AND (d.partition <> u.p OR coalesce(d.late_offset, d.c_offset) > u.o))",
            next + 3
        );
        let pairs: Vec<String> = spec.key.iter().map(|name| format!("'{name}', t.\"{name}\"")).collect();
        returning = format!(" RETURNING jsonb_build_object({})", pairs.join(", "));
    }
    format!(
        "INSERT INTO {table} AS t ({columns}, _partition, _offset)
         SELECT {}, p, o FROM unnest({}) AS u({}, p, o{}){remembered}
         ON CONFLICT ({key}) DO UPDATE SET {}{newer}{returning}",
        reads.join(", "),
        arrays.join(", "),
        aliases.join(", "),
        if late { ", k" } else { "" },
        set.join(", ")
    )
}

/// `late`: with partition and offset as two more parameters, and the places of the keys that were deleted, from 1.
fn delete_sql(table: &str, spec: &TableSpec, late: bool) -> String {
    let (mut arrays, mut aliases, mut matches) = (Vec::new(), Vec::new(), Vec::new());
    for (i, key) in spec.key.iter().enumerate() {
        let Some(column) = spec.columns.iter().find(|c| c.name == *key) else { continue };
        let alias = format!("c{i}");
        let (array, read) = wire(column.kind, &alias);
        arrays.push(format!("${}::{array}", i + 1));
        matches.push(format!("t.\"{key}\" = {read}"));
        aliases.push(alias);
    }
    let (mut ordinality, mut returning) = ("", "");
    if late {
        matches.push(format!(
            "t._partition = ${} AND t._offset <= ${}",
            spec.key.len() + 1,
            spec.key.len() + 2
        ));
        aliases.push("place".to_string());
        (ordinality, returning) = (" WITH ORDINALITY", " RETURNING u.place");
    }
    format!(
        "DELETE FROM {table} t USING unnest({}){ordinality} AS u({}) WHERE {}{returning}",
        arrays.join(", "),
        aliases.join(", "),
        matches.join(" AND ")
    )
}

/// One change per key, in key order (so that two writers lock rows in one order): the last one, or with `newest_by` the
/// newest one. Postgres refuses an upsert that touches a row twice.
pub fn fold(spec: &TableSpec, changes: Vec<Change>) -> Vec<Change> {
    let keys = spec.key_indexes();
    let newest = spec.newest_by.as_deref().and_then(|by| spec.index(by));
    let mut last: HashMap<Vec<u8>, Change> = HashMap::with_capacity(changes.len());
    for change in changes {
        let key = key_bytes(&change.row, &keys);
        if let (Some(at), RowChange::Upsert(new)) = (newest, &change.row)
            && let Some(Change { row: RowChange::Upsert(old), .. }) = last.get(&key)
            && older(&new[at], &old[at])
        {
            continue;
        }
        last.insert(key, change);
    }
    let mut folded: Vec<(Vec<u8>, Change)> = last.into_iter().collect();
    folded.sort_by(|a, b| a.0.cmp(&b.0));
    folded.into_iter().map(|(_, change)| change).collect()
}

fn older(new: &Cell, old: &Cell) -> bool {
    match (new, old) {
        (Cell::Integer(new), Cell::Integer(old)) | (Cell::Timestamp(new), Cell::Timestamp(old)) => new < old,
        (Cell::Float(new), Cell::Float(old)) => new < old,
        (Cell::Text(new), Cell::Text(old)) => new < old,
        _ => false,
    }
}

/// A key as bytes that differ when the keys do.
fn key_bytes(row: &RowChange, keys: &[usize]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(24);
    let cells: Vec<&Cell> = match row {
        RowChange::Upsert(cells) => keys.iter().filter_map(|&i| cells.get(i)).collect(),
        RowChange::Delete(cells) => cells.iter().collect(),
    };
    for cell in cells {
        let value: &[u8] = match cell {
            Cell::Null => &[],
            Cell::Boolean(value) => &[u8::from(*value)],
            Cell::Integer(value) | Cell::Timestamp(value) => &value.to_be_bytes(),
            Cell::Float(value) => &value.to_be_bytes(),
            Cell::Text(value) | Cell::Json(value) => value.as_bytes(),
            Cell::Bytes(value) => value,
        };
        bytes.extend_from_slice(&(value.len() as u32).to_be_bytes());
        bytes.extend_from_slice(value);
    }
    bytes
}

/// Writes folded changes inside the transaction of the offset.
pub async fn apply_in(
    connection: &mut Session,
    table: &Table,
    changes: Vec<Change>,
) -> Result<(), sqlx::Error> {
    let spec = &table.spec;
    let (mut rows, mut partitions, mut offsets) = (Vec::new(), Vec::new(), Vec::new());
    let (mut keys, mut tombs) = (Vec::new(), Vec::new());
    for change in changes {
        match change.row {
            RowChange::Upsert(cells) => {
                rows.push(cells);
                partitions.push(change.partition as i32);
                offsets.push(change.offset as i64);
            }
            RowChange::Delete(cells) => {
                tombs.push((change.partition as i32, change.offset as i64, key_json(spec, &cells)));
                keys.push(cells);
            }
        }
    }
    if !rows.is_empty() {
        let mut query = sqlx::query(AssertSqlSafe(table.sql.upsert.clone()));
        for (i, column) in spec.columns.iter().enumerate() {
            query = bind_column(
                query,
                column.kind,
                rows.iter_mut().map(|row| std::mem::replace(&mut row[i], Cell::Null)),
            );
        }
        query.bind(partitions).bind(offsets).execute(&mut *connection).await?;
    }
    if !keys.is_empty() {
        let mut query = sqlx::query(AssertSqlSafe(table.sql.delete.clone()));
        for (i, at) in spec.key_indexes().into_iter().enumerate() {
            let cells = keys.iter_mut().map(|row| std::mem::replace(&mut row[i], Cell::Null));
            query = bind_column(query, spec.columns[at].kind, cells);
        }
        query.execute(&mut *connection).await?;
        for (partition, offset, key) in tombs {
            sqlx::query("INSERT INTO tidemill.tombstones (table_id, partition, c_offset, key) VALUES ($1, $2, $3, $4)")
                .bind(table.id)
                .bind(partition)
                .bind(offset)
                .bind(key)
                .execute(&mut *connection)
                .await?;
        }
    }
    Ok(())
}

pub(super) fn key_json(spec: &TableSpec, cells: &[Cell]) -> serde_json::Value {
    let mut object = serde_json::Map::new();
    for (name, cell) in spec.key.iter().zip(cells) {
        let value = match cell {
            Cell::Null => serde_json::Value::Null,
            Cell::Boolean(value) => (*value).into(),
            Cell::Integer(value) => (*value).into(),
            Cell::Float(value) => (*value).into(),
            Cell::Text(value) | Cell::Json(value) => value.as_str().into(),
            // As row_to_json shows them.
            Cell::Bytes(value) => format!("\\x{}", hex::encode(value)).into(),
            Cell::Timestamp(at) => crate::clock::rfc3339(*at).into(),
        };
        object.insert(name.clone(), value);
    }
    serde_json::Value::Object(object)
}

/// Binds one column of all rows as one array. Types were checked where the plugin's output was: a cell of another type
/// than its column is NULL.
pub(super) fn bind_column<'q>(
    query: Query<'q, Postgres, PgArguments>,
    kind: ColumnType,
    cells: impl Iterator<Item = Cell>,
) -> Query<'q, Postgres, PgArguments> {
    macro_rules! column {
        ($type:ty, $($cell:pat => $value:expr),+) => {
            query.bind(cells.map(|cell| match cell { $($cell => Some($value),)+ _ => None }).collect::<Vec<Option<$type>>>())
        };
    }
    match kind {
        ColumnType::Boolean => column!(bool, Cell::Boolean(value) => value),
        ColumnType::Integer => column!(i64, Cell::Integer(value) => value),
        ColumnType::Float => column!(f64, Cell::Float(value) => value, Cell::Integer(value) => value as f64),
        ColumnType::Text => column!(String, Cell::Text(value) => value),
        ColumnType::Bytes => column!(Vec<u8>, Cell::Bytes(value) => value),
        ColumnType::Timestamp => column!(i64, Cell::Timestamp(value) => value),
        ColumnType::Json => column!(String, Cell::Json(value) => value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::spec::ColumnSpec;

    fn spec(newest_by: Option<&str>) -> TableSpec {
        let column = |name: &str, kind| ColumnSpec { name: name.to_string(), kind };
        TableSpec {
            columns: vec![column("id", ColumnType::Text), column("at", ColumnType::Integer)],
            key: vec!["id".to_string()],
            newest_by: newest_by.map(str::to_string),
        }
    }

    fn upsert(id: &str, at: i64, offset: u64) -> Change {
        let row = RowChange::Upsert(vec![Cell::Text(id.to_string()), Cell::Integer(at)]);
        Change { partition: 0, offset, row }
    }

    #[test]
    fn the_last_change_of_a_key_wins() {
        let folded = fold(&spec(None), vec![upsert("b", 1, 0), upsert("a", 9, 1), upsert("a", 2, 2)]);
        assert_eq!(folded, vec![upsert("a", 2, 2), upsert("b", 1, 0)]);
    }

    #[test]
    fn with_newest_by_an_older_version_never_wins() {
        let folded = fold(&spec(Some("at")), vec![upsert("a", 9, 1), upsert("a", 2, 2), upsert("a", 9, 3)]);
        assert_eq!(folded, vec![upsert("a", 9, 3)]);
    }

    #[test]
    fn a_delete_ends_what_came_before_it() {
        let gone =
            Change { partition: 0, offset: 5, row: RowChange::Delete(vec![Cell::Text("a".to_string())]) };
        assert_eq!(fold(&spec(None), vec![upsert("a", 9, 1), gone.clone()]), vec![gone]);
    }
}
