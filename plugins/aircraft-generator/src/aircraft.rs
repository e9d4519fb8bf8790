//! One aircraft: who it is, where it flies, and what it would report at any moment.

use crate::{
    kind::Kind,
    path::{Path, Weave},
    profile::Profile,
    random::Random,
    report::{Identity, State},
    tour::{Network, Site},
    trouble::{Squawk, Trouble},
};

/// What a stream of random numbers decides. The numbers are part of what a seed means. They are such that the default
/// fleet starts with an emergency and a rapid descent under way: whoever starts it for the first time sees an alert.
mod purpose {
    pub(super) const AIRCRAFT: u64 = 3111;
    pub(super) const PROFILE: u64 = 3112;
    pub(super) const FLIGHT: u64 = 3113;
}

/// An aircraft. All of it follows from the seed of the fleet and its index there; `flight` is only a cache.
pub struct Aircraft {
    seed: u64,
    index: u64,
    kind: Kind,
    address: u32,
    registration: String,
    legs: Vec<Leg>,
    /// Seconds into its round at the beginning of the simulation.
    phase_s: f64,
    flight: Option<Flight>,
}

/// A leg of the round, the same in every round.
struct Leg {
    from: Site,
    to: Site,
    profile: Profile,
    /// Seconds since the beginning of the round when it ends, the time on the ground after it included.
    end_s: f64,
}

/// A leg as it is flown in one round.
struct Flight {
    /// Seconds of the simulation.
    begin_s: f64,
    end_s: f64,
    leg: usize,
    path: Path,
    weave: Weave,
    trouble: Trouble,
    squawk: Squawk,
    identity: Identity,
}

