//! The names of types, as DuckDB writes them.

use duckdb::core::{LogicalTypeHandle, LogicalTypeId};

pub fn name(kind: &LogicalTypeHandle) -> String {
    let fixed = match kind.id() {
        LogicalTypeId::Boolean => "BOOLEAN",
        LogicalTypeId::Tinyint => "TINYINT",
        LogicalTypeId::Smallint => "SMALLINT",
        LogicalTypeId::Integer => "INTEGER",
        LogicalTypeId::Bigint => "BIGINT",
        LogicalTypeId::Hugeint => "HUGEINT",
        LogicalTypeId::UTinyint => "UTINYINT",
        LogicalTypeId::USmallint => "USMALLINT",
        LogicalTypeId::UInteger => "UINTEGER",
        LogicalTypeId::UBigint => "UBIGINT",
        LogicalTypeId::UHugeint => "UHUGEINT",
        LogicalTypeId::Bignum => "BIGNUM",
        LogicalTypeId::Float => "FLOAT",
        LogicalTypeId::Double => "DOUBLE",
        LogicalTypeId::Varchar | LogicalTypeId::StringLiteral => "VARCHAR",
        LogicalTypeId::Blob => "BLOB",
        LogicalTypeId::Bit => "BIT",
        LogicalTypeId::Uuid => "UUID",
        LogicalTypeId::Enum => "ENUM",
        LogicalTypeId::Date => "DATE",
        LogicalTypeId::Time => "TIME",
        LogicalTypeId::TimeNs => "TIME_NS",
        LogicalTypeId::TimeTZ => "TIME WITH TIME ZONE",
        LogicalTypeId::Timestamp => "TIMESTAMP",
        LogicalTypeId::TimestampS => "TIMESTAMP_S",
        LogicalTypeId::TimestampMs => "TIMESTAMP_MS",
        LogicalTypeId::TimestampNs => "TIMESTAMP_NS",
        LogicalTypeId::TimestampTZ => "TIMESTAMP WITH TIME ZONE",
        LogicalTypeId::Interval => "INTERVAL",
        LogicalTypeId::SqlNull => "NULL",
        LogicalTypeId::Geometry => "GEOMETRY",
        LogicalTypeId::Decimal => {
            return format!("DECIMAL({},{})", kind.decimal_width(), kind.decimal_scale());
        }
        LogicalTypeId::List => return format!("{}[]", name(&kind.child(0))),
        LogicalTypeId::Map => return format!("MAP({}, {})", name(&kind.child(0)), name(&kind.child(1))),
        LogicalTypeId::Struct => return format!("STRUCT({})", fields(kind)),
        LogicalTypeId::Union => return format!("UNION({})", fields(kind)),
        other => return format!("{other:?}").to_uppercase(),
    };
    kind.get_alias().unwrap_or_else(|| fixed.to_string())
}

fn fields(kind: &LogicalTypeHandle) -> String {
    let field =
        |index| format!("\"{}\" {}", kind.child_name(index).replace('"', "\"\""), name(&kind.child(index)));
    (0..kind.num_children()).map(field).collect::<Vec<_>>().join(", ")
}
