//! Speed and height along a flight, as functions of the seconds since it began to roll.
//!
//! In closed form: no step depends on an earlier one, so any moment of a flight can be told at once.

use crate::{kind::Performance, random::Random};

const SECONDS_PER_HOUR: f64 = 3_600.0;

/// A flight too short for its cruise level climbs only so high that climb and descent take this share of the way.
const LONGEST_RAMPS: f64 = 0.85;

/// Speed and height along a flight: roll, climb, cruise, descend, brake.
#[derive(Debug, Clone)]
pub struct Profile {
    phases: [Phase; 5],
    /// Seconds from the start of the roll to standstill.
    pub duration_s: f64,
    pub cruise_ft: f64,
    from_ft: f64,
    to_ft: f64,
}

/// A part of a flight in which the speed changes evenly.
#[derive(Debug, Clone, Copy)]
struct Phase {
    stage: Stage,
    begin_s: f64,
    begin_nm: f64,
    duration_s: f64,
    begin_kt: f64,
    end_kt: f64,
}

/// The parts of a flight, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Roll,
    Climb,
    Cruise,
    Descent,
    Brake,
}

/// Where a flight is along its path.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    pub distance_nm: f64,
    pub speed_kt: f64,
    pub altitude_ft: f64,
    pub vertical_fpm: f64,
}

impl Profile {
    /// Plans a flight of `length_nm` between two elevations.
    pub fn draw(
        performance: &Performance,
        length_nm: f64,
        elevations_ft: (f64, f64),
        random: &mut Random,
    ) -> Self {
        let ground_ft = elevations_ft.0.max(elevations_ft.1);
        let cruise_kt = random.between(performance.cruise_kt);
        let cruise_ft = performance.cruise.draw(ground_ft, random);
        let mut profile = Profile::plan(performance, length_nm, elevations_ft, cruise_kt, cruise_ft);
        let ramps_nm = profile.ramps_nm();
        let room_nm = length_nm * LONGEST_RAMPS;
        if ramps_nm > room_nm {
            let lower_ft = ground_ft + (cruise_ft - ground_ft) * room_nm / ramps_nm;
            let lower_ft = (lower_ft / 500.0).floor() * 500.0;
            let lower_ft = lower_ft.max(ground_ft + 300.0);
            profile = Profile::plan(performance, length_nm, elevations_ft, cruise_kt, lower_ft);
        }
        profile
    }

    fn plan(
        performance: &Performance,
        length_nm: f64,
        elevations_ft: (f64, f64),
        cruise_kt: f64,
        cruise_ft: f64,
    ) -> Self {
        let (from_ft, to_ft) = elevations_ft;
        let (take_off_kt, landing_kt) = (performance.take_off_kt, performance.landing_kt);
        let climb_s = (cruise_ft - from_ft) / performance.climb_fpm * 60.0;
        let descent_s = (cruise_ft - to_ft) / performance.descent_fpm * 60.0;
        let mut phases = [
            Phase::new(Stage::Roll, performance.roll_s, 0.0, take_off_kt),
            Phase::new(Stage::Climb, climb_s, take_off_kt, cruise_kt),
            Phase::new(Stage::Cruise, 0.0, cruise_kt, cruise_kt),
            Phase::new(Stage::Descent, descent_s, cruise_kt, landing_kt),
            Phase::new(Stage::Brake, performance.roll_s, landing_kt, 0.0),
        ];
        let rest_nm = length_nm - phases.iter().map(Phase::length_nm).sum::<f64>();
        phases[2].duration_s = rest_nm.max(0.0) / cruise_kt * SECONDS_PER_HOUR;
        let (mut begin_s, mut begin_nm) = (0.0, 0.0);
        for phase in &mut phases {
            (phase.begin_s, phase.begin_nm) = (begin_s, begin_nm);
            begin_s += phase.duration_s;
            begin_nm += phase.length_nm();
        }
        Profile { phases, duration_s: begin_s, cruise_ft, from_ft, to_ft }
    }

    /// Seconds after the start between which it cruises.
    pub fn cruise_s(&self) -> (f64, f64) {
        (self.phases[2].begin_s, self.phases[3].begin_s)
    }

    /// Seconds after the start between which it is off the ground.
    pub fn airborne_s(&self) -> (f64, f64) {
        (self.phases[1].begin_s, self.phases[4].begin_s)
    }

    /// Where it is after `seconds`; at its end after that.
    pub fn at(&self, seconds: f64) -> Progress {
        let seconds = seconds.min(self.duration_s);
        let started = |phase: &&Phase| phase.begin_s <= seconds;
        let phase = self.phases.iter().rfind(started).unwrap_or(&self.phases[0]);
        let elapsed_s = (seconds - phase.begin_s).min(phase.duration_s);
        let share = if phase.duration_s > 0.0 { elapsed_s / phase.duration_s } else { 1.0 };
        let (altitude_ft, vertical_fpm) = self.height(phase, share);
        let speed_kt = phase.begin_kt * (1.0 - share) + phase.end_kt * share;
        Progress {
            distance_nm: phase.begin_nm + (phase.begin_kt + speed_kt) / 2.0 * elapsed_s / SECONDS_PER_HOUR,
            speed_kt,
            altitude_ft,
            vertical_fpm,
        }
    }

    /// Climbs slow down towards the top, descents towards the ground.
    fn height(&self, phase: &Phase, share: f64) -> (f64, f64) {
        let minutes = phase.duration_s / 60.0;
        match phase.stage {
            Stage::Roll => (self.from_ft, 0.0),
            Stage::Climb => {
                let gain_ft = self.cruise_ft - self.from_ft;
                (self.from_ft + gain_ft * share * (1.5 - 0.5 * share), gain_ft * (1.5 - share) / minutes)
            }
            Stage::Cruise => (self.cruise_ft, 0.0),
            Stage::Descent => {
                let loss_ft = self.cruise_ft - self.to_ft;
                let rest = 1.0 - share;
                (self.to_ft + loss_ft * rest * (0.6 + 0.4 * rest), -loss_ft * (0.6 + 0.8 * rest) / minutes)
            }
            Stage::Brake => (self.to_ft, 0.0),
        }
    }

    fn ramps_nm(&self) -> f64 {
        let ramps = self.phases.iter().filter(|phase| phase.stage != Stage::Cruise);
        ramps.map(Phase::length_nm).sum()
    }
}

impl Phase {
    fn new(stage: Stage, duration_s: f64, begin_kt: f64, end_kt: f64) -> Self {
        Phase { stage, begin_s: 0.0, begin_nm: 0.0, duration_s, begin_kt, end_kt }
    }

    fn length_nm(&self) -> f64 {
        (self.begin_kt + self.end_kt) / 2.0 * self.duration_s / SECONDS_PER_HOUR
    }
}
