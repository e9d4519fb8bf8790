//! When a cron fires: five fields of the crontab, or a name such as `@hourly`. Always in UTC, so that no hour is skipped
//! or comes twice. A day fits when both day fields do if one of them begins with a star, else when either does, as in
//! Vixie's cron.

use std::fmt;
use std::str::FromStr;

use cronexpr::{Crontab, FallbackTimezoneOption, ParseOptions};
use jiff::Timestamp;

use super::suggest;
use crate::ids::Micros;

const FIELDS: usize = 5;
/// What the names stand for.
const NAMES: [(&str, &str); 7] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];

/// A schedule that fires at some time.
#[derive(Clone)]
pub struct Schedule {
    text: String,
    crontab: Crontab,
}

/// Why a text is not a schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a schedule: {problem}")]
pub struct ScheduleError {
    text: String,
    problem: String,
}

impl Schedule {
    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The first time after `now`; None beyond the year 9999.
    pub fn after(&self, now: Micros) -> Option<Micros> {
        let now = Timestamp::from_microsecond(now).ok()?;
        self.crontab.find_next(now).ok().map(|next| next.timestamp().as_microsecond())
    }
}

impl FromStr for Schedule {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        let wrong = |problem: String| ScheduleError { text: text.chars().take(100).collect(), problem };
        let fields = match text.starts_with('@') {
            true => {
                let named = NAMES.iter().find(|(name, _)| *name == text);
                let names = || NAMES.iter().map(|(name, _)| *name);
                named.map(|(_, fields)| *fields).ok_or_else(|| match suggest::nearest(text, names()) {
                    Some(near) => wrong(format!("did you mean \"{near}\"?")),
                    None => wrong(format!("the names are {}", suggest::list(names()))),
                })?
            }
            false => text,
        };
        let found = fields.split_ascii_whitespace().count();
        if found != FIELDS {
            return Err(wrong(format!(
                "it has {found} fields instead of {FIELDS}: minute, hour, day of month, month, day of week"
            )));
        }
        let mut options = ParseOptions::default();
        options.fallback_timezone_option = FallbackTimezoneOption::UTC;
        let parsed = cronexpr::parse_crontab_with(fields, options);
        let crontab = parsed.map_err(|error| wrong(in_a_line(&error.to_string())))?;
        let schedule = Self { text: text.to_string(), crontab };
        match schedule.after(0) {
            Some(_) => Ok(schedule),
            None => Err(wrong("there is no such day".to_string())),
        }
    }
}

/// The parser draws a caret below the fields; only its last words are wanted.
fn in_a_line(error: &str) -> String {
    let last = error.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or(error);
    last.trim_start_matches(['^', ' ']).to_string()
}

impl PartialEq for Schedule {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Schedule({:?})", self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn micros(text: &str) -> Micros {
        text.parse::<Timestamp>().unwrap_or_else(|error| panic!("{text}: {error}")).as_microsecond()
    }

    fn next(schedule: &str, now: &str) -> String {
        let schedule: Schedule = schedule.parse().unwrap_or_else(|error| panic!("{error}"));
        let next = schedule.after(micros(now)).unwrap_or_else(|| panic!("{schedule} never fires"));
        Timestamp::from_microsecond(next).map(|next| next.to_string()).unwrap_or_default()
    }

    #[test]
    fn the_next_time_is_after_now_and_in_utc() {
        assert_eq!(next("0 3 * * *", "2026-03-28T02:59:59Z"), "2026-03-28T03:00:00Z");
        assert_eq!(next("0 3 * * *", "2026-03-28T03:00:00Z"), "2026-03-29T03:00:00Z");
        assert_eq!(next("*/15 * * * *", "2026-01-01T00:07:00Z"), "2026-01-01T00:15:00Z");
        assert_eq!(next("30 8 * * MON-FRI", "2026-11-20T09:00:00Z"), "2026-11-23T08:30:00Z");
        assert_eq!(next("0 0 29 2 *", "2026-11-20T09:00:00Z"), "2028-02-29T00:00:00Z");
        assert_eq!(next("@hourly", "2026-11-20T09:00:00Z"), "2026-11-20T10:00:00Z");
        assert_eq!(next("@weekly", "2026-11-20T09:00:00Z"), "2026-11-22T00:00:00Z");
    }

    #[test]
    fn what_is_no_schedule_is_told_why() {
        for (text, why) in [
            ("", "0 fields"),
            ("* * * *", "4 fields"),
            ("0 3 * * * UTC", "6 fields"),
            ("61 * * * *", "59"),
            ("a * * * *", "is not a schedule"),
            ("0 0 31 2 *", "no such day"),
            ("@hourl", "\"@hourly\""),
            ("@sometimes", "@daily"),
        ] {
            let error = text.parse::<Schedule>().map(|it| it.to_string()).unwrap_err().to_string();
            assert!(error.contains(why), "{error} should have {why}");
            assert!(!error.contains('\n'), "{error}");
        }
    }
}
