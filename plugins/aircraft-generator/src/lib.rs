//! A producer that flies a fleet of aircraft over the continental United States and writes their position reports.
//!
//! Each aircraft is a pure function of the seed, its index and the time of the simulation ([`aircraft`]), so the
//! stored position is a few numbers that say when the next report is due ([`schedule`]). A restarted fleet goes on
//! exactly where it was. Time comes from the poll alone.
//!
//! A record: the report as JSON ([`report`]), keyed by the aircraft's address, with the time of the report.

pub mod aircraft;
pub mod config;
pub mod kind;
pub mod path;
pub mod profile;
pub mod random;
pub mod report;
pub mod schedule;
pub mod tour;
pub mod trouble;

use tidemill_plugin::{Descriptor, Emission, Failure, Plugin, Poll, Producer, Production, log};

use crate::{
    aircraft::Aircraft,
    config::{CONFIG_SCHEMA, Config},
    report::REPORT_BYTES,
    schedule::{Moment, Schedule},
    tour::Network,
};

/// The plugin.
pub struct Generator {
    rate: f64,
    fleet: Vec<Aircraft>,
    /// Where reports are written before they are copied to their exact size.
    line: Vec<u8>,
}

impl Plugin for Generator {
    type Config = Config;

    fn describe() -> Descriptor {
        Descriptor::new(
            env!("CARGO_PKG_NAME"),
            env!("CARGO_PKG_VERSION"),
            "Flies a fleet of aircraft over the continental United States and reports their positions",
        )
        .config_schema(CONFIG_SCHEMA)
    }

    fn new(config: Config) -> Result<Self, String> {
        let Config { aircraft, rate, seed } = config.check()?;
        let network = Network::measure();
        Ok(Generator {
            rate,
            fleet: (0..u64::from(aircraft)).map(|index| Aircraft::new(seed, index, &network)).collect(),
            line: Vec::with_capacity(REPORT_BYTES),
        })
    }
}

impl Producer for Generator {
    fn produce(&mut self, poll: Poll) -> Result<Production, Failure> {
        let now = poll.now;
        let mut schedule = self.schedule(&poll)?;
        let mut emissions = Vec::new();
        let mut complete = false;
        while emissions.len() < poll.max_records as usize {
            let Some(moment) = schedule.take(now) else {
                complete = true;
                break;
            };
            emissions.push(self.emit(&mut schedule, moment));
        }
        Ok(Production {
            emissions,
            next: if complete { schedule.next_call(now, poll.max_records) } else { now },
            position: schedule.to_bytes(),
        })
    }
}

impl Generator {
    fn schedule(&self, poll: &Poll) -> Result<Schedule, Failure> {
        let Some(position) = &poll.position else {
            return Ok(Schedule::start(poll.now, self.rate));
        };
        let mut schedule = Schedule::from_bytes(position).ok_or_else(|| {
            Failure::fatal(
                "the stored position is not one of this version of the plugin; \
                 go back to the version that wrote it or remove the position to start anew",
            )
        })?;
        if let Some(lag) = schedule.resume(poll.now, self.rate) {
            log::info(format_args!(
                "the clock moved {} ms away from the fleet, which goes on from where it was",
                lag / 1_000
            ));
        }
        Ok(schedule)
    }

    /// The next aircraft's report.
    fn emit(&mut self, schedule: &mut Schedule, moment: Moment) -> Emission {
        let index = schedule.next_aircraft as usize % self.fleet.len();
        // The fleet is far smaller than the type.
        schedule.next_aircraft = ((index + 1) % self.fleet.len()) as u32;
        let seconds = moment.simulated as f64 / 1e6;
        let (identity, state) = self.fleet[index].report(seconds);
        let ts = moment.due.div_euclid(1_000);
        identity.write(&state, ts, &mut self.line);
        Emission::new(self.line.as_slice()).key(identity.id.as_bytes().to_vec()).at(ts * 1_000)
    }
}

tidemill_plugin::export_producer!(Generator);
