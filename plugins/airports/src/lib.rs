//! Airports of the continental United States, and distances on the globe.
//!
//! Positions are the airports' reference points to 1e-4 degrees, elevations are feet above the sea. `traffic` ranks
//! civil airports from 1 (regional) to 5 (the busiest); it is a rough figure for weighting, not a statistic.

/// Nautical miles in the Earth's mean radius (6,371.0088 km).
pub const EARTH_RADIUS_NM: f64 = 3_440.069;

/// An airport or an air base.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Airport {
    /// The ICAO code.
    pub code: &'static str,
    /// Degrees north.
    pub lat: f64,
    /// Degrees east: negative here.
    pub lon: f64,
    /// Feet above the sea.
    pub elevation_ft: f64,
    /// 1 to 5 for civil airports, 0 for air bases.
    pub traffic: u8,
}

impl Airport {
    /// Whether airlines fly many people here: the upper two thirds of the table.
    #[must_use]
    pub fn is_major(&self) -> bool {
        self.traffic >= 2
    }

    /// Whether it is an air base.
    #[must_use]
    pub fn is_base(&self) -> bool {
        self.traffic == 0
    }
}

/// The great-circle distance between two points given in degrees, in nautical miles.
///
/// The haversine formula, which keeps its precision for points close together.
#[must_use]
pub fn distance_nm(from: (f64, f64), to: (f64, f64)) -> f64 {
    let (lat_1, lat_2) = (from.0.to_radians(), to.0.to_radians());
    let half_lat = ((lat_2 - lat_1) / 2.0).sin();
    let half_lon = ((to.1 - from.1).to_radians() / 2.0).sin();
    let h = half_lat * half_lat + lat_1.cos() * lat_2.cos() * half_lon * half_lon;
    2.0 * EARTH_RADIUS_NM * h.sqrt().min(1.0).asin()
}

/// The direction in which the great circle from one point to another begins: degrees clockwise from north, 0 to 360.
#[must_use]
pub fn bearing_deg(from: (f64, f64), to: (f64, f64)) -> f64 {
    let (lat_1, lat_2) = (from.0.to_radians(), to.0.to_radians());
    let lon = (to.1 - from.1).to_radians();
    let east = lon.sin() * lat_2.cos();
    let north = lat_1.cos() * lat_2.sin() - lat_1.sin() * lat_2.cos() * lon.cos();
    east.atan2(north).to_degrees().rem_euclid(360.0)
}

const fn civil(code: &'static str, lat: f64, lon: f64, elevation_ft: f64, traffic: u8) -> Airport {
    Airport { code, lat, lon, elevation_ft, traffic }
}

const fn base(code: &'static str, lat: f64, lon: f64, elevation_ft: f64) -> Airport {
    civil(code, lat, lon, elevation_ft, 0)
}

