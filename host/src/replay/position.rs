//! Where a reader stands in each partition: `0:12,1:9`.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ids::{Offset, Partition};

/// The next offset of each partition, in order of the partitions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position(pub BTreeMap<Partition, Offset>);

/// A text that is not a position.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a position: it is partition:offset with commas, such as 0:120,1:99")]
pub struct PositionError(String);

impl Position {
    pub fn get(&self, partition: Partition) -> Option<Offset> {
        self.0.get(&partition).copied()
    }

    /// Each partition with its next offset.
    pub fn iter(&self) -> impl Iterator<Item = (Partition, Offset)> + '_ {
        self.0.iter().map(|(partition, offset)| (*partition, *offset))
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (partition, offset)) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{partition}:{offset}")?;
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
            let (partition, offset) = (number(partition), number(offset));
            let (Some(partition), Some(offset)) = (partition, offset) else {
                return Err(error());
            };
            let partition = Partition::try_from(partition).map_err(|_| error())?;
            if position.insert(partition, offset).is_some() {
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

impl From<BTreeMap<Partition, Offset>> for Position {
    fn from(offsets: BTreeMap<Partition, Offset>) -> Self {
        Self(offsets)
    }
}

impl FromIterator<(Partition, Offset)> for Position {
    fn from_iter<T: IntoIterator<Item = (Partition, Offset)>>(offsets: T) -> Self {
        Self(offsets.into_iter().collect())
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
