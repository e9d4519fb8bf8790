//! `[topics.NAME]`.

use std::time::Duration;

use serde_json::json;

use super::{Measure, Reader};
use crate::config::document::Mark;
use crate::config::file::{FieldType, Retention, Topic};
use crate::config::key_path::KeyPath;
use crate::config::plan::{Acks, Cold, Format, Hold, TopicPlan};
use crate::config::{suggest, units};
use crate::ids::{GroupName, TopicName};

const DAY: Duration = Duration::from_secs(86_400);
const PARTITIONS: u32 = 4;
const SEGMENT: Duration = Duration::from_secs(3600);
const HOT: Duration = DAY;
/// More fields than this make no useful table.
const MAX_FIELDS: usize = 500;
const MAX_FIELD_NAME: usize = 200;

pub fn read(reader: &mut Reader<'_>, path: &KeyPath, name: TopicName, topic: &Topic) -> TopicPlan {
    let retention = path.key("retention");
    let hot = hot(reader, &retention.key("hot"), topic.retention.hot.as_deref());
    let cold = cold(reader, &retention.key("cold"), topic.retention.cold.as_deref(), hot);
    let hold = hold(reader, &retention, &topic.retention, hot);
    let format = topic.format.unwrap_or(Format::Json);
    if format == Format::Bytes && topic.schema.is_some() {
        let help = "remove `schema`, or set format = \"json\"".to_string();
        let message = "a topic of format \"bytes\" has no fields";
        reader.fail(&path.key("schema"), Mark::Key, message, Some(help));
    }
    let schema = topic.schema.as_ref().map(|_| fields(reader, &path.key("schema"), topic));
    sort(reader, path, topic);
    TopicPlan {
        name,
        partitions: topic.partitions.unwrap_or(PARTITIONS),
        segment: segment(reader, &path.key("segment"), topic.segment.as_deref()),
        hot,
        cold,
        hold,
        format,
        acks: topic.acks.unwrap_or(Acks::Fsync),
        schema,
        sort: topic.sort.clone(),
    }
}

fn segment(reader: &mut Reader<'_>, path: &KeyPath, text: Option<&str>) -> Duration {
    let measure = Measure {
        parse: |text| match units::duration(text)? {
            span if span.subsec_nanos() == 0 => Ok(span),
            _ => Err(format!("{text:?} is not a whole number of seconds")),
        },
        show: units::show_duration,
        range: Duration::from_secs(1)..=31 * DAY,
    };
    reader.measure(path, text, &measure, SEGMENT)
}

fn hot(reader: &mut Reader<'_>, path: &KeyPath, text: Option<&str>) -> Option<Duration> {
    let Some(text) = text else {
        return Some(HOT);
    };
    let parsed = units::duration_or_forever(text).and_then(|hot| at_least_a_second(text, hot));
    reader.take(path, parsed).unwrap_or(Some(HOT))
}

fn cold(reader: &mut Reader<'_>, path: &KeyPath, text: Option<&str>, hot: Option<Duration>) -> Cold {
    let text = text.unwrap_or("forever");
    if text == "none" {
        return Cold::None;
    }
    let parsed = units::duration_or_forever(text)
        .map_err(|_| format!("{text:?} is neither a duration, such as \"30d\", nor \"forever\" nor \"none\""))
        .and_then(|cold| at_least_a_second(text, cold));
    match reader.take(path, parsed).flatten() {
        None => Cold::Forever,
        Some(cold) => {
            if hot.is_some_and(|hot| cold < hot) {
                let message = "messages would leave the bucket before they leave Postgres";
                let help = "make `cold` at least as long as `hot`, or set it to \"none\"".to_string();
                reader.fail(path, Mark::Value, message, Some(help));
            }
            Cold::For(cold)
        }
    }
}

fn hold(reader: &mut Reader<'_>, path: &KeyPath, written: &Retention, hot: Option<Duration>) -> Hold {
    let default = Hold::default();
    let (groups_path, max_path) = (path.key("hold"), path.key("hold_max"));
    let mut groups = Vec::new();
    for (at, name) in written.hold.iter().enumerate() {
        let place = groups_path.index(at);
        if written.hold[..at].contains(name) {
            reader.fail(&place, Mark::Value, format!("`{name}` is named twice"), None);
        }
        groups.extend(reader.name::<GroupName>(&place, Mark::Value, name));
    }
    if written.hold_max.is_some() && written.hold.is_empty() {
        let help = "name the groups: hold = [\"GROUP\"], or remove `hold_max`".to_string();
        reader.fail(
            &max_path,
            Mark::Key,
            "`hold_max` limits what is held, but nobody holds anything",
            Some(help),
        );
    }
    if !written.hold.is_empty() && hot.is_none() {
        let help = "give `hot` a duration, or remove `hold`".to_string();
        reader.fail(
            &groups_path,
            Mark::Key,
            "messages stay in Postgres for ever, so there is nothing to hold",
            Some(help),
        );
    }
    let size = Measure { parse: units::size, show: units::show_size, range: 1 << 20..=1 << 50 };
    let max_bytes = reader.measure(&max_path, written.hold_max.as_deref(), &size, default.max_bytes);
    Hold { groups, max_bytes }
}

fn at_least_a_second(text: &str, time: Option<Duration>) -> Result<Option<Duration>, String> {
    match time {
        Some(time) if time < Duration::from_secs(1) => Err(format!("{text:?} is too short: at least 1s")),
        time => Ok(time),
    }
}

/// The declared fields in file order.
fn fields(reader: &mut Reader<'_>, path: &KeyPath, topic: &Topic) -> serde_json::Value {
    let names = reader.doc.keys(path);
    if names.is_empty() || names.len() > MAX_FIELDS {
        let message = format!("a schema has 1 to {MAX_FIELDS} fields, this one has {}", names.len());
        reader.fail(path, Mark::Key, message, None);
    }
    let mut fields = Vec::new();
    for name in names {
        if name.is_empty() || name.len() > MAX_FIELD_NAME || name.chars().any(char::is_control) {
            let message = format!("a field's name has 1 to {MAX_FIELD_NAME} bytes and no control characters");
            reader.fail(&path.key(name), Mark::Key, message, None);
        }
        let kind: Option<&FieldType> = topic.schema.as_ref().and_then(|s| s.get(name));
        fields.extend(kind.map(|kind| json!({ "name": name, "type": kind })));
    }
    serde_json::Value::Array(fields)
}

fn sort(reader: &mut Reader<'_>, path: &KeyPath, topic: &Topic) {
    let declared = reader.doc.keys(&path.key("schema"));
    let path = path.key("sort");
    if topic.schema.is_none() && !topic.sort.is_empty() {
        let help = "add `schema` with these fields, or remove `sort`".to_string();
        return reader.fail(
            &path,
            Mark::Key,
            "`sort` names fields, but the topic has no `schema`",
            Some(help),
        );
    }
    for (i, field) in topic.sort.iter().enumerate() {
        let place = path.index(i);
        if topic.sort[..i].contains(field) {
            reader.fail(&place, Mark::Value, format!("`{field}` is named twice"), None);
        } else if !declared.contains(&field.as_str()) {
            let help = suggest::help(field, "fields", declared.iter().copied());
            reader.fail(&place, Mark::Value, format!("the schema has no field `{field}`"), help);
        }
    }
}
