//! What must hold of a history. Pure functions: each takes what was done and seen and gives what is wrong, in words.
//!
//! | check | holds when |
//! | --- | --- |
//! | [`lost`] | every acknowledged record is where its acknowledgement says |
//! | [`aborted`] | nothing that was refused is ever read |
//! | [`invented`] | nothing is read that nobody sent |
//! | [`inconsistent`] | all reads of a place give one record |
//! | [`duplicated`] | a record is at one place |
//! | [`reordered`] | records of a key are in one partition, in the order they were sent |
//! | [`holes`] | each offset from the start to the end of a partition has a record |
//! | [`missing`] | what one topic has, what was made of it has too |
//! | [`unfolded`] | a table has the newest record of each key, and nothing else |
//! | [`backwards`] | a group's offset never goes back under one epoch, and epochs only rise |
//! | [`skipped`] | a reader gets offset after offset |

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::history::{Append, Item, Outcome, Place, Read};

#[cfg(test)]
mod tests;

/// All of one topic, as one snapshot has it.
#[derive(Clone, Debug, Default)]
pub struct Log {
    pub reads: Vec<Read>,
    /// Partition, first offset, end.
    pub bounds: Vec<(u32, u64, u64)>,
}

/// A row of the table: key, the record that made it, and where that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    pub item: Item,
    pub place: Place,
}

/// Where a group stood at some moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    pub group: String,
    pub topic: i32,
    pub partition: u32,
    pub epoch: i64,
    pub offset: u64,
}

fn places(log: &Log) -> HashMap<u64, Place> {
    log.reads.iter().map(|read| (read.item.id, read.place)).collect()
}

/// Acknowledged records that are not in the log, or not where the acknowledgement says.
pub fn lost(appends: &[Append], log: &Log) -> Vec<String> {
    let places = places(log);
    let mut wrong = Vec::new();
    for append in appends {
        let Outcome::Ok(parts) = &append.outcome else { continue };
        for item in &append.items {
            let Some(place) = places.get(&item.id) else {
                wrong.push(format!("record {} was acknowledged and is not in the log", item.id));
                continue;
            };
            let within = parts.iter().any(|part| {
                part.partition == place.partition && (part.first..part.next).contains(&place.offset)
            });
            if !within {
                wrong.push(format!("record {} is at {}, acknowledged at {parts:?}", item.id, say(*place)));
            }
        }
    }
    wrong
}

/// Records of refused appends that were read all the same.
pub fn aborted(appends: &[Append], log: &Log) -> Vec<String> {
    let refused: HashSet<u64> = appends
        .iter()
        .filter(|append| append.outcome == Outcome::Fail)
        .flat_map(|append| append.items.iter().map(|item| item.id))
        .collect();
    let read = log.reads.iter().filter(|read| refused.contains(&read.item.id));
    read.map(|read| format!("record {} was refused and is at {}", read.item.id, say(read.place))).collect()
}

/// Records that were read and that nobody sent.
pub fn invented(appends: &[Append], log: &Log) -> Vec<String> {
    let sent: HashSet<Item> = appends.iter().flat_map(|append| append.items.iter().copied()).collect();
    let read = log.reads.iter().filter(|read| !sent.contains(&read.item));
    read.map(|read| format!("{:?} at {} was never sent", read.item, say(read.place))).collect()
}

/// Places that gave one reader one record and another reader another. `ways` are reads of one topic by different ways.
pub fn inconsistent(ways: &[(&str, &[Read])]) -> Vec<String> {
    let mut seen: HashMap<Place, (Item, &str)> = HashMap::new();
    let mut wrong = Vec::new();
    for (way, reads) in ways {
        for read in *reads {
            let (item, before) = *seen.entry(read.place).or_insert((read.item, way));
            if item != read.item {
                let place = say(read.place);
                wrong
                    .push(format!("{place} is record {} by {before} and {} by {way}", item.id, read.item.id));
            }
        }
    }
    wrong
}

/// Records at more than one place of a topic.
pub fn duplicated(log: &Log) -> Vec<String> {
    let mut seen: HashMap<u64, Place> = HashMap::new();
    let mut wrong = Vec::new();
    for read in &log.reads {
        let first = *seen.entry(read.item.id).or_insert(read.place);
        if first != read.place {
            wrong.push(format!("record {} is at {} and at {}", read.item.id, say(first), say(read.place)));
        }
    }
    wrong
}

