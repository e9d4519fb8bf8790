//! The pipeline that most cases run: `inbound` goes through a component to `outbound`, and from there into a table.
//!
//! The transform emits each record as it came, so that every inbound record must be in `outbound` exactly once. The table
//! has the newest record of each key, so that it must equal the fold of `outbound`.

/// Where producers write.
pub const INBOUND: &str = "inbound";
/// What the transform made of it.
pub const OUTBOUND: &str = "outbound";
/// The group of the transform.
pub const COPY: &str = "copy";
/// The table's name in Postgres.
pub const TABLE: &str = "newest";

/// Text of the file. Both topics have as many partitions, so that a key has the same one in both.
pub fn text(partitions: u32) -> String {
    format!(
        r#"[pipeline]
name = "faults"

[topics.{INBOUND}]
partitions = {partitions}

[topics.{OUTBOUND}]
partitions = {partitions}

[transforms.{COPY}]
plugin = "test-identity"
from = "{INBOUND}"
to = "{OUTBOUND}"
batch = {{ records = 200 }}

[materializers.fold]
plugin = "latest-position"
from = "{OUTBOUND}"
tables = {{ current_positions = "{TABLE}" }}
"#
    )
}
