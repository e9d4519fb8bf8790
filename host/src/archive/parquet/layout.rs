//! The columns of a topic's files: its declared fields, then ours.

use std::collections::HashSet;
use std::sync::Arc;

use ::parquet::basic::{LogicalType, Repetition, TimeUnit, Type as Physical};
use ::parquet::errors::ParquetError;
use ::parquet::schema::types::{Type, TypePtr};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::file::FieldType;
use crate::log::Topic;

/// Our own columns, in order, after the declared fields. They are not for fields to be named.
pub const SYSTEM_COLUMNS: [&str; 6] = ["_partition", "_offset", "_ts", "_key", "_headers", "_payload"];

/// Digits of a decimal: what 64 bits hold, and what DuckDB reads back from them.
const PRECISION: i32 = 18;

/// What a topic's files look like.
#[derive(Clone, Debug, PartialEq)]
pub struct Layout {
    /// Declared fields, in the order of the schema.
    pub fields: Vec<Field>,
    /// Order of the rows: places in `fields`. Rows that are equal in them stand in the order of their offsets.
    pub sort: Vec<usize>,
}

/// A declared field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    /// Its key in the payload.
    pub name: Arc<str>,
    /// Its column: the same name, unless another column has it (SQL does not tell `id` from `ID`).
    pub column: Arc<str>,
    pub kind: FieldKind,
}

/// Type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FieldKind {
    /// VARCHAR.
    String,
    /// BIGINT.
    Int,
    /// DOUBLE.
    Float,
    /// BOOLEAN.
    Bool,
    /// TIMESTAMP WITH TIME ZONE, microseconds.
    Timestamp,
    /// VARCHAR: the value's text as it stands in the payload.
    Json,
    /// DECIMAL(18, n).
    Decimal(u8),
}

impl Layout {
    /// Of a topic's files. Without a schema there are no columns but ours, and payloads are kept as they are.
    pub fn of(topic: &Topic) -> Self {
        Self::new(topic.schema.as_ref(), &topic.sort)
    }

    /// `schema` is what [`Topic::schema`] holds; what is not a field of a known type there gets no column.
    pub fn new(schema: Option<&Value>, sort: &[String]) -> Self {
        let mut taken: HashSet<String> = SYSTEM_COLUMNS.iter().map(ToString::to_string).collect();
        let declared = schema.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let fields: Vec<Field> = declared
            .iter()
            .filter_map(|field| {
                let name: Arc<str> = field.get("name")?.as_str()?.into();
                let kind = FieldType::deserialize(field.get("type")?).ok()?;
                let column = free_name(&name, &mut taken).into();
                Some(Field { name, column, kind: kind.into() })
            })
            .collect();
        let place = |name: &String| fields.iter().position(|field| *field.name == **name);
        let sort = sort.iter().filter_map(place).collect();
        Self { fields, sort }
    }

    /// The Parquet schema: every declared field may be missing.
    pub(super) fn schema(&self) -> Result<TypePtr, ParquetError> {
        let mut columns = Vec::with_capacity(self.fields.len() + SYSTEM_COLUMNS.len());
        for field in &self.fields {
            columns.push(column(&field.column, field.kind.types(), Repetition::OPTIONAL)?);
        }
        let timestamp = FieldKind::Timestamp.types();
        let text = (Physical::BYTE_ARRAY, Some(LogicalType::String));
        for (name, types, repetition) in [
            ("_partition", (Physical::INT32, None), Repetition::REQUIRED),
            ("_offset", (Physical::INT64, None), Repetition::REQUIRED),
            ("_ts", timestamp, Repetition::REQUIRED),
            ("_key", (Physical::BYTE_ARRAY, None), Repetition::OPTIONAL),
            ("_headers", text, Repetition::OPTIONAL),
            ("_payload", (Physical::BYTE_ARRAY, None), Repetition::OPTIONAL),
        ] {
            columns.push(column(name, types, repetition)?);
        }
        Ok(Arc::new(Type::group_type_builder("message").with_fields(columns).build()?))
    }
}

/// The name, or the name with a number behind it.
fn free_name(name: &str, taken: &mut HashSet<String>) -> String {
    let mut column = name.to_owned();
    let mut number = 2;
    while !taken.insert(column.to_lowercase()) {
        column = format!("{name}_{number}");
        number += 1;
    }
    column
}

fn column(
    name: &str,
    (physical, logical): (Physical, Option<LogicalType>),
    repetition: Repetition,
) -> Result<TypePtr, ParquetError> {
    let scale = match &logical {
        Some(LogicalType::Decimal { scale, .. }) => Some(*scale),
        _ => None,
    };
    let mut builder =
        Type::primitive_type_builder(name, physical).with_repetition(repetition).with_logical_type(logical);
    if let Some(scale) = scale {
        builder = builder.with_precision(PRECISION).with_scale(scale);
    }
    Ok(Arc::new(builder.build()?))
}

impl FieldKind {
    fn types(self) -> (Physical, Option<LogicalType>) {
        match self {
            Self::String | Self::Json => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
            Self::Int => (Physical::INT64, None),
            Self::Float => (Physical::DOUBLE, None),
            Self::Bool => (Physical::BOOLEAN, None),
            Self::Timestamp => (
                Physical::INT64,
                Some(LogicalType::Timestamp { is_adjusted_to_u_t_c: true, unit: TimeUnit::MICROS }),
            ),
            Self::Decimal(scale) => {
                (Physical::INT64, Some(LogicalType::Decimal { scale: scale.into(), precision: PRECISION }))
            }
        }
    }
}

impl From<FieldType> for FieldKind {
    fn from(kind: FieldType) -> Self {
        match kind {
            FieldType::String => Self::String,
            FieldType::Int => Self::Int,
            FieldType::Float => Self::Float,
            FieldType::Bool => Self::Bool,
            FieldType::Timestamp => Self::Timestamp,
            FieldType::Json => Self::Json,
            FieldType::Decimal(scale) => Self::Decimal(scale.min(PRECISION as u8)),
        }
    }
}
