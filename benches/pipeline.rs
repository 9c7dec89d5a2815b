//! How many reports a second the stages take: dispatch, evaluate and state alone, and everything from socket to receipt.
//!
//! `cargo bench --bench pipeline [-- FILTER]`. The groups: `evaluate` (no network, no disk), `share` (where sharing a
//! batch out begins to pay: the reason of `evaluate::PARALLEL_FROM`), `end-to-end` (agents on loopback, the journal on
//! disk; the generator runs beside the server, on the same cores).
#![expect(clippy::unwrap_used, reason = "a program for people to run and read")]

#[path = "../examples/load/call.rs"]
#[expect(dead_code, reason = "the load generator uses all of it")]
mod call;
#[path = "../examples/load/fleet.rs"]
#[expect(dead_code, reason = "the load generator uses all of it")]
mod fleet;

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use crossbeam_channel::bounded;
use futures_util::future::join_all;
use gopherwatch::{
    app::{App, Outcome},
    config::{Config, StoreConfig},
    dispatch::{self, ByName, Chunk, Dispatcher, Item, StreamAccount},
    evaluate,
    journal::Entry,
    log::Format,
    model::{InstanceKey, Name, Timestamp},
    rule_file::RuleFile,
    rules::RuleSet,
    state::State,
    stats::Stats,
};
use slog::{Discard, Logger, o};
use tokio::runtime::{Builder, Runtime};
use tonic::transport::Endpoint;

use call::{CallOptions, call};
use fleet::{Fleet, FleetOptions, Part};

const N_INSTANCES: usize = 1_000;
/// Reports of one iteration without network: half of the server's default queue, so that nobody waits for a slot.
const N_REPORTS: usize = 32_768;
/// Reports of one iteration end to end.
const N_SENT: u64 = 200_000;

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1_500));
    targets = evaluate, share, end_to_end
}
criterion_main!(benches);

/// 64 chunks of 512 reports of 1,000 instances, all ready, through dispatch and the lanes.
fn evaluate(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("evaluate");
    group.throughput(Throughput::Elements(N_REPORTS as u64));
    for n_workers in [1, 2] {
        for (name, one_in) in [("no violation", 0), ("1 % violate", 100), ("all violate", 1)] {
            let sizes = Sizes { chunk: 512, max_batch: evaluate::MAX_BATCH, parallel_from: evaluate::PARALLEL_FROM };
            let mut pipeline = Pipeline::start(n_workers, n_workers, sizes, one_in);
            group.bench_function(BenchmarkId::new(name, n_workers), |bencher| pipeline.bench(bencher));
            pipeline.stop();
        }
    }
}

/// Batches of one size, as a plain loop and shared out: for one lane beside an idle core, and for two busy lanes.
fn share(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("share");
    group.throughput(Throughput::Elements(N_REPORTS as u64)).measurement_time(Duration::from_millis(800));
    for n_workers in [1, 2] {
        for batch in [64, 128, 256, 512, 1_024, 2_048, 4_096] {
            for (name, parallel_from) in [("loop", usize::MAX), ("pool", 0)] {
                let sizes = Sizes { chunk: batch, max_batch: batch, parallel_from };
                let mut pipeline = Pipeline::start(n_workers, 2, sizes, 0);
                let id = BenchmarkId::new(format!("{n_workers} lanes, {name}"), batch);
                group.bench_function(id, |bencher| pipeline.bench(bencher));
                pipeline.stop();
            }
        }
    }
}

struct Sizes {
    chunk: usize,
    max_batch: usize,
    parallel_from: usize,
}

/// Dispatcher and lanes as the server has them, and a journal that forgets everything at once.
struct Pipeline {
    runtime: Runtime,
    dispatcher: Dispatcher,
    lanes: Vec<thread::JoinHandle<()>>,
    journal: thread::JoinHandle<()>,
    stats: Arc<Stats>,
    state: Arc<State>,
    keys: Vec<Arc<InstanceKey>>,
    names: [Name; 4],
    /// One stream for each lane.
    streams: Vec<(Arc<StreamAccount>, ByName)>,
    chunk: usize,
    one_in: u64,
    round: u64,
    n_sent: u64,
}

