//! The shape of a table and the cells of its rows.

use serde::{Deserialize, Serialize};

use crate::ids::{Micros, Offset, Partition, TableName};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ColumnType {
    Boolean,
    Integer,
    Float,
    Text,
    Bytes,
    Timestamp,
    Json,
}

impl ColumnType {
    /// The type of the column in Postgres.
    pub fn sql(self) -> &'static str {
        match self {
            Self::Boolean => "boolean",
            Self::Integer => "bigint",
            Self::Float => "double precision",
            Self::Text => "text",
            Self::Bytes => "bytea",
            Self::Timestamp => "timestamptz",
            Self::Json => "jsonb",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnSpec {
    pub name: String,
    #[serde(rename = "type")]
    pub kind: ColumnType,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableSpec {
    pub columns: Vec<ColumnSpec>,
    pub key: Vec<String>,
    /// A column that orders the versions of a row: an upsert with a lower value is ignored.
    pub newest_by: Option<String>,
}

/// One value of a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    Null,
    Boolean(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
    Timestamp(Micros),
    Json(String),
}

/// One change of a table, and the message that caused it.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    pub partition: Partition,
    pub offset: Offset,
    pub row: RowChange,
}

#[derive(Clone, Debug, PartialEq)]
pub enum RowChange {
    /// One cell for each column.
    Upsert(Vec<Cell>),
    /// The cells of the key columns, in the order of the key.
    Delete(Vec<Cell>),
}

impl TableSpec {
    /// Positions of the key columns. Only valid after [`TableSpec::check`].
    pub fn key_indexes(&self) -> Vec<usize> {
        self.key.iter().filter_map(|key| self.index(key)).collect()
    }

    pub fn index(&self, column: &str) -> Option<usize> {
        self.columns.iter().position(|c| c.name == column)
    }

    /// What is wrong with it, if anything.
    pub fn check(&self) -> Result<(), String> {
        let plain = |name: &str| {
            name.starts_with(|c: char| c.is_ascii_lowercase())
                && name.len() <= 48
                && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        };
        if let Some(column) = self.columns.iter().find(|c| !plain(&c.name)) {
            return Err(format!(
                "{:?} is not a column name: lower-case letters, digits and underscores, a letter first",
                column.name
            ));
        }
        for (i, column) in self.columns.iter().enumerate() {
            if self.columns[..i].iter().any(|c| c.name == column.name) {
                return Err(format!("column {:?} is declared twice", column.name));
            }
        }
        if self.key.is_empty() {
            return Err("a table needs at least one key column".to_string());
        }
        match self.key.iter().chain(&self.newest_by).find(|name| self.index(name).is_none()) {
            Some(missing) => Err(format!("{missing:?} is in the key or in newest-by, but is no column")),
            None => Ok(()),
        }
    }

    /// The statement that makes the table. Names were checked, and are quoted because they may be SQL keywords.
    pub fn create_sql(&self, name: &TableName) -> String {
        let columns: Vec<String> = self
            .columns
            .iter()
            .map(|c| {
                let not_null = if self.key.contains(&c.name) { " NOT NULL" } else { "" };
                format!("\"{}\" {}{not_null}", c.name, c.kind.sql())
            })
            .collect();
        let key: Vec<String> = self.key.iter().map(|k| format!("\"{k}\"")).collect();
        // Rows are updated in place all the time: room on each page keeps the updates HOT, and vacuum comes early.
        format!(
            "CREATE TABLE public.\"{name}\" ({}, _partition int NOT NULL, _offset bigint NOT NULL, PRIMARY KEY ({}))
             WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 200)",
            columns.join(", "),
            key.join(", ")
        )
    }
}
