//! What rules cost: the time of one report against its rules, and the bytes that an instance takes, for 10,000 instances.
//!
//! `cargo bench --bench rules [-- INSTANCES]`. Rules that look over windows are measured with windows that are full: five
//! minutes of a report a second. One thread, no network, no disk; the instances do not fit into any cache.
#![expect(clippy::unwrap_used, reason = "a program for people to run and read")]
#![expect(clippy::print_stdout, reason = "a program for people to run and read")]

use std::{
    fmt::Write as _,
    sync::Arc,
    time::{Duration, Instant},
};

use gopherwatch::{
    model::{InstanceKey, Layout, Name, Readings, Timestamp},
    rules::{Reading, RuleSet, evaluate, parse_file},
    state::{Heard, InstanceState},
};

const USUAL_INSTANCES: usize = 10_000;
const ROUNDS_TO_FILL: usize = 300;
const ROUNDS: usize = 10;
const METRICS: [&str; 4] = ["cpu_percent", "memory_percent", "request_count", "disk_percent"];

/// `n_plain` comparisons of a metric with a number, and `n_windows` of a window of one, none of which is ever true.
fn rules(n_plain: usize, n_windows: usize) -> RuleSet {
    const FUNCTIONS: [&str; 5] = ["avg", "max", "rate", "stddev", "count"];
    const SPANS: [&str; 3] = ["1m", "2m", "5m"];
    let mut text = String::new();
    for n in 0..n_plain {
        writeln!(text, "[[rules]]\nname = \"plain-{n}\"\nwhen = \"{} > 1e{}\"", METRICS[n % 4], 9 + n % 20).unwrap();
    }
    for n in 0..n_windows {
        let (function, span) = (FUNCTIONS[n % 5], SPANS[n % 3]);
        writeln!(text, "[[rules]]\nname = \"window-{n}\"\nwhen = \"{function}({}, {span}) > 1e9\"", METRICS[n % 4])
            .unwrap();
    }
    RuleSet::new(parse_file(&text, None).unwrap().rules.unwrap_or_default(), "bench".to_owned())
}

/// Instances under these rules, and the metrics that their reports share.
struct Fleet {
    instances: Vec<InstanceState>,
    layout: Arc<Layout>,
    rounds: u64,
}

impl Fleet {
    fn new(rules: &RuleSet, n_instances: usize) -> Self {
        let instance = |n| {
            let key = Arc::new(InstanceKey::new(&format!("service-{n}"), "default"));
            let plan = rules.plan(&key);
            InstanceState::new(key, plan, Heard::default())
        };
        Self {
            instances: (0..n_instances).map(instance).collect(),
            layout: Arc::new(Layout::new(METRICS.map(Name::from))),
            rounds: 0,
        }
    }

    /// A report of every instance, a second after the one before.
    fn round(&mut self) {
        self.rounds += 1;
        let at = Timestamp::from_micros(1_800_000_000_000_000).plus(Duration::from_secs(self.rounds));
        for (n, instance) in self.instances.iter_mut().enumerate() {
            let value = |metric: usize| ((n + metric * 7) as u64 + self.rounds) as f64 % 80.0;
            let values: [f64; 4] = std::array::from_fn(value);
            let metrics = Readings::new(&self.layout, &values);
            let key = instance.key.clone();
            let reading = Reading {
                key: &key,
                metrics,
                at,
                wire_time: 1,
                received_at: at,
                skew_nanos: 0,
                epoch: 1,
                sequence: self.rounds,
            };
            let outcome = evaluate(&instance.progress, &reading);
            instance.take_readings(metrics, at, Heard::default());
            assert!(instance.progress.apply(outcome, metrics, at).is_empty(), "no rule is ever true");
        }
    }
}

fn main() {
    // Cargo adds `--bench`.
    let n_instances = std::env::args().find_map(|arg| arg.parse().ok()).unwrap_or(USUAL_INSTANCES);
    println!("{n_instances} instances, 4 metrics, {ROUNDS_TO_FILL} reports each before the measurement");
    println!("| rules | ns per report | bytes per instance |\n|---|---|---|");
    for (what, n_plain, n_windows) in
        [("none", 0, 0), ("3 plain", 3, 0), ("50 plain", 50, 0), ("25 plain, 25 with windows", 25, 25)]
    {
        let rules = rules(n_plain, n_windows);
        let mut fleet = None;
        let memory = allocation_counter::measure(|| {
            let mut filled = Fleet::new(&rules, n_instances);
            (0..ROUNDS_TO_FILL).for_each(|_| filled.round());
            fleet = Some(filled);
        });
        let mut fleet = fleet.unwrap();
        let began = Instant::now();
        (0..ROUNDS).for_each(|_| fleet.round());
        let nanos = began.elapsed().as_nanos() / (ROUNDS * n_instances) as u128;
        let bytes = memory.bytes_current / i64::try_from(n_instances).unwrap();
        println!("| {what} | {nanos} | {bytes} |");
    }
}
