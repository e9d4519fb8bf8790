//! Materializers: batches of messages into changes of declared tables.

use crate::{
    Change, Changes, Exported, Failure, Instance, Message, Plugin, Refusal, Refused, RowChange, Timestamp,
    Value, bindings::materializer::exports::tidemill::plugin::materializing, lifecycle,
};

/// Turns batches of messages into row changes, which the host applies in the commit of the offset.
pub trait Materializer: Plugin {
    /// Called once for each batch. Changes apply in the order of the outcome.
    ///
    /// # Errors
    /// A [`Failure`] concerns the whole batch, of which nothing is then committed.
    fn materialize(&mut self, batch: Vec<Message>) -> Result<Changes, Failure>;
}

/// Makes a component of the world `materializer` out of a [`Materializer`].
#[macro_export]
macro_rules! export_materializer {
    ($plugin:ty) => {
        $crate::__instance!($plugin);

        #[cfg(target_family = "wasm")]
        const _: () = {
            type Exported = $crate::Exported<$plugin>;
            $crate::bindings::materializer::export_materializer_world!(Exported);
        };
    };
}

impl Changes {
    /// No change, nothing refused.
    #[must_use]
    pub fn new() -> Self {
        Changes { changes: Vec::new(), refusals: Vec::new() }
    }

    /// Replaces a whole row of `table`: one value for each column, in the order of the descriptor.
    pub fn upsert(&mut self, input: u32, table: &str, row: impl Into<Vec<Value>>) {
        self.push(input, table, Change::Upsert(row.into()));
    }

    /// Deletes a row of `table` by the values of its key columns, in the order of the descriptor's `key`.
    pub fn delete(&mut self, input: u32, table: &str, key: impl Into<Vec<Value>>) {
        self.push(input, table, Change::Delete(key.into()));
    }

    /// Refuses the message at index `input` of the batch.
    pub fn refuse(&mut self, input: u32, refusal: Refusal) {
        self.refusals.push(Refused { input, refusal });
    }

    fn push(&mut self, input: u32, table: &str, change: Change) {
        self.changes.push(RowChange { input, table: table.to_owned(), change });
    }
}

impl Default for Changes {
    fn default() -> Self {
        Changes::new()
    }
}

impl Value {
    /// A moment, in microseconds since the Unix epoch, UTC.
    #[must_use]
    pub fn timestamp(micros: Timestamp) -> Self {
        Value::Timestamp(micros)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Value::Boolean(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Value::Integer(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Value::Float(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Value::Text(value.to_owned())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Value::Text(value)
    }
}

impl From<Vec<u8>> for Value {
    fn from(value: Vec<u8>) -> Self {
        Value::Bytes(value)
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Value::Null, Into::into)
    }
}

impl<T: Materializer + Instance> materializing::Guest for Exported<T> {
    fn materialize(batch: Vec<Message>) -> Result<Changes, Failure> {
        lifecycle::with(|plugin: &mut T| plugin.materialize(batch))
    }
}