impl Pipeline {
    fn start(n_workers: usize, n_helpers: usize, sizes: Sizes, one_in: u64) -> Self {
        let stats = Arc::new(Stats::new());
        let state = Arc::new(State::new(n_workers, 200_000));
        let rules = Arc::new(RuleSet::built_in(None));
        let options = dispatch::Options { n_lanes: n_workers, queue_reports: 4 * N_REPORTS };
        let (dispatcher, queues) = Dispatcher::new(options, stats.clone());
        let (entries, input) = bounded::<Entry>(64);
        let journal = thread::spawn(move || {
            for entry in input {
                entry.receipts.into_iter().for_each(dispatch::Receipt::give);
            }
        });
        let options = evaluate::Options {
            stale_after: None,
            forget_after: Duration::from_secs(86_400),
            n_helpers,
            max_batch: sizes.max_batch,
            parallel_from: sizes.parallel_from,
            max_forgotten: 1_000,
        };
        let log = Logger::root(Discard, o!());
        let lanes = evaluate::start(options, queues, (state.clone(), rules), entries, stats.clone(), &log).unwrap();
        Self {
            runtime: Builder::new_current_thread().enable_time().build().unwrap(),
            dispatcher,
            lanes,
            journal,
            stats,
            state,
            keys: (0..N_INSTANCES).map(|n| Arc::new(InstanceKey::new(&format!("service-{n:04}"), "host"))).collect(),
            names: ["cpu_percent", "memory_percent", "request_count", "disk_percent"].map(Name::from),
            streams: (0..n_workers)
                .map(|epoch| (Arc::new(StreamAccount::new(epoch as u64, None)), ByName::new(n_workers)))
                .collect(),
            chunk: sizes.chunk,
            one_in,
            round: 0,
            n_sent: 0,
        }
    }

    fn bench(&mut self, bencher: &mut criterion::Bencher<'_>) {
        // Making the reports is ingest's work and not measured here; freeing them is the lanes'.
        bencher.iter_custom(|n_rounds| {
            let mut took = Duration::ZERO;
            for _ in 0..n_rounds {
                let chunks = self.chunks();
                let began = Instant::now();
                self.run(chunks);
                took += began.elapsed();
            }
            took
        });
    }

    fn run(&mut self, chunks: Vec<(usize, Box<Chunk>)>) {
        self.runtime.block_on(async {
            for (lane_idx, chunk) in chunks {
                self.dispatcher.dispatch(lane_idx, chunk).await.unwrap();
            }
            let mut given = Vec::new();
            for lane_idx in 0..self.state.n_lanes() {
                given.push(self.dispatcher.barrier(lane_idx, Vec::new()).await.unwrap());
            }
            assert!(join_all(given).await.iter().all(Result::is_ok), "the lanes live");
        });
    }

    /// The reports of one iteration, by lane. Instances of one chunk are of one stream, each again in every round.
    fn chunks(&mut self) -> Vec<(usize, Box<Chunk>)> {
        let n_lanes = self.state.n_lanes();
        let (received_at, arrived) = (Timestamp::now(), Instant::now());
        let mut chunks: Vec<Vec<Box<Chunk>>> = (0..n_lanes).map(|_| Vec::new()).collect();
        let mut n_packed = vec![0; n_lanes];
        for n in 0..N_REPORTS as u64 {
            let sequence = self.round * N_REPORTS as u64 + n + 1;
            let key = &self.keys[n as usize % N_INSTANCES];
            // Scattered, so that episodes begin and end.
            let scattered = sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
            let cpu = if self.one_in > 0 && scattered.is_multiple_of(self.one_in) { 97.5 } else { 12.5 };
            let values = [cpu, 40.0, sequence as f64, 60.0];
            let metrics: [(Name, f64); 4] = std::array::from_fn(|idx| (self.names[idx].clone(), values[idx]));
            let item = Item { place: n, wire_time: sequence, sequence, ..Item::default() };
            let lane_idx = self.state.lane_of(key);
            let (account, packed) = &mut self.streams[lane_idx];
            packed.put(lane_idx, key, item, &metrics);
            n_packed[lane_idx] += 1;
            if usize::is_multiple_of(n_packed[lane_idx], self.chunk) {
                chunks[lane_idx].extend(packed.packer().chunk(lane_idx, account, received_at, arrived));
            }
        }
        for (lane_idx, (account, packed)) in self.streams.iter_mut().enumerate() {
            chunks[lane_idx].extend(packed.packer().chunk(lane_idx, account, received_at, arrived));
        }
        self.round += 1;
        self.n_sent += N_REPORTS as u64;
        // Lane by lane in turns, as a server's streams are.
        let most = chunks.iter().map(Vec::len).max().unwrap_or(0);
        let mut lanes: Vec<_> = chunks.into_iter().map(Vec::into_iter).collect();
        let mut in_turns = Vec::new();
        for _ in 0..most {
            let next = lanes.iter_mut().enumerate().filter_map(|(lane_idx, lane)| Some((lane_idx, lane.next()?)));
            in_turns.extend(next);
        }
        in_turns
    }

