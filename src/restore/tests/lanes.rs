//! The same through real lanes: threads, chunks, shards.

use std::{collections::BTreeMap, time::Instant};

use crossbeam_channel::bounded;

use super::*;
use crate::{
    dispatch::{self, ByName, Dispatcher, Item, StreamAccount},
    evaluate,
};

/// What lanes make of the fleet's reports, whose instances take turns, in chunks of so many.
fn run(
    fleet: &Fleet,
    n_lanes: usize,
    chunk_size: usize,
    parallel_from: usize,
) -> BTreeMap<Arc<InstanceKey>, Vec<Event>> {
    let stats = Arc::new(Stats::new());
    let state = Arc::new(State::new(n_lanes, 1_000));
    let rules = Arc::new(play::rules(&fleet.rules));
    let options = evaluate::Options {
        stale_after: None,
        forget_after: std::time::Duration::from_secs(86_400),
        n_helpers: 2,
        max_batch: evaluate::MAX_BATCH,
        parallel_from,
        max_forgotten: 10,
    };
    let (dispatcher, queues) = Dispatcher::new(dispatch::Options { n_lanes, queue_reports: 1 << 20 }, stats.clone());
    // It is read only after the lanes have ended: room for all they can say.
    let (entries, journal) = bounded(100_000);
    let log = Logger::root(Discard, o!());
    let lanes = evaluate::start(options, queues, (state.clone(), rules), entries, stats, &log).expect("threads");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let account = Arc::new(StreamAccount::new(EPOCH, None));
    let n_reports: usize = fleet.instances.iter().map(|(_, reports)| reports.len()).sum();
    let mut packed = ByName::new(n_lanes);
    for (n, reports) in in_turns(fleet).chunks(chunk_size).enumerate() {
        for (idx, (key, report, sequence)) in reports.iter().enumerate() {
            let (place, wire_time) = ((n * chunk_size + idx) as u64, report.at.as_nanos().unsigned_abs());
            let item = Item { place, wire_time, sequence: *sequence, ..Item::default() };
            packed.put(state.lane_of(key), key, item, &report.metrics);
        }
        for lane_idx in 0..n_lanes {
            let chunk = packed.packer().chunk(lane_idx, &account, RECEIVED, Instant::now());
            let Some(chunk) = chunk else { continue };
            runtime.block_on(dispatcher.dispatch(lane_idx, chunk)).expect("room");
        }
    }
    drop(dispatcher);
    lanes.into_iter().for_each(|lane| lane.join().expect("no lane panics"));
    assert_eq!(account.summary().accepted, n_reports as u64, "every report is evaluated (I4)");
    by_instance(journal.try_iter().flat_map(|entry| entry.events))
}

/// Every report with its number, the first of each instance before the second of any.
fn in_turns(fleet: &Fleet) -> Vec<(Arc<InstanceKey>, Report, u64)> {
    let most = fleet.instances.iter().map(|(_, reports)| reports.len()).max().unwrap_or_default();
    let mut turns = Vec::new();
    for n in 0..most {
        for (key, report) in fleet.instances.iter().filter_map(|(key, reports)| Some((key, reports.get(n)?))) {
            turns.push((key.clone(), report.clone(), n as u64 + 1));
        }
    }
    turns
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_same_reports_give_the_same_events_however_the_work_is_shared(cases in vec(any_case(), 20)) {
        let fleet = Fleet::new(&cases);
        for n_lanes in [1, 2] {
            for (chunk_size, parallel_from) in [(1, usize::MAX), (7, 2), (dispatch::MAX_CHUNK, 2)] {
                let events = run(&fleet, n_lanes, chunk_size, parallel_from);
                agrees(&fleet, &events)?;
            }
        }
    }
}