impl Aircraft {
    pub fn new(seed: u64, index: u64, network: &Network) -> Self {
        let mut random = Random::named(&[seed, purpose::AIRCRAFT, index]);
        let kind = Kind::draw(&mut random);
        let sites = network.tour(kind, &mut random);
        let legs = plan_legs(&sites, kind, seed, index);
        let round_s = legs.last().map_or(0.0, |leg| leg.end_s);
        Aircraft {
            seed,
            index,
            kind,
            address: address(kind, seed, index),
            registration: registration(&mut random),
            phase_s: random.between((0.0, round_s)),
            legs,
            flight: None,
        }
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What it reports after `seconds` of the simulation.
    pub fn report(&mut self, seconds: f64) -> (&Identity, State) {
        let current = self.flight.take().filter(|flight| (flight.begin_s..flight.end_s).contains(&seconds));
        let flight = match current {
            Some(flight) => flight,
            None => self.take_off(seconds),
        };
        let profile = &self.legs[flight.leg].profile;
        let flight = self.flight.insert(flight);
        (&flight.identity, flight.state(profile, seconds))
    }

    /// The flight that is under way after `seconds`.
    fn take_off(&self, seconds: f64) -> Flight {
        let round_s = self.legs.last().map_or(1.0, |leg| leg.end_s);
        let age_s = seconds + self.phase_s;
        let round = (age_s / round_s).floor();
        let into_round_s = age_s - round * round_s;
        let leg = self.legs.iter().position(|leg| into_round_s < leg.end_s).unwrap_or(self.legs.len() - 1);
        let begin_of = |leg: usize| {
            if leg == 0 { 0.0 } else { self.legs[leg - 1].end_s }
        };
        let round_begin_s = round * round_s - self.phase_s;
        let begin_s = round_begin_s + begin_of(leg);
        let end_s = round_begin_s + self.legs[leg].end_s;
        self.fly(leg, round as u64, (begin_s, end_s))
    }

    fn fly(&self, index: usize, round: u64, (begin_s, end_s): (f64, f64)) -> Flight {
        let leg = &self.legs[index];
        let name = [self.seed, purpose::FLIGHT, self.index, round, index as u64];
        let mut random = Random::named(&name);
        let path = Path::new(leg.from, leg.to);
        let weave = Weave::draw(self.kind.performance(), path.length_nm, &mut random);
        let callsign = callsign(self.kind, &self.registration, &mut random);
        Flight {
            begin_s,
            end_s,
            leg: index,
            path,
            weave,
            trouble: Trouble::draw(&leg.profile, &mut random),
            squawk: squawk(self.kind, &mut random),
            identity: Identity::new(self.address, &callsign, self.kind.name()),
        }
    }
}

impl Flight {
    fn state(&self, profile: &Profile, seconds: f64) -> State {
        let elapsed_s = seconds - self.begin_s;
        let progress = profile.at(elapsed_s);
        let along_nm = progress.distance_nm.min(self.path.length_nm);
        let point = self.weave.point(&self.path, along_nm);
        let (drop_ft, drop_fpm) = self.trouble.drop(elapsed_s);
        State {
            lat: point.lat,
            lon: point.lon,
            altitude_ft: progress.altitude_ft - drop_ft,
            heading: point.heading,
            speed_kt: progress.speed_kt,
            vertical_fpm: progress.vertical_fpm + drop_fpm,
            squawk: self.trouble.squawk(elapsed_s).unwrap_or(self.squawk),
        }
    }
}

fn plan_legs(sites: &[Site], kind: Kind, seed: u64, index: u64) -> Vec<Leg> {
    let mut end_s = 0.0;
    let nexts = sites.iter().cycle().skip(1);
    (0..)
        .zip(sites.iter().zip(nexts))
        .map(|(number, (&from, &to))| {
            let mut random = Random::named(&[seed, purpose::PROFILE, index, number]);
            let length_nm = Path::new(from, to).length_nm;
            let elevations_ft = (from.elevation_ft, to.elevation_ft);
            let performance = kind.performance();
            let profile = Profile::draw(performance, length_nm, elevations_ft, &mut random);
            end_s += profile.duration_s + random.between(performance.turnaround_s);
            Leg { from, to, profile, end_s }
        })
        .collect()
}

/// Addresses of civil aircraft of the United States and, above them, of its armed forces.
const CIVIL: (u32, u32) = (0xa0_0001, 0xad_f7c7);
const ARMED: (u32, u32) = (0xad_f7c8, 0xaf_ffff);

/// A prime that divides the size of neither range, so that multiples of it by different indices differ.
const ADDRESS_STEP: u64 = 611_953;

/// The 24-bit address, different for each index of a fleet.
fn address(kind: Kind, seed: u64, index: u64) -> u32 {
    let (first, last) = if kind == Kind::Military { ARMED } else { CIVIL };
    let size = u64::from(last - first) + 1;
    let offset = Random::named(&[seed]).below(size);
    // Below the size, which fits.
    first + ((index * ADDRESS_STEP + offset) % size) as u32
}

fn registration(random: &mut Random) -> String {
    const LETTERS: &[u8; 24] = b"ABCDEFGHJKLMNPQRSTUVWXYZ";
    let number = 100 + random.below(900);
    let letters = [*random.pick(LETTERS), *random.pick(LETTERS)].map(char::from);
    format!("N{number}{}{}", letters[0], letters[1])
}

fn callsign(kind: Kind, registration: &str, random: &mut Random) -> String {
    let prefix = match kind {
        Kind::Airliner => random.pick(&[
            "AAL", "AAL", "AAL", "DAL", "DAL", "DAL", "UAL", "UAL", "UAL", "SWA", "SWA", "SWA", "ASA", "JBU",
            "NKS", "FFT", "SKW", "SKW", "RPA", "ENY", "EDV",
        ]),
        Kind::Cargo => random.pick(&["FDX", "FDX", "UPS", "UPS", "GTI", "ABX", "ATN"]),
        Kind::Military => random.pick(&["RCH", "RCH", "CNV", "DUKE", "HAWK", "TREK"]),
        Kind::Private | Kind::Helicopter => return registration.to_owned(),
    };
    let number = match kind {
        Kind::Military => 10 + random.below(890),
        _ => 100 + random.below(2_900),
    };
    format!("{prefix}{number}")
}

/// The code that air traffic control assigned, or 1200 for flying by sight.
fn squawk(kind: Kind, random: &mut Random) -> Squawk {
    let by_sight = match kind {
        Kind::Private => 0.7,
        Kind::Helicopter => 0.6,
        Kind::Airliner | Kind::Cargo | Kind::Military => 0.0,
    };
    if random.chance(by_sight) {
        return *b"1200";
    }
    // The first digit ends at 6: the codes of emergencies begin with 7.
    let digit = |random: &mut Random, end: u64| b'0' + random.below(end) as u8;
    [digit(random, 7), digit(random, 8), digit(random, 8), digit(random, 8)]
}
