//! The kinds of aircraft and how each of them flies.
//!
//! The figures are round ones of common types (an A320, a 757 freighter, a Cessna 182, an EC135, a C-17), good enough
//! to look right on a map.

use crate::random::Random;

/// What an aircraft is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Airliner,
    Cargo,
    Private,
    Helicopter,
    Military,
}

/// How high a kind cruises.
#[derive(Debug, Clone, Copy)]
pub enum Cruise {
    /// Feet above the sea, in steps of 1,000.
    FlightLevel(f64, f64),
    /// Feet above the higher end of the flight, in steps of 500.
    AboveGround(f64, f64),
}

/// How a kind flies. Ranges are drawn from evenly, once for each leg.
#[derive(Debug, Clone, Copy)]
pub struct Performance {
    /// Nautical miles from take-off to landing.
    pub leg_nm: (f64, f64),
    /// How many legs lead back to the first place.
    pub stops: (u64, u64),
    /// Seconds on the ground between two flights.
    pub turnaround_s: (f64, f64),
    pub cruise: Cruise,
    pub cruise_kt: (f64, f64),
    pub take_off_kt: f64,
    pub landing_kt: f64,
    /// Seconds from standstill to take-off, and from touchdown to standstill.
    pub roll_s: f64,
    /// Mean feet per minute. Climbs start at 1.5 times this, descents at 1.4 times.
    pub climb_fpm: f64,
    pub descent_fpm: f64,
    /// How far it strays from the great circle, in nautical miles, and how long one swing is.
    pub weave_nm: f64,
    pub weave_length_nm: f64,
}

impl Kind {
    /// The kinds with their shares of the fleet, in percent.
    pub const SHARES: [(Kind, u64); 5] = [
        (Kind::Airliner, 52),
        (Kind::Private, 22),
        (Kind::Cargo, 12),
        (Kind::Helicopter, 8),
        (Kind::Military, 6),
    ];

    /// A kind, as often as its share.
    pub fn draw(random: &mut Random) -> Kind {
        let mut rest = random.below(100);
        for (kind, share) in Kind::SHARES {
            if rest < share {
                return kind;
            }
            rest -= share;
        }
        Kind::Airliner
    }

    /// The name in the reports.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Airliner => "airliner",
            Kind::Cargo => "cargo",
            Kind::Private => "private",
            Kind::Helicopter => "helicopter",
            Kind::Military => "military",
        }
    }

    pub fn performance(self) -> &'static Performance {
        match self {
            Kind::Airliner => &AIRLINER,
            Kind::Cargo => &CARGO,
            Kind::Private => &PRIVATE,
            Kind::Helicopter => &HELICOPTER,
            Kind::Military => &MILITARY,
        }
    }
}

impl Cruise {
    /// An altitude in feet above the sea for a flight whose higher end is at `ground_ft`.
    pub fn draw(self, ground_ft: f64, random: &mut Random) -> f64 {
        match self {
            Cruise::FlightLevel(low, high) => (random.between((low, high)) / 1_000.0).round() * 1_000.0,
            Cruise::AboveGround(low, high) => {
                ((ground_ft + random.between((low, high))) / 500.0).round() * 500.0
            }
        }
    }
}

const AIRLINER: Performance = Performance {
    leg_nm: (220.0, 2_150.0),
    stops: (3, 6),
    turnaround_s: (480.0, 1_200.0),
    cruise: Cruise::FlightLevel(30_000.0, 39_000.0),
    cruise_kt: (430.0, 490.0),
    take_off_kt: 150.0,
    landing_kt: 138.0,
    roll_s: 35.0,
    climb_fpm: 1_900.0,
    descent_fpm: 1_700.0,
    weave_nm: 4.0,
    weave_length_nm: 150.0,
};

const CARGO: Performance = Performance {
    leg_nm: (250.0, 1_900.0),
    stops: (2, 4),
    turnaround_s: (900.0, 2_400.0),
    cruise: Cruise::FlightLevel(28_000.0, 37_000.0),
    cruise_kt: (410.0, 470.0),
    take_off_kt: 155.0,
    landing_kt: 142.0,
    roll_s: 40.0,
    climb_fpm: 1_600.0,
    descent_fpm: 1_600.0,
    ..AIRLINER
};

const PRIVATE: Performance = Performance {
    leg_nm: (45.0, 360.0),
    stops: (2, 4),
    turnaround_s: (300.0, 1_500.0),
    cruise: Cruise::AboveGround(2_500.0, 9_000.0),
    cruise_kt: (110.0, 185.0),
    take_off_kt: 65.0,
    landing_kt: 65.0,
    roll_s: 20.0,
    climb_fpm: 700.0,
    descent_fpm: 550.0,
    weave_nm: 2.0,
    weave_length_nm: 40.0,
};

const HELICOPTER: Performance = Performance {
    leg_nm: (6.0, 40.0),
    stops: (3, 5),
    turnaround_s: (90.0, 480.0),
    cruise: Cruise::AboveGround(600.0, 1_800.0),
    cruise_kt: (95.0, 145.0),
    take_off_kt: 15.0,
    landing_kt: 12.0,
    roll_s: 8.0,
    climb_fpm: 600.0,
    descent_fpm: 450.0,
    weave_nm: 0.5,
    weave_length_nm: 12.0,
};

const MILITARY: Performance = Performance {
    leg_nm: (150.0, 1_500.0),
    stops: (2, 5),
    turnaround_s: (600.0, 1_800.0),
    cruise: Cruise::FlightLevel(22_000.0, 41_000.0),
    cruise_kt: (420.0, 540.0),
    take_off_kt: 150.0,
    landing_kt: 140.0,
    roll_s: 25.0,
    climb_fpm: 4_000.0,
    descent_fpm: 2_500.0,
    weave_nm: 8.0,
    weave_length_nm: 120.0,
};
