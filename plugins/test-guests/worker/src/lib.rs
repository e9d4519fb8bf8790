//! A worker that does with each job what the job's payload asks for, for the tests of what runs workers.
//!
//! A payload is a JSON object such as `{"do":"retry","ms":5}`; any other payload is done, without a result.
//!
//! | `do` | does |
//! | --- | --- |
//! | `done` | is done; `result`, if there is one, is the result |
//! | `slow` | sleeps for `ms`, then is done |
//! | `retry` | fails this attempt, to come again after `ms`, or as the queue says |
//! | `snooze` | comes again after `ms`, which is no attempt |
//! | `reject`, `cancel` | ends so |
//! | `trap` | panics |
//! | `spin` | never returns |
//! | `hog` | takes a gibibyte of memory |
//! | `no-verdict` | answers with one verdict too few |
//! | `stray-port`, `stray-input` | is done, and emits to a port or from a job that is not there |
//! | `fail`, `fatal` | fails the whole call, to be tried again or for good |
//!
//! With `"until": 3` it is done from the third attempt on. With `{"emit": true}` as its configuration each job that is
//! done emits its payload under its key, with its number in the header `job` and its attempt in `attempt`.

use std::{thread, time::Duration};

use serde::Deserialize;
use tidemill_plugin::{Descriptor, Emission, Failure, Job, Plugin, Verdict, WorkOutcome, Worker};

const CONFIG_SCHEMA: &str = r#"{
  "type": "object",
  "additionalProperties": false,
  "properties": { "emit": { "type": "boolean", "default": false } }
}"#;

const MIB: usize = 1 << 20;
const GIB: usize = 1 << 30;

/// The configuration.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    emit: bool,
}

/// What a payload asks for.
#[derive(Debug, Deserialize)]
struct Task {
    #[serde(rename = "do")]
    what: What,
    ms: Option<u64>,
    result: Option<String>,
    /// The attempt from which on it is done.
    until: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum What {
    Done,
    Slow,
    Retry,
    Snooze,
    Reject,
    Cancel,
    Trap,
    Spin,
    Hog,
    NoVerdict,
    StrayPort,
    StrayInput,
    Fail,
    Fatal,
}

/// The plugin.
pub struct TestWorker {
    emit: bool,
}

impl Plugin for TestWorker {
    type Config = Config;

    fn describe() -> Descriptor {
        Descriptor::new(
            env!("CARGO_PKG_NAME"),
            env!("CARGO_PKG_VERSION"),
            "Does with each job what it asks for",
        )
        .config_schema(CONFIG_SCHEMA)
    }

    fn new(config: Config) -> Result<Self, String> {
        Ok(TestWorker { emit: config.emit })
    }
}

impl Worker for TestWorker {
    fn work(&mut self, batch: Vec<Job>) -> Result<WorkOutcome, Failure> {
        let mut outcome = WorkOutcome { verdicts: Vec::with_capacity(batch.len()), emissions: Vec::new() };
        for (input, job) in (0..).zip(&batch) {
            let task = Task::of(job);
            match task.what {
                What::Fail => return Err(Failure::retry("asked to fail", task.micros())),
                What::Fatal => return Err(Failure::fatal("asked to give up")),
                What::NoVerdict => continue,
                What::StrayPort => {
                    outcome.emissions.push(Emission::new("x").port("nowhere").from_input(input))
                }
                What::StrayInput => outcome.emissions.push(Emission::new("x").from_input(u32::MAX)),
                _ => {}
            }
            let verdict = task.run(job);
            if self.emit && matches!(verdict, Verdict::Done(_)) {
                outcome.emissions.push(emission(job).from_input(input));
            }
            outcome.verdicts.push(verdict);
        }
        Ok(outcome)
    }
}

fn emission(job: &Job) -> Emission {
    Emission::new(job.payload.clone())
        .key(job.key.clone())
        .header("job", job.id.to_string())
        .header("attempt", job.attempt.to_string())
}

impl Task {
    /// What the job asks for in this attempt.
    fn of(job: &Job) -> Self {
        let done = Task { what: What::Done, ms: None, result: None, until: None };
        match serde_json::from_slice::<Task>(&job.payload) {
            Ok(task) if task.until.is_some_and(|until| job.attempt >= until) => {
                Task { what: What::Done, ..task }
            }
            Ok(task) => task,
            Err(_) => done,
        }
    }

