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
pub struct Change {
    table: String,
    change: tables::Change,
}

impl Change {
    /// `first` is the place of the batch in the test's input.
    pub fn new(first: usize, change: PluginRowChange) -> Self {
        let row = match change.change {
            PluginChange::Upsert(values) => RowChange::Upsert(values.into_iter().map(cell).collect()),
            PluginChange::Delete(values) => RowChange::Delete(values.into_iter().map(cell).collect()),
        };
        let offset = first as u64 + u64::from(change.input);
        Self { table: change.table, change: tables::Change { partition: 0, offset, row } }
    }
}

/// Changes of a table that wait to be folded, beyond as many as its rows.
const WAITING: usize = 10_000;

/// The tables of a plugin while changes come in. Takes as much memory as the rows do.
pub struct Rows {
    tables: BTreeMap<String, TableRows>,
}

struct TableRows {
    spec: TableSpec,
    changes: Vec<tables::Change>,
    /// How many of the changes are folded: one for each key.
    folded: usize,
}

impl Rows {
    pub fn new(descriptor: &Descriptor) -> Self {
        let table = |table: &crate::plugin::Table| {
            (table.name.clone(), TableRows { spec: spec(table), changes: Vec::new(), folded: 0 })
        };
        Self { tables: descriptor.tables.iter().map(table).collect() }
    }

    pub fn add(&mut self, change: Change) {
        if let Some(table) = self.tables.get_mut(&change.table) {
            table.changes.push(change.change);
            if table.changes.len() > 2 * table.folded + WAITING {
                table.fold();
            }
        }
    }

    /// Each table with what is in it in the end, in the order of its key.
    pub fn finish(self) -> Vec<(String, Vec<Value>)> {
        let rows = |(name, mut table): (String, TableRows)| {
            table.fold();
            let spec = table.spec;
            let rows = table.changes.into_iter().filter_map(|change| match change.row {
                RowChange::Upsert(cells) => Some(object(&spec, cells)),
                RowChange::Delete(_) => None,
            });
            (name, rows.collect())
        };
        self.tables.into_iter().map(rows).collect()
    }
}

impl TableRows {
    /// The same folding that is done before rows are written to Postgres.
    fn fold(&mut self) {
        self.changes = apply::fold(&self.spec, std::mem::take(&mut self.changes));
        self.folded = self.changes.len();
    }
}

/// Each table of the plugin with what some changes leave in it, in the order of its key.
pub(super) fn fold(descriptor: &Descriptor, changes: Vec<Change>) -> Vec<(String, Vec<Value>)> {
    let mut rows = Rows::new(descriptor);
    changes.into_iter().for_each(|change| rows.add(change));
    rows.finish()
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
