//! The same through real lanes: threads, chunks, shards.

use std::{collections::BTreeMap, time::Instant};

use crossbeam_channel::bounded;

use super::*;
use crate::{
    dispatch::{self, Chunk, Dispatcher, Item, StreamAccount},
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
    for items in in_turns(fleet).chunks_mut(chunk_size) {
        let mut by_lane: BTreeMap<usize, Vec<Item>> = BTreeMap::new();
        for item in items.iter_mut().filter_map(Option::take) {
            by_lane.entry(state.lane_of(&item.key)).or_default().push(item);
        }
        for (lane_idx, items) in by_lane {
            let chunk = Chunk { items, stream: account.clone(), received_at: RECEIVED, arrived: Instant::now() };
            runtime.block_on(dispatcher.dispatch(lane_idx, Box::new(chunk))).expect("room");
        }
    }
    drop(dispatcher);
    lanes.into_iter().for_each(|lane| lane.join().expect("no lane panics"));
    assert_eq!(account.summary().accepted, n_reports as u64, "every report is evaluated (I4)");
    by_instance(journal.try_iter().flat_map(|entry| entry.events))
}

/// Every report, the first of each instance before the second of any.
fn in_turns(fleet: &Fleet) -> Vec<Option<Item>> {
    let most = fleet.instances.iter().map(|(_, reports)| reports.len()).max().unwrap_or_default();
    let mut items = Vec::new();
    for n in 0..most {
        for (key, report) in fleet.instances.iter().filter_map(|(key, reports)| Some((key, reports.get(n)?))) {
            let report = dispatch::Report {
                metrics: report.metrics.iter().cloned().collect(),
                at: report.at,
                wire_time: report.at.as_nanos().unsigned_abs(),
                sequence: n as u64 + 1,
                leaving: false,
            };
            items.push(Some(Item { key: key.clone(), place: items.len() as u64, report: Some(report) }));
        }
    }
    items
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
