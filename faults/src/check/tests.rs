//! Each check finds what was planted, and finds nothing in a history without it.

use super::*;
use crate::history::Part;

fn item(id: u64, key: u32, n: u32) -> Item {
    Item { id, key, n }
}

fn read(partition: u32, offset: u64, item: Item) -> Read {
    Read { place: Place { partition, offset }, item }
}

/// Two keys in two partitions, three records each.
fn log() -> Log {
    let reads = (0..3u64)
        .flat_map(|n| [read(0, n, item(n, 1, n as u32)), read(1, 10 + n, item(100 + n, 2, n as u32))])
        .collect();
    Log { reads, bounds: vec![(0, 0, 3), (1, 10, 13)] }
}

fn appended(ids: &[u64], outcome: Outcome) -> Append {
    let items = ids.iter().map(|id| item(*id, if *id < 100 { 1 } else { 2 }, (*id % 100) as u32)).collect();
    Append { items, outcome, sent: 1, at: std::time::Instant::now() }
}

fn parts() -> Outcome {
    Outcome::Ok(vec![Part { partition: 0, first: 0, next: 3 }, Part { partition: 1, first: 10, next: 13 }])
}

fn all() -> Vec<Append> {
    vec![appended(&[0, 1, 2, 100, 101, 102], parts())]
}

#[test]
fn a_history_without_a_violation_passes_every_check() {
    let (log, appends) = (log(), all());
    let found = [
        lost(&appends, &log),
        aborted(&appends, &log),
        invented(&appends, &log),
        inconsistent(&[("SQL", &log.reads), ("HTTP", &log.reads)]),
        duplicated(&log),
        reordered(&log),
        holes(&log),
        missing(&log, &log),
        skipped(&log.reads),
    ];
    assert_eq!(found.concat(), Vec::<String>::new());
}

#[test]
fn a_lost_acknowledgement_is_found() {
    let mut log = log();
    log.reads.retain(|read| read.item.id != 101);
    assert_eq!(lost(&all(), &log).len(), 1);
    assert!(lost(&[appended(&[101], Outcome::Unknown)], &log).is_empty(), "nobody promised it");
}

#[test]
fn a_record_that_is_not_where_it_was_acknowledged_is_found() {
    let elsewhere = Outcome::Ok(vec![Part { partition: 0, first: 1, next: 3 }]);
    assert_eq!(lost(&[appended(&[0, 1, 2], elsewhere)], &log()).len(), 1);
}

#[test]
fn an_aborted_read_is_found() {
    assert_eq!(aborted(&[appended(&[2], Outcome::Fail)], &log()).len(), 1);
    assert!(aborted(&[appended(&[2], Outcome::Unknown)], &log()).is_empty(), "it may be there");
}

#[test]
fn a_record_from_nowhere_is_found() {
    let mut log = log();
    log.reads.push(read(0, 3, item(999, 1, 3)));
    assert_eq!(invented(&all(), &log).len(), 1);
}

#[test]
fn two_values_at_one_place_are_found() {
    let sql = log().reads;
    let mut http = sql.clone();
    http[2].item.id = 77;
    assert_eq!(inconsistent(&[("SQL", &sql), ("HTTP", &http)]).len(), 1);
    http[2].place.offset = 99;
    assert!(inconsistent(&[("SQL", &sql), ("HTTP", &http)]).is_empty(), "another place");
}

#[test]
fn a_record_at_two_places_is_found() {
    let mut log = log();
    log.reads.push(read(0, 3, item(0, 1, 0)));
    assert_eq!(duplicated(&log).len(), 1);
    log.reads.pop();
    log.reads.push(log.reads[0]);
    assert!(duplicated(&log).is_empty(), "read twice at one place");
}

#[test]
fn an_order_that_was_turned_round_is_found() {
    let mut log = log();
    log.reads[0].item.n = 1;
    log.reads[2].item.n = 0;
    assert_eq!(reordered(&log).len(), 1);
}

#[test]
fn a_key_in_two_partitions_is_found() {
    let mut log = log();
    log.reads.push(read(1, 13, item(3, 1, 3)));
    assert_eq!(reordered(&log).len(), 1);
}

#[test]
fn holes_and_double_offsets_are_found() {
    let mut hole = log();
    hole.reads.retain(|read| read.place.offset != 1);
    assert_eq!(holes(&hole).len(), 1);
    let mut end = log();
    end.reads.retain(|read| read.place.offset != 12);
    assert_eq!(holes(&end).len(), 1, "the last record is missing");
    let mut double = log();
    double.reads.push(read(0, 1, item(50, 1, 50)));
    assert_eq!(holes(&double).len(), 1);
    let mut stray = log();
    stray.reads.push(read(7, 0, item(51, 3, 0)));
    assert_eq!(holes(&stray).len(), 1);
}

#[test]
fn what_a_transform_leaves_out_or_makes_up_is_found() {
    let (from, mut to) = (log(), log());
    to.reads.pop();
    assert_eq!(missing(&from, &to).len(), 1);
    assert_eq!(missing(&to, &from).len(), 1);
}

#[test]
fn a_table_that_is_not_the_fold_is_found() {
    let log = log();
    let row = |read: Read| Row { item: read.item, place: read.place };
    let good = [row(read(0, 2, item(2, 1, 2))), row(read(1, 12, item(102, 2, 2)))];
    assert!(unfolded(&log, &good).is_empty());
    assert_eq!(unfolded(&log, &good[..1]).len(), 1, "a key without a row");
    let old = row(read(0, 1, item(1, 1, 1)));
    assert_eq!(unfolded(&log, &[old, good[1]]).len(), 1, "an older record");
    let more = row(read(0, 9, item(9, 9, 9)));
    assert_eq!(unfolded(&log, &[good[0], good[1], more]).len(), 1, "a key that nobody wrote");
}

#[test]
fn an_offset_that_goes_back_is_found() {
    let at = |epoch, offset| Standing { group: "copy".into(), topic: 1, partition: 0, epoch, offset };
    assert!(backwards(&[at(1, 5), at(1, 9), at(2, 9), at(2, 12)]).is_empty());
    assert_eq!(backwards(&[at(1, 5), at(1, 4)]).len(), 1);
    assert_eq!(backwards(&[at(1, 5), at(2, 4)]).len(), 1, "a new owner goes on where the old one was");
    assert_eq!(backwards(&[at(2, 5), at(1, 6)]).len(), 1, "an epoch that goes back");
}

#[test]
fn a_reader_that_skips_or_goes_back_is_found() {
    let reads = log().reads;
    assert_eq!(skipped(&[reads[0], reads[4]]).len(), 1);
    assert_eq!(skipped(&[reads[2], reads[0]]).len(), 1);
    assert_eq!(skipped(&[reads[0], reads[0]]).len(), 1);
}
