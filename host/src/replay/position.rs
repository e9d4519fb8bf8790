//! Where a reader stands in each partition: `0:12@1,1:9@1`, the last number being the epoch of the log under which it got
//! there. Without one (`0:12,1:9`) it is a place that somebody chose, and good under any epoch.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ids::{LogEpoch, Offset, Partition, Place};

/// The next offset of each partition, in order of the partitions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position(BTreeMap<Partition, Place>);

/// A text that is not a position.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a position: it is partition:offset or partition:offset@epoch with commas, such as 0:120@1,1:99@1"
)]
pub struct PositionError(String);

impl Position {
    pub fn get(&self, partition: Partition) -> Option<Offset> {
        self.place(partition).map(|place| place.offset)
    }

    pub fn place(&self, partition: Partition) -> Option<Place> {
        self.0.get(&partition).copied()
    }

    /// Each partition with its next offset.
    pub fn iter(&self) -> impl Iterator<Item = (Partition, Offset)> + '_ {
        self.places().map(|(partition, place)| (partition, place.offset))
    }

    pub fn places(&self) -> impl Iterator<Item = (Partition, Place)> + '_ {
        self.0.iter().map(|(partition, place)| (*partition, *place))
    }

    pub fn insert(&mut self, partition: Partition, place: impl Into<Place>) {
        self.0.insert(partition, place.into());
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (partition, place)) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{partition}:{}", place.offset)?;
            if let Some(LogEpoch(epoch)) = place.epoch {
                write!(f, "@{epoch}")?;
            }
        }
        Ok(())
    }
}

impl FromStr for Position {
    type Err = PositionError;

    /// The empty text is the position of no partition.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || PositionError(text.chars().take(80).collect());
        let mut position = BTreeMap::new();
        for entry in text.split(',').filter(|_| !text.is_empty()) {
            let (partition, offset) = entry.split_once(':').ok_or_else(error)?;
            let (offset, epoch) = match offset.split_once('@') {
                Some((offset, epoch)) => (offset, Some(number(epoch).ok_or_else(error)?)),
                None => (offset, None),
            };
            let (partition, offset) = (number(partition), number(offset));
            let (Some(partition), Some(offset)) = (partition, offset) else {
                return Err(error());
            };
            let partition = Partition::try_from(partition).map_err(|_| error())?;
            let epoch = epoch.map(i32::try_from).transpose().map_err(|_| error())?.map(LogEpoch);
            if position.insert(partition, Place { offset, epoch }).is_some() {
                return Err(error());
            }
        }
        Ok(Self(position))
    }
}

/// Digits only: `parse` would also take a sign.
fn number(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

impl From<BTreeMap<Partition, Place>> for Position {
    fn from(places: BTreeMap<Partition, Place>) -> Self {
        Self(places)
    }
}

impl<P: Into<Place>> FromIterator<(Partition, P)> for Position {
    fn from_iter<T: IntoIterator<Item = (Partition, P)>>(places: T) -> Self {
        Self(places.into_iter().map(|(partition, place)| (partition, place.into())).collect())
    }
}

impl Serialize for Position {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Position {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
