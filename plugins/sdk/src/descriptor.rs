//! Builders for what a plugin says about itself.

use crate::{Column, ColumnType, Descriptor, Port, Table};

impl Descriptor {
    /// A plugin without configuration, further ports and tables. `env!("CARGO_PKG_NAME")` and
    /// `env!("CARGO_PKG_VERSION")` are good first arguments.
    #[must_use]
    pub fn new(name: &str, version: &str, description: &str) -> Self {
        Descriptor {
            name: name.to_owned(),
            version: version.to_owned(),
            description: description.to_owned(),
            config_schema: String::new(),
            ports: Vec::new(),
            tables: Vec::new(),
        }
    }

    /// The JSON Schema of the stage's `config`, as text.
    #[must_use]
    pub fn config_schema(mut self, schema: &str) -> Self {
        self.config_schema = schema.to_owned();
        self
    }

    /// A further output port, beside `default`, which every producer, transform and worker has.
    #[must_use]
    pub fn port(mut self, name: &str, description: &str) -> Self {
        self.ports.push(Port { name: name.to_owned(), description: description.to_owned() });
        self
    }

    /// A table that the materializer keeps.
    #[must_use]
    pub fn table(mut self, table: Table) -> Self {
        self.tables.push(table);
        self
    }
}

impl Table {
    /// A table whose rows are identified by the columns `key` (at least one).
    #[must_use]
    pub fn new(name: &str, key: &[&str]) -> Self {
        Table {
            name: name.to_owned(),
            columns: Vec::new(),
            key: key.iter().map(|&column| column.to_owned()).collect(),
            newest_by: None,
        }
    }

    /// Adds a column. Rows carry their values in the order of the columns.
    #[must_use]
    pub fn column(mut self, name: &str, type_: ColumnType) -> Self {
        self.columns.push(Column { name: name.to_owned(), type_ });
        self
    }

    /// The column that orders the versions of a row: an upsert with a lower value than the stored one is ignored.
    #[must_use]
    pub fn newest_by(mut self, column: &str) -> Self {
        self.newest_by = Some(column.to_owned());
        self
    }
}
