//! The proof, as far as every test run can afford it: kills, cuts and stops under load, after which the history holds
//! each violation once and in its right final state. `make chaos` has more of each, and outages of a minute.

use std::{path::Path, time::Duration};

use gopherwatch_chaos::{
    scenario::{
        Outage, Outcome, Run, Victim, full_disk, full_journal, kills, outage, pauses, reply_cuts, shutdowns,
        stream_cuts,
    },
    small_disk::SmallDisk,
    world::{Programs, Store},
};

use crate::support::{figures::say, wait::alone};

/// The same each time: a run that fails can be run again.
const SEED: u64 = 4;

/// The harness's own binary stands beside the server's: Cargo does not build other packages' binaries for a test.
fn run(store: Store) -> Run {
    let server = Path::new(env!("CARGO_BIN_EXE_gopherwatch-server")).to_owned();
    let chaos = server.with_file_name("chaos");
    assert!(chaos.is_file(), "{} is not there: run `cargo build --workspace` first", chaos.display());
    Run { programs: Programs { server, chaos }, seed: SEED, store }
}

fn assert_kept(outcome: &Outcome) {
    say(&outcome.to_string());
    assert!(outcome.is_clean(), "seed {SEED}: {outcome}");
}

#[test]
fn a_killed_server_loses_and_doubles_nothing() {
    let _alone = alone();
    assert_kept(&kills(&run(Store::Mariadb), "kill-server", &[Victim::Server], 10));
    assert_kept(&kills(&run(Store::Sqlite), "kill-server-sqlite", &[Victim::Server], 3));
}

#[test]
fn a_killed_database_loses_and_doubles_nothing() {
    let _alone = alone();
    assert_kept(&kills(&run(Store::Mariadb), "kill-mariadb", &[Victim::Mariadb], 3));
}

#[test]
fn a_killed_agent_loses_and_doubles_nothing() {
    let _alone = alone();
    assert_kept(&kills(&run(Store::Sqlite), "kill-agent", &[Victim::Agent], 5));
}

#[test]
fn all_of_them_killed_lose_and_double_nothing() {
    let _alone = alone();
    let all = [Victim::Server, Victim::Mariadb, Victim::Agent];
    assert_kept(&kills(&run(Store::Mariadb), "kill-all", &all, 3));
}

#[test]
fn held_in_mid_air_nothing_is_lost_or_doubled() {
    let _alone = alone();
    let all = [Victim::Server, Victim::Mariadb, Victim::Agent];
    assert_kept(&pauses(&run(Store::Mariadb), "pause-any", &all, 3));
}

#[test]
fn a_write_whose_reply_is_cut_off_is_not_repeated_in_the_history() {
    let _alone = alone();
    assert_kept(&reply_cuts(&run(Store::Mariadb), "reply-cut", 2));
}

#[test]
fn a_stream_that_is_cut_off_anywhere_is_sent_again_and_counts_once() {
    let _alone = alone();
    assert_kept(&stream_cuts(&run(Store::Sqlite), "stream-cut", 25));
}

#[test]
fn stopped_under_load_it_begins_no_write_and_loses_nothing() {
    let _alone = alone();
    assert_kept(&shutdowns(&run(Store::Mariadb), "sigterm", 5));
}

#[test]
fn a_database_that_is_away_keeps_nobody_from_receipts_and_webhooks() {
    let _alone = alone();
    for (how, name) in [(Outage::Stopped, "outage-stopped"), (Outage::RepliesCut, "outage-replies-cut")] {
        assert_kept(&outage(&run(Store::Mariadb), name, how, Duration::from_secs(3), 1_000));
    }
}

#[test]
fn with_its_disk_full_it_gives_no_receipt_and_goes_on_by_itself() {
    let _alone = alone();
    match SmallDisk::is_possible() {
        Ok(()) => assert_kept(&full_disk(&run(Store::Sqlite), "full-disk")),
        // `at_the_limit_on_file_sizes_…` and the journal's own limit below have the same way to go.
        Err(why) => say(&format!("only in part: {why}")),
    }
}

#[test]
fn with_its_journal_full_it_gives_no_receipt_and_goes_on_by_itself() {
    let _alone = alone();
    assert_kept(&full_journal(&run(Store::Mariadb), "full-journal"));
}

#[test]
fn a_database_that_others_lock_up_or_use_up_costs_no_row() {
    let _alone = alone();
    for (name, how) in [
        ("outage-read-only", Outage::ReadOnly),
        ("outage-altered", Outage::Altered),
        ("outage-crowded", Outage::Crowded),
    ] {
        assert_kept(&outage(&run(Store::Mariadb), name, how, Duration::from_secs(1), 500));
    }
}
