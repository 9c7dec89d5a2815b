//! Senders: readings from a walk around the thresholds, numbered or not, kept until there is a receipt for them.

use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    rc::Rc,
    sync::Arc,
};

use rand::{RngExt, rngs::SmallRng};
use tokio::sync::oneshot;

use crate::{
    dispatch::StreamAccount,
    model::{InstanceKey, Name, Timestamp},
};

/// One report as it stays for ever, however often it is sent.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) key: Arc<InstanceKey>,
    pub(super) epoch: u64,
    /// 0: not numbered.
    pub(super) sequence: u64,
    pub(super) at: Timestamp,
    pub(super) metrics: Vec<(Name, f64)>,
    pub(super) leaving: bool,
    /// Whether intake would take it; a refused one is a sign of life.
    pub(super) is_valid: bool,
}

/// How many reports of an instance a receipt speaks for: of those that the lanes have taken, in their order.
pub(super) type Covered = Rc<RefCell<Vec<(Arc<InstanceKey>, u64)>>>;

/// A stream in progress.
pub(super) struct Stream {
    pub(super) account: Arc<StreamAccount>,
    /// How many of the buffer have gone into it.
    pub(super) n_sent: usize,
    /// What it waits for, once it is over.
    pub(super) receipts: Option<Vec<oneshot::Receiver<()>>>,
    pub(super) covered: Covered,
}

/// What one instance measures.
struct Probe {
    key: Arc<InstanceKey>,
    sequence: u64,
    cpu: f64,
    mem: f64,
    n: f64,
}

pub(super) struct Agent {
    pub(super) is_numbered: bool,
    epoch: u64,
    pub(super) n_epochs: u64,
    probes: Vec<Probe>,
    /// What has no receipt, oldest first, of earlier processes too.
    pub(super) buffer: VecDeque<Sample>,
    pub(super) stream: Option<Stream>,
    /// By how much its clock is behind, in nanoseconds.
    behind: i64,
    /// Every report that it will have sent when all is over.
    pub(super) made: Vec<Sample>,
    /// Per instance and numbering: the last number for which there was a receipt.
    pub(super) receipted: BTreeMap<(Arc<InstanceKey>, u64), u64>,
}

impl Agent {
    pub(super) fn new(number: usize, rng: &mut SmallRng) -> Self {
        let probe = |n: usize, rng: &mut SmallRng| Probe {
            key: Arc::new(InstanceKey::new(&format!("s{number}"), &format!("i{n}"))),
            sequence: 0,
            cpu: rng.random_range(70..96).into(),
            mem: rng.random_range(45..75).into(),
            n: 0.0,
        };
        let n_probes = rng.random_range(1..=3);
        let is_numbered = rng.random_bool(0.8);
        Self {
            is_numbered,
            epoch: if is_numbered { rng.random() } else { 0 },
            n_epochs: 1,
            probes: (0..n_probes).map(|n| probe(n, rng)).collect(),
            buffer: VecDeque::new(),
            stream: None,
            behind: 0,
            made: Vec::new(),
            receipted: BTreeMap::new(),
        }
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &Arc<InstanceKey>> {
        self.probes.iter().map(|probe| &probe.key)
    }

    /// One of its instances takes a reading.
    pub(super) fn measure(&mut self, now: Timestamp, rng: &mut SmallRng) {
        if rng.random_bool(0.01) {
            // Its clock is set, back or forth.
            self.behind = rng.random_range(-20..60) * 1_000_000_000;
        }
        let n_probes = self.probes.len();
        let probe = &mut self.probes[rng.random_range(0..n_probes)];
        let mut walk = |value: f64, low: f64, high: f64| (value + f64::from(rng.random_range(-9..=9))).clamp(low, high);
        (probe.cpu, probe.mem) = (walk(probe.cpu, 60.0, 100.0), walk(probe.mem, 40.0, 85.0));
        probe.n = if rng.random_bool(0.05) { 0.0 } else { probe.n + f64::from(rng.random_range(0..12)) };
        let all = [("cpu", probe.cpu, 0.95), ("mem", probe.mem, 0.7), ("n", probe.n, 0.5)];
        let metrics = all.into_iter().filter(|(.., often)| rng.random_bool(*often));
        let metrics = metrics.map(|(name, value, _)| (name.into(), value)).collect();
        let sequence = if self.is_numbered {
            // Gaps are allowed.
            probe.sequence += if rng.random_bool(0.05) { 3 } else { 1 };
            probe.sequence
        } else {
            0
        };
        let sample = Sample {
            key: probe.key.clone(),
            epoch: self.epoch,
            sequence,
            at: now.shifted(-self.behind),
            metrics,
            leaving: rng.random_bool(0.01),
            is_valid: !rng.random_bool(0.02),
        };
        self.made.push(sample.clone());
        self.buffer.push_back(sample);
    }

    /// Its process ends and another begins: with a numbering of its own, and what the first had left in its spool.
    pub(super) fn crash(&mut self, rng: &mut SmallRng) {
        self.break_off();
        if self.is_numbered {
            self.epoch = rng.random();
            self.n_epochs += 1;
            self.probes.iter_mut().for_each(|probe| probe.sequence = 0);
        }
    }

    /// Its stream is gone, and it does not know what has arrived. What it can number it sends again; of what it cannot,
    /// a second try could be a second alert.
    pub(super) fn break_off(&mut self) {
        if let Some(stream) = self.stream.take()
            && !self.is_numbered
        {
            self.buffer.drain(..stream.n_sent);
        }
    }

    /// There is a receipt for all of its stream.
    pub(super) fn forget_receipted(&mut self, stream: &Stream) {
        for sample in self.buffer.drain(..stream.n_sent).filter(|sample| sample.is_valid && sample.sequence > 0) {
            let mark = self.receipted.entry((sample.key, sample.epoch)).or_default();
            *mark = (*mark).max(sample.sequence);
        }
    }
}
