//! Where an aircraft flies: a closed round of places, flown again and again.
//!
//! A round has a fixed length in time, so the flight that is under way at any moment follows from the moment alone,
//! with nothing to remember from earlier flights.

use airports::{AIRPORTS, Airport, EARTH_RADIUS_NM, distance_nm};

use crate::{
    kind::{Kind, Performance},
    path::Path,
    random::Random,
};

/// No flight leads further north: the great circles between northern cities would cross into Canada.
const NORTHERN_LIMIT: f64 = 49.0;

/// How often a round is tried before the plain one is taken. Of 100,000 aircraft none needed more than 10.
const ATTEMPTS: usize = 64;

/// How often the next place of a round is drawn before the round is given up.
const DRAWS: usize = 40;

/// A place to take off from and to land at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Site {
    pub lat: f64,
    pub lon: f64,
    pub elevation_ft: f64,
}

/// The airports and what lies between each two of them.
pub struct Network {
    /// Nautical miles; infinite where the great circle leaves the map.
    distances: Vec<f64>,
}

impl Network {
    pub fn measure() -> Self {
        let pairs = AIRPORTS.iter().flat_map(|from| AIRPORTS.iter().map(move |to| route_nm(from, to)));
        Network { distances: pairs.collect() }
    }

    /// The round of an aircraft: at least two places, each within the kind's range of the next.
    pub fn tour(&self, kind: Kind, random: &mut Random) -> Vec<Site> {
        let performance = kind.performance();
        if kind == Kind::Helicopter {
            return circuit(performance, random);
        }
        let stops = performance.stops;
        for _ in 0..ATTEMPTS {
            let count = stops.0 + random.below(stops.1 - stops.0 + 1);
            if let Some(round) = self.round(kind, count as usize, random) {
                return round.into_iter().map(|index| Site::from(&AIRPORTS[index])).collect();
            }
        }
        // Two busy airports 500 nm apart: in the range of every kind but the private, for which it is merely long.
        vec![Site::from(&AIRPORTS[0]), Site::from(&AIRPORTS[2])]
    }

    fn round(&self, kind: Kind, count: usize, random: &mut Random) -> Option<Vec<usize>> {
        let mut round = vec![draw(kind, random)];
        while round.len() < count {
            let last = *round.last()?;
            let next =
                (0..DRAWS).map(|_| draw(kind, random)).find(|&next| self.in_range(last, next, kind))?;
            round.push(next);
        }
        let closes = self.in_range(*round.last()?, *round.first()?, kind);
        closes.then_some(round)
    }

    fn in_range(&self, from: usize, to: usize, kind: Kind) -> bool {
        let (least, most) = kind.performance().leg_nm;
        (least..=most).contains(&self.distances[from * AIRPORTS.len() + to])
    }
}

impl From<&Airport> for Site {
    fn from(airport: &Airport) -> Self {
        Site { lat: airport.lat, lon: airport.lon, elevation_ft: airport.elevation_ft }
    }
}

fn route_nm(from: &Airport, to: &Airport) -> f64 {
    let length = distance_nm((from.lat, from.lon), (to.lat, to.lon));
    if length == 0.0 {
        return f64::INFINITY;
    }
    let path = Path::new(Site::from(from), Site::from(to));
    let northernmost = (1..8)
        .map(|part| path.at(length * f64::from(part) / 8.0, 0.0, 0.0).lat)
        .fold(from.lat.max(to.lat), f64::max);
    if northernmost < NORTHERN_LIMIT { length } else { f64::INFINITY }
}

/// An airport that suits the kind: airlines and freight prefer the busy ones, the military its bases.
fn draw(kind: Kind, random: &mut Random) -> usize {
    loop {
        let index = random.below(AIRPORTS.len() as u64) as usize;
        let airport = &AIRPORTS[index];
        let suits = match kind {
            Kind::Military => airport.is_base(),
            Kind::Private | Kind::Helicopter => !airport.is_base(),
            Kind::Airliner | Kind::Cargo => random.below(5) < u64::from(airport.traffic),
        };
        if suits {
            return index;
        }
    }
}

/// A helicopter's round: from an airport to places around it.
fn circuit(performance: &Performance, random: &mut Random) -> Vec<Site> {
    let home = Site::from(&AIRPORTS[draw(Kind::Helicopter, random)]);
    let count = performance.stops.0 + random.below(performance.stops.1 - performance.stops.0 + 1);
    // A third of a turn or more between two places, so that they are never too close together.
    let first_bearing = random.between((0.0, 360.0));
    let mut round = vec![home];
    for stop in 1..count {
        let bearing = first_bearing + 130.0 * stop as f64;
        let radius_nm = random.between((8.0, 19.0));
        round.push(around(home, bearing, radius_nm));
    }
    round
}

fn around(home: Site, bearing: f64, radius_nm: f64) -> Site {
    let (sin, cos) = bearing.to_radians().sin_cos();
    let degrees = (radius_nm / EARTH_RADIUS_NM).to_degrees();
    Site {
        lat: home.lat + degrees * cos,
        lon: home.lon + degrees * sin / home.lat.to_radians().cos(),
        elevation_ft: home.elevation_ft,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_are_within_the_range_of_their_kind() {
        let network = Network::measure();
        for (kind, _) in Kind::SHARES {
            let (least, most) = kind.performance().leg_nm;
            for number in 0..500 {
                let round = network.tour(kind, &mut Random::named(&[number]));
                assert!(round.len() >= 2);
                for (from, to) in round.iter().zip(round.iter().cycle().skip(1)) {
                    let length = distance_nm((from.lat, from.lon), (to.lat, to.lon));
                    assert!((least..=most).contains(&length), "{kind:?}: {length} nm");
                }
            }
        }
    }

    #[test]
    fn no_route_leads_over_canada() {
        let index = |code| AIRPORTS.iter().position(|airport| airport.code == code);
        let (seattle, boston) = (index("KSEA").unwrap(), index("KBOS").unwrap());
        let network = Network::measure();
        assert!(!network.in_range(seattle, boston, Kind::Airliner));
    }
}
