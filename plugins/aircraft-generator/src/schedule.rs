//! When reports are due, and the position from which a restarted producer goes on.
//!
//! The fleet lives in simulated time, which advances only as reports are made; each report also gets the host's time
//! at which it was due. Both are exact functions of the number of reports since an *anchor*: report `n` is due
//! `n / rate` after it. A new anchor is set where the two times must part: at the start, after a pause, when the host's
//! clock has been set back, and when the rate changes. So a resumed producer makes the very reports that the stopped
//! one would have made, and one that was down for an hour goes on from where it was, without the hour's reports.

use tidemill_plugin::Timestamp;

const SECOND: i64 = 1_000_000;

/// How long reports are gathered for one call, in microseconds: long enough that a batch spread over a few partitions
/// still makes rows of some size, short enough to look alive on a map.
pub const BATCH: i64 = 200_000;

/// A call is planned to be so full, so that one that comes a little late still takes all that is due.
const FILL: f64 = 0.9;

/// A producer that is further behind than this, in microseconds, leaves out what it has missed.
const MAX_LAG: i64 = SECOND;

/// The version of the stored form.
const VERSION: u8 = 1;

/// How many bytes the stored form takes.
const STORED_BYTES: usize = 37;

/// Where the producer is. Times are microseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// The host's time and the simulation's, at the anchor.
    anchor: Timestamp,
    simulated: i64,
    /// Reports made since the anchor.
    made: u64,
    /// Reports a second.
    rate: f64,
    /// Which aircraft of the fleet reports next.
    pub next_aircraft: u32,
}

/// When a report is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// The host's time at which it was due, in microseconds.
    pub due: Timestamp,
    /// Microseconds of the simulation.
    pub simulated: i64,
}

impl Schedule {
    /// The first reports are those of the last [`BATCH`], so that something is there at once.
    pub fn start(now: Timestamp, rate: f64) -> Self {
        Schedule { anchor: now - BATCH, simulated: 0, made: 0, rate, next_aircraft: 0 }
    }

    /// Goes on from here at `now` and at `rate`. If the host's time has parted from the schedule, tells by how many
    /// microseconds: above 0 those were left out, below 0 the clock was set back.
    pub fn resume(&mut self, now: Timestamp, rate: f64) -> Option<i64> {
        let interval = (SECOND as f64 / rate) as i64;
        if rate != self.rate {
            let Moment { due, simulated } = self.moment();
            self.anchor_at(due.min(now + interval), simulated);
            self.rate = rate;
        }
        let Moment { due, simulated } = self.moment();
        let lag = now.saturating_sub(due);
        let parted = lag > MAX_LAG || lag < -(MAX_LAG + interval);
        if parted {
            self.anchor_at(now - BATCH, simulated);
        }
        parted.then_some(lag)
    }

    /// The moment of the next report, if it is due at `now`; counts it as made.
    pub fn take(&mut self, now: Timestamp) -> Option<Moment> {
        let moment = self.moment();
        if moment.due > now {
            return None;
        }
        self.made += 1;
        Some(moment)
    }

    /// When to come again after a call at `now` that took all that was due, if one call may make `max` reports.
    pub fn next_call(&self, now: Timestamp, max: u32) -> Timestamp {
        let fill = FILL * f64::from(max) / self.rate * SECOND as f64;
        let gather = (fill as i64).clamp(1, BATCH);
        (now + gather).max(self.moment().due)
    }

    /// The moment of the next report.
    fn moment(&self) -> Moment {
        let offset = (self.made as f64 * SECOND as f64 / self.rate).ceil() as i64;
        Moment { due: self.anchor.saturating_add(offset), simulated: self.simulated.saturating_add(offset) }
    }

    fn anchor_at(&mut self, anchor: Timestamp, simulated: i64) {
        self.anchor = anchor;
        self.simulated = simulated;
        self.made = 0;
    }

    /// The form that is stored with the records: the version, then the fields, little-endian.
    pub fn to_bytes(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(STORED_BYTES);
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.anchor.to_le_bytes());
        bytes.extend_from_slice(&self.simulated.to_le_bytes());
        bytes.extend_from_slice(&self.made.to_le_bytes());
        bytes.extend_from_slice(&self.rate.to_le_bytes());
        bytes.extend_from_slice(&self.next_aircraft.to_le_bytes());
        bytes
    }

    /// Reads what [`Schedule::to_bytes`] wrote. None if it is not that: another version, cut off, or damaged.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; STORED_BYTES] = bytes.try_into().ok()?;
        let (version, rest) = bytes.split_first()?;
        let (anchor, rest) = rest.split_first_chunk()?;
        let (simulated, rest) = rest.split_first_chunk()?;
        let (made, rest) = rest.split_first_chunk()?;
        let (rate, rest) = rest.split_first_chunk()?;
        let (next_aircraft, _) = rest.split_first_chunk()?;
        let schedule = Schedule {
            anchor: i64::from_le_bytes(*anchor),
            simulated: i64::from_le_bytes(*simulated),
            made: u64::from_le_bytes(*made),
            rate: f64::from_le_bytes(*rate),
            next_aircraft: u32::from_le_bytes(*next_aircraft),
        };
        let sound = *version == VERSION
            && schedule.rate.is_finite()
            && schedule.rate > 0.0
            && schedule.simulated >= 0;
        sound.then_some(schedule)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = 1_732_264_000_000_000;

    #[test]
    fn the_stored_form_is_as_it_was_released() {
        let mut schedule = Schedule::start(NOW, 1_000.0);
        for _ in 0..3 {
            schedule.take(NOW);
        }
        schedule.next_aircraft = 3;
        let mut expected = vec![1];
        expected.extend((NOW - 200_000).to_le_bytes());
        expected.extend([0; 8]);
        expected.extend([3, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend(1_000.0_f64.to_le_bytes());
        expected.extend([3, 0, 0, 0]);
        assert_eq!(schedule.to_bytes(), expected);
    }

    #[test]
    fn simulated_time_and_due_time_part_only_at_a_pause() {
        let mut schedule = Schedule::start(NOW, 10.0);
        let before = schedule.take(NOW).unwrap();
        let later = NOW + 3_600 * SECOND;
        assert_eq!(schedule.resume(NOW + BATCH, 10.0), None);
        let lag = schedule.resume(later, 10.0).unwrap();
        assert!((3_600 * SECOND..3_601 * SECOND).contains(&lag));
        let after = schedule.take(later).unwrap();
        assert_eq!(after.due, later - BATCH);
        assert_eq!(after.simulated - before.simulated, SECOND / 10);
    }

    proptest! {
        #[test]
        fn what_is_stored_is_read_again(
            anchor in any::<i64>(),
            simulated in 0..i64::MAX,
            made in any::<u64>(),
            rate in 0.001..200_000.0_f64,
            next_aircraft in any::<u32>(),
        ) {
            let schedule = Schedule { anchor, simulated, made, rate, next_aircraft };
            prop_assert_eq!(Schedule::from_bytes(&schedule.to_bytes()), Some(schedule));
        }

        /// Any bytes are either refused or a schedule that works.
        #[test]
        fn damaged_bytes_do_no_harm(mut bytes in prop::collection::vec(any::<u8>(), STORED_BYTES)) {
            bytes[0] = VERSION;
            if let Some(mut schedule) = Schedule::from_bytes(&bytes) {
                schedule.resume(NOW, 1_000.0);
                schedule.take(NOW);
                prop_assert!(schedule.next_call(NOW, 1_000) > NOW);
            }
        }
    }
}
