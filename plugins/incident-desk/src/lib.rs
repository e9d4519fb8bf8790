//! Makes a job of each incident: what it emits is meant for a queue, `to = { queue = "..." }`.
//!
//! An aircraft in trouble raises an alert with every report. A job is unique for its aircraft and what is wrong with it
//! for ten minutes, so a queue gets one job for each incident, however many alerts there are; emergencies go first. The
//! alert is the job's payload, as it came.

use serde::Deserialize;
use tidemill_plugin::{
    Descriptor, Emission, Failure, Message, NoConfig, Outcome, Plugin, Refusal, Transform,
};

/// Headers that the host takes from a record on its way into a queue.
const PRIORITY: &str = "tidemill-priority";
const UNIQUE: &str = "tidemill-unique";
const UNIQUE_FOR: &str = "tidemill-unique-for";

const FIRST: &str = "1";
/// Seconds in which further alerts are of the same incident.
const INCIDENT: &str = "600";

/// What is looked at of an alert.
#[derive(Deserialize)]
struct Alert<'a> {
    /// Of the aircraft.
    #[serde(borrow)]
    id: std::borrow::Cow<'a, str>,
    alert: Cause,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Cause {
    Emergency,
    RapidDescent,
}

impl Cause {
    fn as_str(self) -> &'static str {
        match self {
            Cause::Emergency => "emergency",
            Cause::RapidDescent => "rapid_descent",
        }
    }
}

/// The plugin.
pub struct IncidentDesk;

impl Plugin for IncidentDesk {
    type Config = NoConfig;

    fn describe() -> Descriptor {
        Descriptor::new(
            env!("CARGO_PKG_NAME"),
            env!("CARGO_PKG_VERSION"),
            "Makes one job for a queue of the alerts of an incident, emergencies first",
        )
    }

    fn new(_: NoConfig) -> Result<Self, String> {
        Ok(IncidentDesk)
    }
}

impl Transform for IncidentDesk {
    fn process(&mut self, batch: Vec<Message>) -> Result<Outcome, Failure> {
        Ok(Outcome::each(&batch, |message, outcome| {
            outcome.emit(job(message)?);
            Ok(())
        }))
    }
}

fn job(message: &Message) -> Result<Emission, Refusal> {
    let alert: Alert = message.json()?;
    if alert.id.is_empty() {
        return Err(Refusal::reject("payload: field `id`: is empty"));
    }
    let job = Emission::new(message.payload.clone())
        .key(alert.id.as_bytes().to_vec())
        .header(UNIQUE, format!("{}/{}", alert.id, alert.alert.as_str()))
        .header(UNIQUE_FOR, INCIDENT);
    Ok(match alert.alert {
        Cause::Emergency => job.header(PRIORITY, FIRST),
        Cause::RapidDescent => job,
    })
}

tidemill_plugin::export_transform!(IncidentDesk);

#[cfg(test)]
mod tests {
    use super::*;

    fn made(payload: &str) -> Outcome {
        let message = Message {
            partition: 0,
            offset: 0,
            timestamp: 0,
            attempt: 1,
            key: Some(b"another".to_vec()),
            headers: Vec::new(),
            payload: payload.into(),
        };
        IncidentDesk.process(vec![message]).unwrap()
    }

    fn headers(emission: &Emission) -> Vec<(&str, &str)> {
        let headers = emission.headers.iter();
        headers.map(|header| (header.name.as_str(), str::from_utf8(&header.value).unwrap())).collect()
    }

    #[test]
    fn an_emergency_is_one_urgent_job_of_its_aircraft() {
        let payload = r#"{"id":"a00001","alert":"emergency","squawk":"7700"}"#;
        let outcome = made(payload);
        let [job] = outcome.emissions.as_slice() else { panic!("{outcome:?}") };
        assert_eq!(job.key.as_deref(), Some(b"a00001".as_slice()));
        assert_eq!(job.payload, payload.as_bytes());
        assert_eq!(headers(job), [(UNIQUE, "a00001/emergency"), (UNIQUE_FOR, "600"), (PRIORITY, "1")]);
    }

    #[test]
    fn a_rapid_descent_has_the_usual_priority_and_is_another_incident() {
        let outcome = made(r#"{"id":"a00001","alert":"rapid_descent"}"#);
        assert_eq!(headers(&outcome.emissions[0]), [(UNIQUE, "a00001/rapid_descent"), (UNIQUE_FOR, "600")]);
    }

    #[test]
    fn what_is_no_alert_is_refused_by_its_field() {
        for (payload, field) in [
            ("x", "payload"),
            (r#"{"id":"a00001"}"#, "alert"),
            (r#"{"id":"","alert":"emergency"}"#, "id"),
            (r#"{"id":"a00001","alert":"fire"}"#, "alert"),
        ] {
            let outcome = made(payload);
            assert!(outcome.emissions.is_empty());
            let Refusal::Reject(reason) = &outcome.refusals[0].refusal else { panic!("{outcome:?}") };
            assert!(reason.contains(field), "{reason}");
        }
    }
}
