//! An emission that goes to a queue: its key, payload and headers are the job's. Headers that say when and how it is to run
//! are taken out; one of them that cannot be read makes the plugin's answer a bad one, and nothing of it is committed.

use std::time::Duration;

use bytes::Bytes;

use crate::ids::Micros;
use crate::plugin::{CallError, Emission, Header as PluginHeader};
use crate::queue::{KEY_MAX, NewJob, PAYLOAD_MAX, Unique};
use crate::record::Header;

/// 1 (first) to 4.
pub const PRIORITY: &str = "tidemill-priority";
/// A time as in RFC 3339, or microseconds since 1970.
pub const RUN_AT: &str = "tidemill-run-at";
/// The unique key.
pub const UNIQUE: &str = "tidemill-unique";
/// Seconds.
pub const UNIQUE_FOR: &str = "tidemill-unique-for";

/// Characters of a unique key.
const UNIQUE_MAX: usize = 1024;
/// The longest time that a unique key may stay taken: a year.
const LONGEST: u64 = 366 * 86_400;
/// From the year 1 to the year 9999.
const TIMES: std::ops::RangeInclusive<Micros> = -62_135_596_800_000_000..=253_402_300_799_999_999;

/// The job of an emission. `ordered`: its queue runs jobs in the order in which they come, so it takes no priorities.
pub fn new_job(emission: Emission, ordered: bool) -> Result<NewJob, CallError> {
    job(emission, ordered).map_err(|message| CallError::BadOutput { message })
}

fn job(emission: Emission, ordered: bool) -> Result<NewJob, String> {
    if emission.payload.len() > PAYLOAD_MAX {
        let size = emission.payload.len();
        return Err(format!("the payload of a job has {size} bytes, and at most {PAYLOAD_MAX} are stored"));
    }
    if let Some(key) = emission.key.as_ref().filter(|key| key.len() > KEY_MAX) {
        return Err(format!("the key of a job has {} bytes, and at most {KEY_MAX} are stored", key.len()));
    }
    let mut job =
        NewJob { payload: emission.payload.into(), key: emission.key.map(Bytes::from), ..NewJob::default() };
    let (mut unique, mut lasting) = (None, None);
    for PluginHeader { name, value } in emission.headers {
        match name.as_str() {
            PRIORITY if ordered => {
                return Err(format!("the header {PRIORITY} is for queues that are not ordered"));
            }
            PRIORITY => job.priority = Some(priority(text(&name, &value)?)?),
            RUN_AT => job.run_at = Some(run_at(text(&name, &value)?)?),
            UNIQUE => unique = Some(unique_key(text(&name, &value)?)?),
            UNIQUE_FOR => lasting = Some(seconds(text(&name, &value)?)?),
            _ => job.headers.push(Header { name, value: value.into() }),
        }
    }
    job.unique = match (unique, lasting) {
        (None, None) => None,
        (None, Some(_)) => return Err(format!("the header {UNIQUE_FOR} needs the header {UNIQUE}")),
        (Some(key), lasting) => Some(Unique { key, lasting }),
    };
    Ok(job)
}

fn text<'a>(name: &str, value: &'a [u8]) -> Result<&'a str, String> {
    std::str::from_utf8(value).map_err(|_| format!("the header {name} is not text"))
}

fn shown(value: &str) -> String {
    value.chars().take(80).collect()
}

fn priority(value: &str) -> Result<u8, String> {
    let priority = value.parse().ok().filter(|priority| (1..=4).contains(priority));
    priority.ok_or_else(|| format!("the header {PRIORITY} is {:?}, and goes from 1 to 4", shown(value)))
}

/// Microseconds since 1970, or RFC 3339.
pub fn run_at(value: &str) -> Result<Micros, String> {
    let stamp = || value.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_microsecond);
    let micros = value.parse().ok().or_else(stamp).filter(|micros| TIMES.contains(micros));
    micros.ok_or_else(|| {
        format!(
            "the header {RUN_AT} is {:?}, and should be a time such as 2026-01-31T08:00:00Z, or microseconds since 1970",
            shown(value)
        )
    })
}

fn unique_key(value: &str) -> Result<String, String> {
    match value.chars().count() {
        0 => Err(format!("the header {UNIQUE} is empty")),
        1..=UNIQUE_MAX if !value.contains('\0') => Ok(value.to_string()),
        1..=UNIQUE_MAX => Err(format!("the header {UNIQUE} has a zero byte")),
        count => {
            Err(format!("the header {UNIQUE} has {count} characters, and at most {UNIQUE_MAX} are stored"))
        }
    }
}

fn seconds(value: &str) -> Result<Duration, String> {
    let seconds = value.parse().ok().filter(|seconds| (1..=LONGEST).contains(seconds));
    let seconds = seconds.ok_or_else(|| {
        format!("the header {UNIQUE_FOR} is {:?}, and goes from 1 to {LONGEST} seconds", shown(value))
    });
    seconds.map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn emission(headers: &[(&str, &str)]) -> Emission {
        let header = |(name, value): &(&str, &str)| PluginHeader {
            name: name.to_string(),
            value: value.as_bytes().to_vec(),
        };
        Emission {
            port: None,
            input: None,
            key: Some(b"k".to_vec()),
            headers: headers.iter().map(header).collect(),
            timestamp: None,
            payload: b"p".to_vec(),
        }
    }

    #[test]
    fn reserved_headers_are_taken_out_and_the_others_stay() {
        let job = job(
            emission(&[
                ("trace", "7"),
                (PRIORITY, "1"),
                (RUN_AT, "2026-01-31T08:00:00Z"),
                (UNIQUE, "a"),
                (UNIQUE_FOR, "60"),
                ("tidemill-other", "x"),
            ]),
            false,
        );
        let job = job.unwrap_or_else(|error| panic!("{error}"));
        let names: Vec<&str> = job.headers.iter().map(|header| header.name.as_str()).collect();
        assert_eq!(names, ["trace", "tidemill-other"]);
        assert_eq!((job.priority, job.run_at), (Some(1), Some(1_769_846_400_000_000)));
        assert_eq!(job.unique, Some(Unique { key: "a".into(), lasting: Some(Duration::from_secs(60)) }));
        assert_eq!(run_at("1769846400000000"), Ok(1_769_846_400_000_000));
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        for (headers, ordered, why) in [
            (vec![(PRIORITY, "0")], false, "from 1 to 4"),
            (vec![(PRIORITY, "high")], false, "\"high\""),
            (vec![(PRIORITY, "1")], true, "not ordered"),
            (vec![(RUN_AT, "tomorrow")], false, "2026-01-31T08:00:00Z"),
            (vec![(RUN_AT, "99999999999999999999")], false, "microseconds"),
            (vec![(UNIQUE, "")], false, "empty"),
            (vec![(UNIQUE, "a\0b")], false, "zero byte"),
            (vec![(UNIQUE_FOR, "5")], false, "needs the header"),
            (vec![(UNIQUE, "a"), (UNIQUE_FOR, "0")], false, "seconds"),
        ] {
            let error = job(emission(&headers), ordered).map(|job| job.headers).unwrap_err();
            assert!(error.contains(why), "{error} should have {why}");
        }
        let long = Emission { key: Some(vec![0; KEY_MAX + 1]), ..emission(&[]) };
        assert!(job(long, false).is_err_and(|error| error.contains("key of a job")));
    }
}
