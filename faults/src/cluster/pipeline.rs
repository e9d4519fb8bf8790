//! The pipeline that most cases run: `inbound` goes through a component to `outbound`, and from there into a table.
//!
//! The transform emits each record as it came, so that every inbound record must be in `outbound` exactly once. The table
//! has the newest record of each key, so that it must equal the fold of `outbound`.

/// Where producers write.
pub const INBOUND: &str = "inbound";
/// What the transform made of it.
pub const OUTBOUND: &str = "outbound";
/// For requests that only look how long they take; nobody reads it.
pub const PROBE: &str = "probes";
/// The group of the transform.
pub const COPY: &str = "copy";
/// The table's name in Postgres.
pub const TABLE: &str = "newest";

/// Text of the file. Both topics have as many partitions, so that a key has the same one in both.
pub fn text(partitions: u32) -> String {
    with_segments(partitions, "1h")
}

/// The same with segments of so long: short ones are sealed and archived while a case runs.
pub fn with_segments(partitions: u32, segment: &str) -> String {
    // Small batches, so that many are open when something breaks.
    format!("{}batch = {{ records = 200 }}\n", with_usual_batches(partitions, segment))
}

/// The same with batches as large as they usually are.
pub fn with_usual_batches(partitions: u32, segment: &str) -> String {
    format!(
        r#"[pipeline]
name = "faults"

[topics.{INBOUND}]
partitions = {partitions}
segment = "{segment}"

[topics.{OUTBOUND}]
partitions = {partitions}
segment = "{segment}"

[topics.{PROBE}]
partitions = 1
format = "bytes"

[materializers.fold]
plugin = "latest-position"
from = "{OUTBOUND}"
tables = {{ current_positions = "{TABLE}" }}

[transforms.{COPY}]
plugin = "test-identity"
from = "{INBOUND}"
to = "{OUTBOUND}"
"#
    )
}

/// A pipeline without a stage: topics whose segments are as short as they can be and leave Postgres at once.
pub fn short_lived(topics: &[&str], partitions: u32, cold: &str) -> String {
    let mut text = "[pipeline]\nname = \"short\"\n".to_owned();
    for topic in topics {
        text.push_str(&short_lived_topic(topic, partitions, cold));
    }
    text
}

/// The transform of [`text`] on such a topic; what it makes stays in Postgres.
pub fn short_lived_copy(partitions: u32) -> String {
    let topic = short_lived_topic(INBOUND, partitions, "forever");
    format!(
        r#"[pipeline]
name = "faults"
{topic}
[topics.{OUTBOUND}]
partitions = {partitions}

[transforms.{COPY}]
plugin = "test-identity"
from = "{INBOUND}"
to = "{OUTBOUND}"
batch = {{ records = 200 }}
"#
    )
}

/// One such topic. `cold`: how long it stays in the bucket, or "none".
pub fn short_lived_topic(name: &str, partitions: u32, cold: &str) -> String {
    format!(
        r#"
[topics.{name}]
partitions = {partitions}
segment = "1s"
retention = {{ hot = "1s", cold = "{cold}" }}
sort = ["id", "ts"]

[topics.{name}.schema]
id = "string"
callsign = "string"
kind = "string"
lat = {{ decimal = 1 }}
lon = {{ decimal = 1 }}
altitude = "int"
heading = {{ decimal = 1 }}
speed = {{ decimal = 1 }}
vertical_rate = "int"
squawk = "string"
ts = "int"
"#
    )
}
