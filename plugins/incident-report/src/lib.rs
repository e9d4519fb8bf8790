//! Writes a report on an incident: where it is, seen from the nearest airport.
//!
//! A job is an alert of `flight-watch`. The report is the result of the job, and goes to the port `default` under the
//! aircraft's key, so the two are one commit. What is no alert is rejected: another attempt would not help.

mod report;

use tidemill_plugin::{Descriptor, Emission, Failure, Job, NoConfig, Plugin, Verdict, WorkOutcome, Worker};

use crate::report::{Alert, Report};

/// The plugin.
pub struct IncidentReport;

impl Plugin for IncidentReport {
    type Config = NoConfig;

    fn describe() -> Descriptor {
        Descriptor::new(
            env!("CARGO_PKG_NAME"),
            env!("CARGO_PKG_VERSION"),
            "Reports where an aircraft in trouble is, seen from the nearest airport",
        )
    }

    fn new(_: NoConfig) -> Result<Self, String> {
        Ok(IncidentReport)
    }
}

impl Worker for IncidentReport {
    fn work(&mut self, batch: Vec<Job>) -> Result<WorkOutcome, Failure> {
        Ok(WorkOutcome::each(&batch, |job, emissions| {
            let alert: Alert = job.json()?;
            let report = Report::on(&alert).map_err(Verdict::reject)?;
            emissions.push(Emission::json(&report)?.key(alert.id.as_bytes().to_vec()));
            Verdict::result(&report)
        }))
    }
}

tidemill_plugin::export_worker!(IncidentReport);