    fn stop(self) {
        let balance = self.stats.balance();
        assert_eq!(balance.accepted, self.n_sent, "every report was new and was evaluated (I4): {balance:?}");
        drop(self.dispatcher);
        self.lanes.into_iter().for_each(|lane| lane.join().unwrap());
        self.journal.join().unwrap();
    }
}

/// Streams on connections of their own, from the first report to the last receipt.
fn end_to_end(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("end-to-end");
    group.throughput(Throughput::Elements(N_SENT)).measurement_time(Duration::from_secs(3));
    for n_streams in [8, 64] {
        let dir = tempfile::tempdir().unwrap();
        let app = App::start(config(dir.path()), &Logger::root(Discard, o!())).unwrap();
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let endpoint = Endpoint::from_shared(format!("http://{}", app.grpc_addr())).unwrap().tcp_nodelay(true);
        let mut channels: Vec<_> = (0..n_streams).map(|_| runtime.block_on(endpoint.connect()).unwrap()).collect();
        let n_services = N_INSTANCES;
        let options =
            FleetOptions { n_services, n_metrics: 4, n_own: 0, violating: 0.0, numbered: true, shuffled: false };
        let fleet = Arc::new(Fleet::new(options));
        let mut epoch = 0;
        group.bench_function(BenchmarkId::new("streams", n_streams), |bencher| {
            bencher.iter(|| {
                epoch += 1;
                let calls = channels.iter_mut().enumerate().map(|(stream_idx, channel)| {
                    let part = Part { stream_idx, n_streams, n_services };
                    let positions = 0..N_SENT / n_streams as u64;
                    let fleet = fleet.clone();
                    call(channel, CallOptions { fleet, part, positions, n_write: 128, pace: None, until: None, epoch })
                });
                let receipts = runtime.block_on(join_all(calls));
                let accepted: u64 = receipts.into_iter().map(|receipt| receipt.unwrap().summary.accepted).sum();
                assert_eq!(accepted, N_SENT, "every report was new and was evaluated");
            });
        });
        drop((channels, runtime));
        assert_eq!(app.drain(true), Outcome::Clean);
    }
}

fn config(data_dir: &std::path::Path) -> Config {
    Config {
        doors: gopherwatch::doors::Settings::default(),
        grpc_addr: "127.0.0.1:0".parse().unwrap(),
        http_addr: "127.0.0.1:0".parse().unwrap(),
        rule_file: RuleFile::new(Some(data_dir.join("no-rules.toml")), None),
        rule_text: None,
        rules: RuleSet::built_in(None),
        receivers: Vec::new(),
        data_dir: data_dir.to_owned(),
        n_workers: 2,
        n_helpers: 2,
        queue_reports: 65_536,
        retention: None,
        stale_after: None,
        forget_after: Duration::from_secs(86_400),
        journal_max: 4 << 30,
        max_instances: 200_000,
        max_instances_per_stream: 10_000,
        shutdown_timeout: Duration::from_secs(10),
        drain_store: false,
        log_format: Format::Json,
        log_level: slog::Level::Info,
        store: StoreConfig::Sqlite,
        warnings: Vec::new(),
    }
}
