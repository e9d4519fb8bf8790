//! The rows that a materializer's changes leave, as JSON.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::ids::Micros;
use crate::pipeline::effects::cell;
use crate::pipeline::runtime::spec;
use crate::plugin::{Change as PluginChange, Descriptor, RowChange as PluginRowChange};
use crate::tables::apply;
use crate::tables::spec::{self as tables, Cell, RowChange, TableSpec};

/// A change and the table of the plugin that it is of.
pub(super) struct Change {
    table: String,
    change: tables::Change,
}

impl Change {
    /// `first` is the place of the batch in the test's input.
    pub(super) fn new(first: usize, change: PluginRowChange) -> Self {
        let row = match change.change {
            PluginChange::Upsert(values) => RowChange::Upsert(values.into_iter().map(cell).collect()),
            PluginChange::Delete(values) => RowChange::Delete(values.into_iter().map(cell).collect()),
        };
        let offset = first as u64 + u64::from(change.input);
        Self { table: change.table, change: tables::Change { partition: 0, offset, row } }
    }
}

/// Each table of the plugin with what is in it in the end, in the order of its key: the same folding that is done
/// before rows are written to Postgres.
pub(super) fn fold(descriptor: &Descriptor, changes: Vec<Change>) -> Vec<(String, Vec<Value>)> {
    let mut by_table: BTreeMap<String, Vec<tables::Change>> = BTreeMap::new();
    for change in changes {
        by_table.entry(change.table).or_default().push(change.change);
    }
    let rows = |table: &crate::plugin::Table| {
        let spec = spec(table);
        let changes = by_table.remove(&table.name).unwrap_or_default();
        let folded = apply::fold(&spec, changes);
        let rows = folded.into_iter().filter_map(|change| match change.row {
            RowChange::Upsert(cells) => Some(object(&spec, cells)),
            RowChange::Delete(_) => None,
        });
        (table.name.clone(), rows.collect())
    };
    descriptor.tables.iter().map(rows).collect()
}

fn object(spec: &TableSpec, cells: Vec<Cell>) -> Value {
    let names = spec.columns.iter().map(|column| column.name.clone());
    Value::Object(names.zip(cells.into_iter().map(value)).collect::<Map<_, _>>())
}

fn value(cell: Cell) -> Value {
    match cell {
        Cell::Null => Value::Null,
        Cell::Boolean(value) => json!(value),
        Cell::Integer(value) => json!(value),
        Cell::Float(value) => json!(value),
        Cell::Text(value) => json!(value),
        Cell::Bytes(value) => json!(format!("\\x{}", hex::encode(value))),
        Cell::Timestamp(value) => json!(time(value)),
        Cell::Json(text) => serde_json::from_str(&text).unwrap_or(Value::String(text)),
    }
}

/// As RFC 3339; a time beyond the years that has is its number.
fn time(micros: Micros) -> String {
    match jiff::Timestamp::from_microsecond(micros) {
        Ok(time) => time.to_string(),
        Err(_) => micros.to_string(),
    }
}
