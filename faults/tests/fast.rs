//! Cases in their smallest size, three at a time: each still injects what it says, and finds nothing wrong.
//!
//! The sizes that count are those of `make soak`; this holds the cases together between its runs. Those that wait for a minute
//! whatever their size, or that the host's own tests do too, are left to it: `cargo test --test fast -- --ignored`.

use std::process::Command;
use std::sync::{Condvar, Mutex, PoisonError};

/// They wait more than they work, but share two processors, and some of them look at how long something takes.
const AT_A_TIME: u32 = 3;
static RUNNING: Mutex<u32> = Mutex::new(0);
static ENDED: Condvar = Condvar::new();

/// One of the places, given back when it is dropped.
struct Turn;

impl Turn {
    fn take() -> Self {
        let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        let running = ENDED.wait_while(running, |running| *running >= AT_A_TIME);
        *running.unwrap_or_else(PoisonError::into_inner) += 1;
        Self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        ENDED.notify_one();
    }
}

fn run(id: &str) {
    let _turn = Turn::take();
    let ran = Command::new(env!("CARGO_BIN_EXE_tidemill-faults")).args(["--fast", "--only", id]).output();
    let ran = ran.unwrap_or_else(|error| panic!("the program does not start: {error}"));
    let (said, complained) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{said}\n{complained}");
    assert!(
        said.contains(id) && (said.contains("met") || said.contains("SKIPPED")) && !said.contains("MISSED"),
        "{said}"
    );
}

#[test]
fn r1_kills_lose_and_repeat_nothing() {
    run("R1");
}

#[test]
fn r2_a_server_that_stops_at_once_loses_and_repeats_nothing() {
    run("R2");
}

#[test]
fn r3_a_reset_at_commit_is_resolved_by_asking() {
    run("R3");
}

#[test]
#[ignore = "a host takes half a minute to give a silent connection up"]
fn r4_black_holes_hang_nothing() {
    run("R4");
}

#[test]
fn r5_a_paused_host_that_wakes_up_changes_nothing() {
    run("R5");
}

#[test]
fn r6_one_of_two_archivers_writes() {
    run("R6");
}

#[test]
fn r7_a_request_that_comes_five_times_is_stored_once() {
    run("R7");
}

#[test]
fn r8_nothing_appears_below_an_offset_that_was_seen() {
    run("R8");
}

#[test]
fn r9_time_never_runs_against_offsets() {
    run("R9");
}

#[test]
#[ignore = "a report has to run for a while"]
fn r11_tables_that_come_and_go_hold_up_nobody() {
    run("R11");
}

#[test]
#[ignore = "the host's own tests kill it at each step"]
fn r12_a_kill_at_any_step_of_archiving_loses_and_leaves_nothing() {
    run("R12");
}

#[test]
fn r13_readers_go_from_the_bucket_into_postgres_without_a_gap() {
    run("R13");
}

#[test]
fn r14_no_answer_of_a_bucket_is_taken_for_proof() {
    run("R14");
}

#[test]
#[ignore = "a bucket has to be away for a while"]
fn r15_a_bucket_that_is_away_is_noticed_by_the_archiver_alone() {
    run("R15");
}

#[test]
fn r18_nothing_is_late_for_long_without_notifications() {
    run("R18");
}

#[test]
fn r19_a_transaction_pooler_changes_nothing() {
    run("R19");
}

#[test]
fn r20_each_job_is_done_once_whatever_happens_to_workers() {
    run("R20");
}

#[test]
fn r21_a_host_that_leaves_hands_over() {
    run("R21");
}

#[test]
fn a_storm_of_random_faults_loses_and_repeats_nothing() {
    run("storm");
}