    fn micros(&self) -> Option<u64> {
        self.ms.map(|ms| ms * 1_000)
    }

    fn run(self, job: &Job) -> Verdict {
        match self.what {
            What::Retry => Verdict::retry("asked to retry", self.micros()),
            What::Snooze => Verdict::Snooze(self.micros().unwrap_or(0)),
            What::Reject => Verdict::reject("asked to reject"),
            What::Cancel => Verdict::cancel("asked to cancel"),
            What::Trap => panic!("asked to trap by job {}", job.id),
            What::Spin => loop {
                std::hint::spin_loop();
            },
            What::Hog => {
                let hoard: Vec<Vec<u8>> = (0..GIB / MIB).map(|_| vec![1; MIB]).collect();
                std::hint::black_box(hoard);
                Verdict::done()
            }
            What::Slow => {
                thread::sleep(Duration::from_millis(self.ms.unwrap_or(0)));
                Verdict::Done(self.result.map(String::into_bytes))
            }
            _ => Verdict::Done(self.result.map(String::into_bytes)),
        }
    }
}

tidemill_plugin::export_worker!(TestWorker);

#[cfg(test)]
mod tests {
    use super::*;

    fn job(payload: &str, attempt: u32) -> Job {
        Job {
            id: 7,
            attempt,
            max_attempts: 3,
            priority: 2,
            key: Some(b"k".to_vec()),
            headers: Vec::new(),
            enqueued: 0,
            payload: payload.into(),
        }
    }

    fn verdict(payload: &str, attempt: u32) -> Verdict {
        let outcome = TestWorker { emit: false }.work(vec![job(payload, attempt)]).unwrap();
        outcome.verdicts.into_iter().next().unwrap()
    }

    #[test]
    fn a_job_gets_the_verdict_that_it_asks_for() {
        assert_eq!(verdict("anything", 1), Verdict::Done(None));
        assert_eq!(verdict(r#"{"do":"done","result":"r"}"#, 1), Verdict::Done(Some(b"r".to_vec())));
        assert_eq!(verdict(r#"{"do":"retry","ms":5}"#, 1), Verdict::retry("asked to retry", Some(5_000)));
        assert_eq!(verdict(r#"{"do":"snooze","ms":5}"#, 1), Verdict::Snooze(5_000));
        assert_eq!(verdict(r#"{"do":"reject"}"#, 1), Verdict::reject("asked to reject"));
        assert_eq!(verdict(r#"{"do":"trap","until":2}"#, 2), Verdict::Done(None));
    }

    #[test]
    #[should_panic(expected = "asked to trap by job 7")]
    fn it_traps_when_asked() {
        verdict(r#"{"do":"trap","until":2}"#, 1);
    }

    #[test]
    fn only_what_is_done_is_emitted_and_names_its_job() {
        let mut worker = TestWorker { emit: true };
        let batch = vec![job(r#"{"do":"reject"}"#, 1), job("x", 2)];
        let outcome = worker.work(batch).unwrap();
        assert_eq!(outcome.emissions.len(), 1);
        let emission = &outcome.emissions[0];
        assert_eq!((emission.input, emission.payload.as_slice()), (Some(1), b"x".as_slice()));
        assert_eq!(emission.headers[0].value, b"7");
        assert_eq!(emission.headers[1].value, b"2");
    }

    #[test]
    fn a_missing_verdict_and_failures_come_when_asked() {
        let mut worker = TestWorker { emit: false };
        let outcome = worker.work(vec![job("x", 1), job(r#"{"do":"no-verdict"}"#, 1)]).unwrap();
        assert_eq!(outcome.verdicts.len(), 1);
        assert!(matches!(worker.work(vec![job(r#"{"do":"fatal"}"#, 1)]), Err(Failure::Fatal(_))));
        assert!(matches!(worker.work(vec![job(r#"{"do":"fail"}"#, 1)]), Err(Failure::Retry(_))));
    }
}
