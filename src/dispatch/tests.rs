use std::sync::Arc;

use super::*;
use crate::model::Name;

fn chunk(account: &Arc<StreamAccount>, n_reports: usize, n_metrics: usize) -> Box<Chunk> {
    let key = Arc::new(InstanceKey::new("web", "a"));
    let metrics: Vec<(Name, f64)> = (0..n_metrics).map(|n| (format!("m{n}").into(), 1.0)).collect();
    let mut reports = ByName::new(1);
    for place in 0..n_reports as u64 {
        reports.put(0, &key, Item { place, sequence: place + 1, ..Item::default() }, &metrics);
    }
    reports.packer().chunk(0, account, Timestamp::default(), Instant::now()).expect("it has been packed")
}

fn lane(queue_reports: usize) -> (Dispatcher, LaneQueue, Arc<Stats>) {
    let stats = Arc::new(Stats::new());
    let (dispatcher, mut queues) = Dispatcher::new(Options { n_lanes: 1, queue_reports }, stats.clone());
    (dispatcher, queues.remove(0), stats)
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_nobody_drains_refuses_after_five_seconds_and_holds_no_more_than_its_slots() {
    let (dispatcher, queue, stats) = lane(1_024);
    let account = Arc::default();
    let began = tokio::time::Instant::now();
    let mut n_admitted = 0;
    let refusal = loop {
        // 256 reports of 4 metrics weigh 320 slots: three such chunks fit.
        match dispatcher.dispatch(0, chunk(&account, 256, 4)).await {
            Ok(()) => n_admitted += 1,
            Err(refusal) => break refusal,
        }
    };
    assert_eq!((n_admitted, refusal), (3, DispatchError::Overloaded));
    assert_eq!(began.elapsed(), ADMISSION_WAIT_MAX);
    assert_eq!((stats.overload_refusals.get(), stats.received.get(), queue.turns.len()), (1, 768, 3));
}

#[tokio::test]
async fn the_slot_is_free_again_when_the_turn_is_done_not_when_it_is_taken() {
    let (dispatcher, queue, _) = lane(MAX_CHUNK);
    let account = Arc::default();
    dispatcher.dispatch(0, chunk(&account, MAX_CHUNK, 1)).await.expect("room");
    let turn = queue.turns.recv().expect("a turn");
    let second = dispatcher.clone();
    let waiting = tokio::spawn(async move { second.dispatch(0, chunk(&Arc::default(), 1, 1)).await });
    while queue.waiting.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    assert!(queue.turns.try_recv().is_err(), "the first turn still holds every slot");
    drop(turn);
    waiting.await.expect("no panic").expect("room again");
    assert!(matches!(queue.turns.try_recv(), Ok(Turn::Chunk(..))));
    assert_eq!(queue.waiting.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_lane_that_has_ended_says_so() {
    let (dispatcher, queue, _) = lane(1_024);
    drop(queue);
    let answer = dispatcher.dispatch(0, chunk(&Arc::default(), 1, 1)).await;
    assert_eq!(answer, Err(DispatchError::Stopped));
}

#[tokio::test]
async fn ticks_never_fill_a_lane_that_reports_could_use() {
    let (dispatcher, queue, _) = lane(MAX_CHUNK);
    for _ in 0..10 {
        dispatcher.tick(Instant::now());
    }
    for _ in 0..MAX_CHUNK / 16 {
        dispatcher.dispatch(0, chunk(&Arc::default(), 1, 0)).await.expect("room");
    }
    assert!(queue.turns.len() <= MAX_CHUNK / 16 + SLOTLESS_TURNS);
}

#[tokio::test]
async fn one_turn_of_control_may_wait_in_a_lane_and_takes_no_room_from_reports() {
    let (dispatcher, queue, _) = lane(MAX_CHUNK);
    let rules = Arc::new(RuleSet::built_in(None));
    let places = dispatcher.control_places().expect("nobody has it");
    let mut given = dispatcher.reload(&rules, places).expect("the lane lives");
    assert!(dispatcher.control_places().is_none() && dispatcher.control_place(0).is_none(), "the first one waits");
    dispatcher.tick(Instant::now());
    for _ in 0..MAX_CHUNK {
        dispatcher.dispatch(0, chunk(&Arc::default(), 1, 0)).await.expect("room beside a tick and a reload");
    }
    assert_eq!(queue.turns.len(), MAX_CHUNK + SLOTLESS_TURNS);
    let Ok(Turn::Reload(new, place, receipt)) = queue.turns.try_recv() else { panic!("the reload came first") };
    assert!(Arc::ptr_eq(&new, &rules));
    assert!(given[0].try_recv().is_err(), "nothing is told before it is done");
    receipt.give();
    assert_eq!(given[0].try_recv(), Ok(()));
    drop(place);
    assert!(dispatcher.control_place(0).is_some(), "its end lets the next one in");
}

#[test]
fn control_has_a_place_in_every_lane_or_in_none() {
    let options = Options { n_lanes: 3, queue_reports: 4_096 };
    let (dispatcher, queues) = Dispatcher::new(options, Arc::new(Stats::new()));
    let taken = dispatcher.control_place(1).expect("nobody has it");
    assert!(dispatcher.control_places().is_none());
    let free = dispatcher.control_place(0);
    assert!(free.is_some(), "what was taken in vain is given back");
    drop((taken, free));
    let places = dispatcher.control_places().expect("all are free");
    drop(queues);
    assert_eq!(dispatcher.reload(&Arc::new(RuleSet::built_in(None)), places).err(), Some(DispatchError::Stopped));
}
