//! What goes wrong in flight, rarely: emergencies, which the crew announce by their squawk, and rapid descents.

use crate::{profile::Profile, random::Random};

/// A transponder code: four octal digits.
pub type Squawk = [u8; 4];

/// Hijacked, radio failed, any other emergency; with their shares in percent.
const EMERGENCIES: [(Squawk, u64); 3] = [(*b"7500", 4), (*b"7600", 26), (*b"7700", 70)];

/// How long an emergency lasts, in seconds.
const EMERGENCY_S: (f64, f64) = (180.0, 480.0);

/// Out of all aircraft in the air, so many are in an emergency at a time, besides those that descend rapidly.
const EMERGENCY_SHARE: f64 = 0.7 / 500.0;

/// A rapid descent happens once in so many seconds of flight to an aircraft that flies high enough (60 hours).
const DIVE_EVERY_S: f64 = 216_000.0;

/// Rapid descents start above this and end at about 11,000 ft, where one can breathe.
const DIVE_ABOVE_FT: f64 = 22_000.0;
const DIVE_TO_FT: f64 = 11_000.0;
/// Mean feet per minute on the way down; the steepest moment has 1.5 times as much.
const DIVE_FPM: (f64, f64) = (4_000.0, 5_000.0);
/// Seconds at the lower level, and mean feet per minute on the way back up.
const DIVE_HOLD_S: (f64, f64) = (120.0, 300.0);
const DIVE_RECOVERY_FPM: f64 = 1_800.0;

/// The troubles of one flight. Times are seconds since it began to roll.
#[derive(Debug, Clone, Default)]
pub struct Trouble {
    emergency: Option<Emergency>,
    dive: Option<Dive>,
}

#[derive(Debug, Clone, Copy)]
struct Emergency {
    begin_s: f64,
    end_s: f64,
    squawk: Squawk,
}

#[derive(Debug, Clone, Copy)]
struct Dive {
    begin_s: f64,
    down_s: f64,
    hold_s: f64,
    up_s: f64,
    drop_ft: f64,
}

impl Trouble {
    /// Most flights have none.
    pub fn draw(profile: &Profile, random: &mut Random) -> Self {
        let dive = Dive::draw(profile, random);
        let announced = dive.filter(|_| random.chance(0.6));
        let emergency = match announced {
            Some(dive) => Some(Emergency {
                begin_s: dive.begin_s + 20.0,
                end_s: dive.begin_s + dive.down_s + dive.hold_s,
                squawk: *b"7700",
            }),
            None => Emergency::draw(profile, random),
        };
        Trouble { emergency, dive }
    }

    /// The emergency code, if there is an emergency now.
    pub fn squawk(&self, seconds: f64) -> Option<Squawk> {
        let emergency = self.emergency?;
        (emergency.begin_s..emergency.end_s).contains(&seconds).then_some(emergency.squawk)
    }

    /// Feet below the planned height, and the change of the height by it in feet per minute.
    pub fn drop(&self, seconds: f64) -> (f64, f64) {
        self.dive.map_or((0.0, 0.0), |dive| dive.at(seconds))
    }
}

impl Emergency {
    fn draw(profile: &Profile, random: &mut Random) -> Option<Self> {
        let (begin_s, end_s) = profile.airborne_s();
        let mean_s = (EMERGENCY_S.0 + EMERGENCY_S.1) / 2.0;
        if !random.chance((end_s - begin_s) * EMERGENCY_SHARE / mean_s) {
            return None;
        }
        let mut draw = random.below(100);
        let mut squawk = EMERGENCIES[2].0;
        for (code, share) in EMERGENCIES {
            if draw < share {
                squawk = code;
                break;
            }
            draw -= share;
        }
        let begin_s = random.between((begin_s, end_s));
        Some(Emergency { begin_s, end_s: begin_s + random.between(EMERGENCY_S), squawk })
    }
}

impl Dive {
    fn draw(profile: &Profile, random: &mut Random) -> Option<Self> {
        let (begin_s, end_s) = profile.cruise_s();
        let likely = random.chance((end_s - begin_s) / DIVE_EVERY_S);
        if !likely || profile.cruise_ft < DIVE_ABOVE_FT {
            return None;
        }
        let drop_ft = profile.cruise_ft - DIVE_TO_FT;
        let mut dive = Dive {
            begin_s,
            down_s: drop_ft / random.between(DIVE_FPM) * 60.0,
            hold_s: random.between(DIVE_HOLD_S),
            up_s: drop_ft / DIVE_RECOVERY_FPM * 60.0,
            drop_ft,
        };
        let latest_s = end_s - (dive.down_s + dive.hold_s + dive.up_s);
        dive.begin_s = random.between((begin_s, latest_s));
        (latest_s > begin_s).then_some(dive)
    }

    fn at(&self, seconds: f64) -> (f64, f64) {
        let elapsed_s = seconds - self.begin_s;
        let recovered_s = elapsed_s - self.down_s - self.hold_s;
        if elapsed_s < self.down_s {
            let (share, change) = smooth_step(elapsed_s / self.down_s);
            (self.drop_ft * share, -self.drop_ft * change / self.down_s * 60.0)
        } else {
            let (share, change) = smooth_step(recovered_s / self.up_s);
            (self.drop_ft * (1.0 - share), self.drop_ft * change / self.up_s * 60.0)
        }
    }
}

/// From 0 to 1 without a kink, and its slope; flat outside `0..1`.
fn smooth_step(share: f64) -> (f64, f64) {
    let share = share.clamp(0.0, 1.0);
    (share * share * (3.0 - 2.0 * share), 6.0 * share * (1.0 - share))
}
