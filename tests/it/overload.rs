//! Overload is answered by flow control, then by a refusal that says when to come back; what was admitted is bounded
//! (CONTRACT §7.5). The consumer here is stopped for good: real ingest and dispatch, and lanes that nobody drains.

use std::{
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use gopherwatch::{
    dispatch::{Dispatcher, LaneQueue, Options, Tally, Turn},
    doors::{self, Doors},
    ingest::{self, Ingest},
    model::InstanceKey,
    state::State,
    stats::Stats,
};
use slog::{Discard, Logger, o};
use tonic::Code;
use tonic_types::StatusExt;

use crate::support::{
    client::{Answer, Client},
    reports::{Says, cpu},
    server::Setup,
    wait::{SOON, alone, eventually, found},
    workload::{Breach, Workload},
};

const QUEUE: usize = 4_096;

/// Ingest in front of two lanes.
struct Door {
    ingest: Ingest,
    stats: Arc<Stats>,
    queues: Vec<LaneQueue>,
    /// A service of each lane.
    services: [String; 2],
}

fn door() -> Door {
    let stats = Arc::new(Stats::new());
    let state = Arc::new(State::new(2, 1_000));
    let (dispatcher, queues) = Dispatcher::new(Options { n_lanes: 2, queue_reports: QUEUE }, stats.clone());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let options = ingest::Options { max_connections: 100, max_instances_per_stream: 100, retention: None };
    let services = [0, 1].map(|lane_idx| {
        let names = (0..).map(|n| format!("service-{n}"));
        names.into_iter().find(|name| state.lane_of(&InstanceKey::new(name, "default")) == lane_idx).unwrap()
    });
    let log = Logger::root(Discard, o!());
    let doors = Arc::new(Doors::new(doors::Settings::default(), stats.clone(), &log));
    let ingest = Ingest::start(listener, options, dispatcher, state, (doors, stats.clone()), &log).unwrap();
    Door { ingest, stats, queues, services }
}

/// A lane that takes everything at once: what the stopped one is not.
fn drain(queue: LaneQueue) -> (Arc<AtomicBool>, thread::JoinHandle<()>) {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let lane = thread::spawn(move || {
        while !stopped.load(Ordering::Relaxed) {
            match queue.turns.recv_timeout(Duration::from_millis(10)) {
                Ok(Turn::Chunk(chunk, _slot)) => {
                    let accepted = chunk.n_reports() as u64;
                    chunk.stream.settle(&Tally { accepted, ..Tally::default() });
                }
                Ok(Turn::Barrier(_, receipt, _slot)) => receipt.give(),
                Ok(Turn::Tick(..) | Turn::Reload(..) | Turn::Forget(..)) | Err(_) => {}
            }
        }
    });
    (stop, lane)
}

#[test]
fn a_stopped_lane_admits_no_more_than_its_slots_and_refuses_with_a_time_to_come_back() {
    let mut door = door();
    let (stop, healthy) = drain(door.queues.pop().unwrap());
    let addr = door.ingest.addr();
    let flood = |service: String| (1..).map(move |n| cpu(&service, 1.0).numbered(n)).take(200_000);
    let clients: Vec<_> = (0..4).map(|_| Client::connect(addr)).collect();
    let began = Instant::now();
    let floods: Vec<_> = clients.iter().map(|client| client.stream(&[], flood(door.services[0].clone()))).collect();
    eventually(SOON, "the lane is full", || door.queues[0].waiting.load(Ordering::Relaxed) == 4);

    // The other lane takes no notice.
    let other = Client::connect(addr).send((1..=1_000).map(|n| cpu(&door.services[1], 1.0).numbered(n))).unwrap();
    assert_eq!(other.accepted, 1_000);
    assert!(floods.iter().all(|flood| !flood.has_come()), "flow control comes before refusal");

    // What the first of them gives up may be just enough for another, which then waits anew.
    let first = found(SOON, "a refusal", || floods.iter().any(Answer::has_come).then(|| began.elapsed()));
    assert!((5.0..7.0).contains(&first.as_secs_f64()), "{first:?}");
    for flood in floods {
        let status = flood.wait().unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
        let retry_after = status.get_details_retry_info().unwrap().retry_delay.unwrap();
        assert!(retry_after >= Duration::from_millis(100), "{retry_after:?}");
        let pushback = status.metadata().get("grpc-retry-pushback-ms").unwrap().to_str().unwrap();
        assert_eq!(pushback.parse::<u128>().unwrap(), retry_after.as_millis());
    }
    let in_lane: usize = door.queues[0]
        .turns
        .try_iter()
        .map(|turn| match turn {
            Turn::Chunk(chunk, _) => chunk.n_reports(),
            _ => 0,
        })
        .sum();
    assert!(in_lane <= QUEUE / 2, "{in_lane} reports in a lane of {} slots", QUEUE / 2);
    assert!(in_lane >= QUEUE / 2 - 2 * 512, "only {in_lane}: the slots are there to be used");
    assert_eq!(door.stats.received.get(), in_lane as u64 + 1_000, "what was refused was never received (I4)");
    assert_eq!(door.stats.overload_refusals.get(), 4);

    stop.store(true, Ordering::Relaxed);
    healthy.join().unwrap();
    door.ingest.stop();
    door.ingest.finish(Instant::now() + Duration::from_secs(1));
}

/// h2 counts each frame of less than 256 bytes that nobody reads against its sender. With windows of another size a flood
/// of small frames is taken for an attack, and ends honest agents with their whole connection.
#[test]
fn an_agent_that_sends_small_frames_into_a_stopped_lane_is_refused_as_overload_and_not_cut_off() {
    let mut door = door();
    let (stop, healthy) = drain(door.queues.pop().unwrap());
    // An agent has one stream at a time.
    let clients: Vec<_> = (0..4).map(|_| Client::connect(door.ingest.addr())).collect();
    let flood = |client: &Client| {
        let service = door.services[0].clone();
        client.stream_in_small_frames((1..).map(move |n| cpu(&service, 1.0).numbered(n)).take(200_000))
    };
    let floods: Vec<_> = clients.iter().map(flood).collect();
    eventually(SOON, "the lane is full", || door.queues[0].waiting.load(Ordering::Relaxed) == 4);
    for flood in floods {
        let status = flood.wait().unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    }
    // On the same connections, which are still there.
    for client in clients {
        let other = client.send((1..=1_000).map(|n| cpu(&door.services[1], 1.0).numbered(n))).unwrap();
        assert_eq!(other.accepted, 1_000);
    }

    stop.store(true, Ordering::Relaxed);
    healthy.join().unwrap();
    door.ingest.stop();
    door.ingest.finish(Instant::now() + Duration::from_secs(1));
}

#[test]
fn a_flood_through_a_small_queue_is_slowed_down_and_not_lost() {
    let _alone = alone();
    let server = Setup::new().args("--queue-reports 1024 --workers 2").start();
    let work = Workload::new(100_000, 640, 64, Breach::OneIn(100));
    work.send_all(&server);
    work.assert_stored(&server);
    assert!(server.peak_mib() < 200, "{} MiB", server.peak_mib());
}