/// Civil airports first, then air bases.
pub static AIRPORTS: [Airport; 89] = [
    civil("KATL", 33.6407, -84.4277, 1026.0, 5),
    civil("KLAX", 33.9416, -118.4085, 128.0, 5),
    civil("KORD", 41.9742, -87.9073, 680.0, 5),
    civil("KDFW", 32.8998, -97.0403, 607.0, 5),
    civil("KDEN", 39.8561, -104.6737, 5434.0, 5),
    civil("KJFK", 40.6413, -73.7781, 13.0, 5),
    civil("KSFO", 37.6213, -122.379, 13.0, 4),
    civil("KSEA", 47.4502, -122.3088, 433.0, 4),
    civil("KLAS", 36.084, -115.1537, 2181.0, 4),
    civil("KMCO", 28.4312, -81.3081, 96.0, 4),
    civil("KEWR", 40.6895, -74.1745, 18.0, 4),
    civil("KCLT", 35.2144, -80.9473, 748.0, 4),
    civil("KPHX", 33.4352, -112.0101, 1135.0, 4),
    civil("KIAH", 29.9902, -95.3368, 97.0, 4),
    civil("KMIA", 25.7959, -80.287, 9.0, 4),
    civil("KBOS", 42.3656, -71.0096, 20.0, 4),
    civil("KMSP", 44.8848, -93.2223, 841.0, 4),
    civil("KFLL", 26.0742, -80.1506, 9.0, 3),
    civil("KDTW", 42.2162, -83.3554, 645.0, 3),
    civil("KPHL", 39.8744, -75.2424, 36.0, 3),
    civil("KLGA", 40.7769, -73.874, 21.0, 3),
    civil("KBWI", 39.1774, -76.6684, 146.0, 3),
    civil("KSLC", 40.7899, -111.9791, 4227.0, 3),
    civil("KSAN", 32.7338, -117.1933, 17.0, 3),
    civil("KIAD", 38.9531, -77.4565, 312.0, 3),
    civil("KDCA", 38.8512, -77.0402, 15.0, 3),
    civil("KMDW", 41.7868, -87.7522, 620.0, 3),
    civil("KTPA", 27.9755, -82.5332, 26.0, 3),
    civil("KPDX", 45.5898, -122.5951, 31.0, 3),
    civil("KSTL", 38.7487, -90.37, 618.0, 2),
    civil("KBNA", 36.1263, -86.6774, 599.0, 3),
    civil("KAUS", 30.1975, -97.6664, 542.0, 2),
    civil("KHOU", 29.6454, -95.2789, 46.0, 2),
    civil("KOAK", 37.7126, -122.2197, 9.0, 2),
    civil("KSJC", 37.3639, -121.9289, 62.0, 2),
    civil("KRDU", 35.8801, -78.788, 435.0, 2),
    civil("KMSY", 29.9911, -90.2592, 4.0, 2),
    civil("KSMF", 38.6951, -121.5908, 27.0, 2),
    civil("KSNA", 33.6762, -117.8675, 56.0, 2),
    civil("KDAL", 32.8471, -96.8518, 487.0, 2),
    civil("KMCI", 39.2976, -94.7139, 1026.0, 2),
    civil("KSAT", 29.5337, -98.4698, 809.0, 2),
    civil("KCLE", 41.4117, -81.8498, 791.0, 2),
    civil("KPIT", 40.4915, -80.2329, 1203.0, 2),
    civil("KIND", 39.7173, -86.2944, 797.0, 2),
    civil("KCVG", 39.0488, -84.6678, 896.0, 2),
    civil("KCMH", 39.998, -82.8919, 815.0, 2),
    civil("KJAX", 30.4941, -81.6879, 30.0, 1),
    civil("KMKE", 42.9472, -87.8966, 723.0, 1),
    civil("KABQ", 35.0402, -106.609, 5355.0, 1),
    civil("KOMA", 41.3032, -95.8941, 984.0, 1),
    civil("KMEM", 35.0424, -89.9767, 341.0, 3),
    civil("KSDF", 38.1744, -85.736, 501.0, 3),
    civil("KOKC", 35.3931, -97.6007, 1295.0, 1),
    civil("KBOI", 43.5644, -116.2228, 2871.0, 1),
    civil("KTUL", 36.1984, -95.8881, 677.0, 1),
    civil("KBUF", 42.9405, -78.7322, 728.0, 1),
    civil("KPWM", 43.6462, -70.3093, 76.0, 1),
    civil("KGEG", 47.6199, -117.5338, 2376.0, 1),
    civil("KBIL", 45.8077, -108.5428, 3652.0, 1),
    civil("KFAR", 46.9207, -96.8158, 902.0, 1),
    civil("KTUS", 32.1161, -110.941, 2643.0, 1),
    civil("KELP", 31.8072, -106.3776, 3959.0, 1),
    civil("KRNO", 39.4991, -119.7681, 4415.0, 1),
    civil("KICT", 37.6499, -97.4331, 1333.0, 1),
    civil("KLIT", 34.7294, -92.2243, 262.0, 1),
    civil("KBHM", 33.5629, -86.7535, 650.0, 1),
    civil("KCHS", 32.8986, -80.0405, 46.0, 1),
    civil("KDSM", 41.534, -93.6631, 958.0, 1),
    civil("KFSD", 43.582, -96.7419, 1429.0, 1),
    civil("KRAP", 44.0453, -103.0574, 3204.0, 1),
    civil("KBZN", 45.7775, -111.153, 4473.0, 1),
    base("KEDW", 34.9054, -117.8837, 2310.0),
    base("KLSV", 36.2362, -115.0343, 1870.0),
    base("KDOV", 39.1295, -75.466, 24.0),
    base("KADW", 38.8108, -76.8669, 280.0),
    base("KSUU", 38.2627, -121.9275, 62.0),
    base("KTCM", 47.1377, -122.4765, 322.0),
    base("KOFF", 41.1183, -95.9125, 1052.0),
    base("KBAD", 32.5018, -93.6627, 166.0),
    base("KDYS", 32.4208, -99.8546, 1789.0),
    base("KNIP", 30.2358, -81.6806, 22.0),
    base("KNGU", 36.9376, -76.2893, 17.0),
    base("KMCF", 27.8493, -82.5212, 14.0),
    base("KHMN", 32.8525, -106.1065, 4093.0),
    base("KMUO", 43.0436, -115.8724, 2996.0),
    base("KRCA", 44.145, -103.1036, 3276.0),
    base("KWRI", 40.0156, -74.5917, 131.0),
    base("KFFO", 39.8261, -84.0483, 823.0),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn at(code: &str) -> (f64, f64) {
        let airport = AIRPORTS.iter().find(|a| a.code == code).unwrap();
        (airport.lat, airport.lon)
    }

    #[test]
    fn codes_are_unique_and_positions_are_in_the_continental_us() {
        let codes: BTreeSet<_> = AIRPORTS.iter().map(|a| a.code).collect();
        assert_eq!(codes.len(), AIRPORTS.len());
        for airport in &AIRPORTS {
            assert!((25.0..48.5).contains(&airport.lat), "{}", airport.code);
            assert!((-123.5..-69.0).contains(&airport.lon), "{}", airport.code);
            assert!((0.0..6_000.0).contains(&airport.elevation_ft), "{}", airport.code);
        }
    }

    #[test]
    fn bearings_turn_clockwise_from_north() {
        let from = (40.0, -100.0);
        for (to, bearing) in [((41.0, -100.0), 0.0), ((39.0, -100.0), 180.0)] {
            assert!((bearing_deg(from, to) - bearing).abs() < 1e-9);
        }
        // Along a parallel the great circle begins a little to the pole's side.
        assert!((bearing_deg(from, (40.0, -99.0)) - 89.7).abs() < 0.1);
        assert!((bearing_deg(from, (40.0, -101.0)) - 270.3).abs() < 0.1);
    }

    #[test]
    fn distances_are_those_of_the_flight_planners() {
        // Great-circle distances as published for these pairs, to a third of a percent (the Earth is not a sphere).
        for (from, to, nm) in [("KJFK", "KLAX", 2_150.0), ("KATL", "KORD", 526.0), ("KSEA", "KMIA", 2_363.0)]
        {
            let measured = distance_nm(at(from), at(to));
            assert!((measured - nm).abs() < nm / 300.0, "{from}-{to}: {measured}");
        }
        assert_eq!(distance_nm(at("KDEN"), at("KDEN")), 0.0);
    }
}