/// Records behind a later one of their key, or in another partition than it.
pub fn reordered(log: &Log) -> Vec<String> {
    let mut last: HashMap<u32, Read> = HashMap::new();
    let mut wrong = Vec::new();
    for read in sorted(&log.reads) {
        if let Some(before) = last.insert(read.item.key, read)
            && (before.place.partition != read.place.partition || before.item.n >= read.item.n)
        {
            wrong.push(format!(
                "key {}: {} at {} comes before {} at {}",
                read.item.key,
                before.item.n,
                say(before.place),
                read.item.n,
                say(read.place)
            ));
        }
    }
    wrong
}

/// Offsets without a record, and records outside of the log's bounds.
pub fn holes(log: &Log) -> Vec<String> {
    let mut offsets: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    for read in sorted(&log.reads) {
        offsets.entry(read.place.partition).or_default().push(read.place.offset);
    }
    let mut wrong = Vec::new();
    for (partition, start, end) in &log.bounds {
        let mut next = *start;
        for offset in offsets.remove(partition).unwrap_or_default() {
            if offset > next {
                wrong.push(format!("partition {partition} has nothing at {next} to {}", offset - 1));
            } else if offset < next {
                wrong.push(format!(
                    "partition {partition} has two records at {offset}, or one before its start"
                ));
            }
            next = offset + 1;
        }
        if next != *end {
            wrong.push(format!("partition {partition} ends at {end} and has records up to {next}"));
        }
    }
    let stray =
        offsets.into_keys().map(|partition| format!("partition {partition} has records and no bounds"));
    wrong.extend(stray);
    wrong
}

/// Records of `from` that are not in `to`, and the other way round.
pub fn missing(from: &Log, to: &Log) -> Vec<String> {
    let (given, made) = (places(from), places(to));
    let lost = given.iter().filter(|(id, _)| !made.contains_key(id));
    let lost = lost.map(|(id, place)| format!("record {id} at {} was not passed on", say(*place)));
    let extra = made.iter().filter(|(id, _)| !given.contains_key(id));
    let extra = extra.map(|(id, place)| format!("record {id} at {} comes from nowhere", say(*place)));
    lost.chain(extra).collect()
}

/// Rows that are not the newest record of their key, and keys without a row.
pub fn unfolded(log: &Log, rows: &[Row]) -> Vec<String> {
    let mut newest: HashMap<u32, Row> = HashMap::new();
    for read in sorted(&log.reads) {
        let row = Row { item: read.item, place: read.place };
        let kept = newest.entry(read.item.key).or_insert(row);
        if row.item.n >= kept.item.n {
            *kept = row;
        }
    }
    let mut wrong = Vec::new();
    for row in rows {
        match newest.remove(&row.item.key) {
            Some(due) if due == *row => {}
            due => wrong.push(format!("the table has {row:?}, the log {due:?}")),
        }
    }
    wrong.extend(newest.into_values().map(|due| format!("the table has no row for {due:?}")));
    wrong
}

/// Offsets that went back under one epoch, and epochs that went back. `seen` is in the order of time.
pub fn backwards(seen: &[Standing]) -> Vec<String> {
    let mut last: HashMap<(&str, i32, u32), &Standing> = HashMap::new();
    let mut wrong = Vec::new();
    for now in seen {
        if let Some(before) = last.insert((&now.group, now.topic, now.partition), now)
            && (now.offset < before.offset || now.epoch < before.epoch)
        {
            wrong.push(format!("{before:?} was followed by {now:?}"));
        }
    }
    wrong
}

/// Offsets that a reader did not get after the one before. `reads` is in the order in which the reader got them.
pub fn skipped(reads: &[Read]) -> Vec<String> {
    let mut last: HashMap<u32, u64> = HashMap::new();
    let mut wrong = Vec::new();
    for read in reads {
        if let Some(before) = last.insert(read.place.partition, read.place.offset)
            && read.place.offset != before + 1
        {
            wrong.push(format!("a reader got {} after offset {before}", say(read.place)));
        }
    }
    wrong
}

fn sorted(reads: &[Read]) -> Vec<Read> {
    let mut reads = reads.to_vec();
    reads.sort_by_key(|read| read.place);
    reads
}

fn say(place: Place) -> String {
    format!("{}:{}", place.partition, place.offset)
}
