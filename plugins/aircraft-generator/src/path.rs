//! The way of a flight over the ground: a great circle, and slow swings beside it.

use std::f64::consts::{PI, TAU};

use airports::EARTH_RADIUS_NM;

use crate::{kind::Performance, random::Random, tour::Site};

/// A great circle from one place to another.
#[derive(Debug, Clone)]
pub struct Path {
    /// Unit vectors: to the start, along the course there, and to the left of the course.
    start: [f64; 3],
    course: [f64; 3],
    left: [f64; 3],
    pub length_nm: f64,
}

/// A point of a path, in degrees.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    pub lat: f64,
    pub lon: f64,
    /// Clockwise from true north, -180 to 180.
    pub heading: f64,
}

/// Slow swings to both sides of the great circle, none at its ends.
#[derive(Debug, Clone, Copy)]
pub struct Weave {
    width_nm: f64,
    swings: f64,
    phase: f64,
}

impl Path {
    /// The two places must differ.
    pub fn new(from: Site, to: Site) -> Self {
        let start = unit_vector(from);
        let end = unit_vector(to);
        let left = normalised(cross(start, end));
        let course = cross(left, start);
        let angle = dot(course, end).atan2(dot(start, end));
        Path { start, course, left, length_nm: angle * EARTH_RADIUS_NM }
    }

    /// The point `along_nm` down the course and `left_nm` beside it, where `slope` is the change of the latter by the
    /// former.
    pub fn at(&self, along_nm: f64, left_nm: f64, slope: f64) -> Point {
        let (sin, cos) = (along_nm / EARTH_RADIUS_NM).sin_cos();
        // The offset is a few miles: its angle is its sine, and the vector's length stays 1 to 1e-5.
        let aside = left_nm / EARTH_RADIUS_NM;
        let place: [f64; 3] = std::array::from_fn(|axis| {
            self.start[axis] * cos + self.course[axis] * sin + self.left[axis] * aside
        });
        let motion: [f64; 3] = std::array::from_fn(|axis| {
            self.course[axis] * cos - self.start[axis] * sin + self.left[axis] * slope
        });
        let [x, y, z] = place;
        let axis_distance = x.hypot(y);
        let east = x * motion[1] - y * motion[0];
        let north = axis_distance * axis_distance * motion[2] - z * (x * motion[0] + y * motion[1]);
        Point {
            lat: z.atan2(axis_distance).to_degrees(),
            lon: y.atan2(x).to_degrees(),
            heading: east.atan2(north).to_degrees(),
        }
    }
}

impl Weave {
    pub fn draw(performance: &Performance, length_nm: f64, random: &mut Random) -> Self {
        Weave {
            width_nm: random.between((0.3, 1.0)) * performance.weave_nm.min(length_nm / 30.0),
            swings: (length_nm / performance.weave_length_nm).ceil(),
            phase: random.between((0.0, TAU)),
        }
    }

    /// Nautical miles to the left of the course, and their change by mile, at this share of a way of `length_nm`.
    fn at(&self, share: f64, length_nm: f64) -> (f64, f64) {
        let (envelope_sin, envelope_cos) = (share * PI).sin_cos();
        let (swing_sin, swing_cos) = (self.swings * share * TAU + self.phase).sin_cos();
        let envelope = envelope_sin * envelope_sin;
        let envelope_change = TAU * envelope_sin * envelope_cos;
        let swing_change = TAU * self.swings * swing_cos;
        let change = envelope_change * swing_sin + envelope * swing_change;
        (self.width_nm * envelope * swing_sin, self.width_nm * change / length_nm)
    }

    /// The point of `path` after `along_nm`, with the swing.
    pub fn point(&self, path: &Path, along_nm: f64) -> Point {
        let (left_nm, slope) = self.at(along_nm / path.length_nm, path.length_nm);
        path.at(along_nm, left_nm, slope)
    }
}

fn unit_vector(site: Site) -> [f64; 3] {
    let (lat_sin, lat_cos) = site.lat.to_radians().sin_cos();
    let (lon_sin, lon_cos) = site.lon.to_radians().sin_cos();
    [lat_cos * lon_cos, lat_cos * lon_sin, lat_sin]
}

fn cross(a: [f64; 3], b: [f64; 3]) -> [f64; 3] {
    [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
}

fn dot(a: [f64; 3], b: [f64; 3]) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

fn normalised(vector: [f64; 3]) -> [f64; 3] {
    let length = dot(vector, vector).sqrt();
    vector.map(|part| part / length)
}
