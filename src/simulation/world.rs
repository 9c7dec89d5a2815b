//! The schedule: what happens next is always up to the dice.

use std::{
    collections::{BTreeMap, VecDeque},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use rand::{RngExt, SeedableRng, rngs::SmallRng};
use rayon::ThreadPool;
use tempfile::TempDir;
use tokio::sync::oneshot::error::TryRecvError;
use uuid::Uuid;

use super::{
    agent::{Agent, Stream},
    disk::{Fault, Wire},
    oracle::Oracle,
    rules,
    server::{Ground, Server},
    sink::Ledger,
    store::{Mood, SimulatedStore},
};
use crate::{dispatch::StreamAccount, evaluate::Moment, model::Timestamp, rules::RuleSet};

/// When every run begins.
const START: Timestamp = Timestamp::from_nanos(1_800_000_000_000_000_000);

/// Something that goes wrong, or is changed under way.
type Trouble = fn(&mut World);

/// How rough a run is: of a thousand steps so many are of each kind.
struct Temper {
    crashes: u32,
    disk: u32,
    store: u32,
    reloads: u32,
    forgets: u32,
    network: u32,
}

pub(super) struct World {
    pub(super) rng: SmallRng,
    pub(super) now: Duration,
    base: Instant,
    temper: Temper,
    _dir: TempDir,
    pub(super) ground: Ground,
    pub(super) agents: Vec<Agent>,
    pub(super) server: Option<Server>,
    pub(super) store: Arc<SimulatedStore>,
    /// Events behind this one are for the store that there is now.
    pub(super) store_since: u64,
    /// And so are the alerts that fired as it came.
    pub(super) introduced: Vec<Uuid>,
    refuses_one_in: u64,
    pub(super) rule_text: String,
    pub(super) has_reloaded: bool,
    pub(super) oracle: Oracle,
    pub(super) ledger: Ledger,
    pub(super) n_steps: u64,
    pub(super) faults: BTreeMap<&'static str, u64>,
    steps: VecDeque<String>,
    n_shown: usize,
}

impl World {
    /// `n_shown`: so many of the last steps are remembered for people.
    pub(super) fn new(seed: u64, pool: Arc<ThreadPool>, n_shown: usize) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let dir = TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).expect("a folder");
        let mut some = |most: u32| if rng.random_bool(0.6) { rng.random_range(0..=most) } else { 0 };
        let temper = Temper {
            crashes: some(25),
            disk: some(25),
            store: some(40),
            reloads: some(25),
            forgets: some(10),
            network: some(80),
        };
        let agents = (0..rng.random_range(1..=4)).map(|number| Agent::new(number, &mut rng)).collect();
        let refuses_one_in = if rng.random_bool(0.3) { rng.random_range(2..8) } else { 0 };
        let ground = Ground {
            dir: dir.path().to_owned(),
            n_lanes: rng.random_range(1..=3),
            max_batch: [1, 4, crate::evaluate::MAX_BATCH][rng.random_range(0..3)],
            max_commit_events: [1, 3, 1_000][rng.random_range(0..3)],
            pool,
            hand: Arc::new(AtomicI64::new(START.as_nanos())),
            wire: Rc::new(Wire::default()),
        };
        let rule_text = rules::draw(&mut rng);
        let mut world = Self {
            rng,
            now: Duration::ZERO,
            base: Instant::now(),
            temper,
            _dir: dir,
            ground,
            agents,
            server: None,
            store: Arc::new(SimulatedStore::new(0, refuses_one_in)),
            store_since: 0,
            introduced: Vec::new(),
            refuses_one_in,
            rule_text,
            has_reloaded: false,
            oracle: Oracle::default(),
            ledger: Ledger::default(),
            n_steps: 0,
            faults: BTreeMap::new(),
            steps: VecDeque::new(),
            n_shown,
        };
        world.start();
        world
    }

    pub(super) fn moment(&self) -> Moment {
        Moment { instant: self.base + self.now, time: START.plus(self.now) }
    }

    pub(super) fn rules(&self) -> RuleSet {
        rules::parse(&self.rule_text)
    }

    /// The last steps, for people.
    pub(super) fn last_steps(&self) -> String {
        self.steps.iter().fold(String::new(), |all, step| all + step + "\n")
    }

    fn note(&mut self, what: impl Into<String>) {
        if self.steps.len() == self.n_shown {
            self.steps.pop_front();
        }
        self.steps.push_back(format!("{:>6} {:>12.3} s  {}", self.n_steps, self.now.as_secs_f64(), what.into()));
    }

    fn fault(&mut self, what: &'static str) {
        *self.faults.entry(what).or_default() += 1;
        self.note(what);
    }

    pub(super) fn pass(&mut self, by: Duration) {
        self.now += by;
        self.ground.hand.store(START.plus(self.now).as_nanos(), Ordering::Relaxed);
        self.store.set_now(self.now);
    }

    pub(super) fn start(&mut self) {
        let (now, rules) = (self.moment(), self.rules());
        let server = Server::start(&self.ground, &self.store, rules, &mut self.oracle, now);
        self.server = Some(server);
        for agent in &self.agents {
            for ((key, epoch), sequence) in &agent.receipted {
                let mark = self.oracle.marks(key).and_then(|marks| marks.get(epoch)).copied().unwrap_or(0);
                assert!(
                    mark >= *sequence,
                    "{key}: there was a receipt for {sequence}, the journal knows of {mark} (I9)"
                );
            }
        }
        self.note("the server starts");
    }

    /// The process is gone with all that was in its memory.
    pub(super) fn crash(&mut self) {
        self.server = None;
        self.ground.wire.fault.set(Fault::None);
        self.ground.wire.n_committed.set(0);
        self.oracle.crash();
        self.agents.iter_mut().for_each(Agent::break_off);
    }

    fn restart(&mut self) {
        let down = Duration::from_millis(self.rng.random_range(5..30_000));
        self.pass(down);
        if self.rng.random_bool(0.3) {
            self.has_reloaded = true;
            self.rule_text = rules::draw(&mut self.rng);
            self.note("the rules were changed while it was down");
        }
        let is_replaced = self.rng.random_range(0..100) < self.temper.store / 2;
        if is_replaced {
            self.fault("another store");
            let number = self.faults["another store"];
            self.store = Arc::new(SimulatedStore::new(number, self.refuses_one_in));
            self.store.set_now(self.now);
        }
        self.start();
        if let Some(server) = self.server.as_ref().filter(|_| is_replaced) {
            self.store_since = server.store_cursor.position();
            self.introduced = server.state.active_alerts().iter().map(|alert| alert.alert_id).collect();
        }
    }

    /// Something happens.
    pub(super) fn step(&mut self) {
        self.n_steps += 1;
        let by = match self.rng.random_range(0..1_000) {
            0..600 => self.rng.random_range(1..300),
            600..950 => self.rng.random_range(300..4_000),
            950..992 => self.rng.random_range(4_000..40_000),
            992..999 => self.rng.random_range(40_000..150_000),
            _ => self.rng.random_range(150_000..900_000),
        };
        self.pass(Duration::from_millis(by));
        let mut die = self.rng.random_range(0..1_000_u32);
        let temper = &self.temper;
        let troubles: [(u32, Trouble); 6] = [
            (temper.crashes, Self::trouble_process),
            (temper.disk, Self::trouble_disk),
            (temper.store, Self::trouble_store),
            (temper.reloads, Self::reload),
            (temper.forgets, Self::forget),
            (temper.network, Self::trouble_network),
        ];
        for (weight, trouble) in troubles {
            if die < weight {
                return trouble(self);
            }
            die -= weight;
        }
        match self.rng.random_range(0..100) {
            0..22 => self.measure(),
            22..38 => self.send(),
            38..46 => self.end_stream(),
            46..64 => self.run_lane(),
            64..78 => self.run_journal(),
            78..88 => self.run_writer(),
            88..92 => self.run_sinks(),
            _ => self.tick(),
        }
    }

    fn server(&mut self) -> &mut Server {
        self.server.as_mut().expect("a server runs between steps")
    }

    fn any_agent(&mut self) -> usize {
        self.rng.random_range(0..self.agents.len())
    }

    fn measure(&mut self) {
        let (agent_idx, now) = (self.any_agent(), self.moment());
        for _ in 0..self.rng.random_range(1..=4) {
            self.agents[agent_idx].measure(now.time, &mut self.rng);
        }
    }

    /// Some of what an agent has goes into its stream.
    pub(super) fn send(&mut self) {
        let agent_idx = self.any_agent();
        let most = self.rng.random_range(1..=12);
        self.send_of(agent_idx, most);
    }

    pub(super) fn send_of(&mut self, agent_idx: usize, most: usize) {
        let now = self.moment();
        let agent = &mut self.agents[agent_idx];
        let Some(first) = agent.buffer.front() else { return };
        let epoch = first.epoch;
        let stream = agent.stream.get_or_insert_with(|| Stream {
            account: Arc::new(StreamAccount::new(epoch, Some(0))),
            n_sent: 0,
            receipts: None,
            covered: Rc::default(),
        });
        if stream.receipts.is_some() {
            return;
        }
        let waiting = agent.buffer.iter().skip(stream.n_sent).take_while(|sample| sample.epoch == epoch);
        let samples: Vec<_> = waiting.take(most).cloned().collect();
        let place = stream.n_sent as u64;
        stream.n_sent += samples.len();
        let account = stream.account.clone();
        self.note(format!("agent {agent_idx} sends {} reports from {place} on", samples.len()));
        self.server().arrive(&account, &samples, place, now);
    }

    fn end_stream(&mut self) {
        let agent_idx = self.any_agent();
        self.end_stream_of(agent_idx);
    }

    /// An agent ends its stream and waits for the receipt.
    pub(super) fn end_stream_of(&mut self, agent_idx: usize) {
        let (agent, server) = (&mut self.agents[agent_idx], self.server.as_mut().expect("it runs"));
        let Some(stream) = agent.stream.as_mut().filter(|stream| stream.receipts.is_none() && stream.n_sent > 0) else {
            return;
        };
        let samples: Vec<_> = agent.buffer.iter().take(stream.n_sent).cloned().collect();
        stream.receipts = Some(server.end_stream(&samples, &stream.covered));
        self.note(format!("agent {agent_idx} ends its stream"));
    }

    /// Receipts arrive, or are lost on their way.
    pub(super) fn poll(&mut self, loses: bool) {
        for agent_idx in 0..self.agents.len() {
            let agent = &mut self.agents[agent_idx];
            let Some(receipts) = agent.stream.as_mut().and_then(|stream| stream.receipts.as_mut()) else { continue };
            let mut has_failed = false;
            receipts.retain_mut(|receipt| match receipt.try_recv() {
                Ok(()) => false,
                Err(TryRecvError::Empty) => true,
                Err(TryRecvError::Closed) => {
                    has_failed = true;
                    false
                }
            });
            if has_failed || !receipts.is_empty() {
                if has_failed {
                    agent.break_off();
                }
                continue;
            }
            let stream = agent.stream.as_ref().expect("it was there a line ago");
            let summary = stream.account.summary();
            assert_eq!(summary.received, stream.n_sent as u64, "a receipt is for all of the stream");
            for (key, n_taken) in stream.covered.borrow().iter() {
                let n_durable = self.oracle.n_durable(key);
                assert!(n_durable >= *n_taken, "{key}: a receipt for {n_taken} reports, {n_durable} are durable (I9)");
            }
            if loses && self.rng.random_bool(0.15) {
                self.agents[agent_idx].break_off();
                self.fault("a receipt is lost");
            } else {
                let stream = agent.stream.take().expect("it was there a line ago");
                agent.forget_receipted(&stream);
                self.note(format!("agent {agent_idx} has a receipt"));
            }
        }
    }

    fn run_lane(&mut self) {
        let now = self.moment();
        let Self { server, oracle, rng, .. } = self;
        let server = server.as_mut().expect("it runs");
        let first = rng.random_range(0..server.n_lanes());
        for n in 0..rng.random_range(1..=4) {
            server.run_lane((first + n) % server.n_lanes(), oracle, now, rng);
        }
    }

    pub(super) fn run_journal(&mut self) {
        let (now, commits) = (self.moment(), self.rng.random_bool(0.8));
        let Self { server, oracle, .. } = self;
        let server = server.as_mut().expect("it runs");
        let ended = server.run_journal(commits, oracle, now);
        if ended.is_ok() {
            self.server().check_accounts();
            return self.poll(true);
        }
        // What is receipted before the end counts; who waits hears nothing.
        let fault = self.ground.wire.fault.get();
        assert!(matches!(fault, Fault::DiesBefore | Fault::DiesAfter), "the journal ended, and the disk is well");
        self.poll(true);
        self.crash();
        self.note("the journal has ended, and the server with it");
        self.restart();
    }

    fn run_writer(&mut self) {
        let now = self.moment();
        for _ in 0..self.rng.random_range(1..=4) {
            self.server().run_writer(now);
        }
        self.server().check_accounts();
    }

    fn run_sinks(&mut self) {
        let (log, limit) = (self.rng.random_bool(0.6), self.rng.random_range(1..=20));
        let Self { server, ledger, .. } = self;
        server.as_mut().expect("it runs").run_sinks(ledger, log, limit);
    }

    fn tick(&mut self) {
        let late = if self.rng.random_bool(0.1) { self.rng.random_range(0..20_000) } else { 0 };
        let due = self.moment().instant - Duration::from_millis(late);
        self.server().tick(due);
    }

    fn trouble_process(&mut self) {
        if self.rng.random_bool(0.3) {
            let agent_idx = self.any_agent();
            // A server remembers eight numberings of an instance.
            if self.agents[agent_idx].n_epochs < 7 {
                self.agents[agent_idx].crash(&mut self.rng);
                self.fault("an agent crashes");
            }
            return;
        }
        if self.rng.random_bool(0.3) {
            self.fault("the server is stopped");
            self.stop();
        } else {
            self.fault("the server crashes");
        }
        self.crash();
        self.restart();
    }

    /// A graceful stop: lanes and the journal do what is left, if the disk lets them.
    fn stop(&mut self) {
        for _ in 0..50 {
            if !self.work_off() || self.server().is_idle() {
                break;
            }
        }
        self.poll(false);
    }

    /// Lanes and the journal go through what waits for them; false: the journal has ended.
    pub(super) fn work_off(&mut self) -> bool {
        let now = self.moment();
        let Self { server, oracle, rng, .. } = self;
        let server = server.as_mut().expect("it runs");
        for lane_idx in 0..server.n_lanes() {
            while server.run_lane(lane_idx, oracle, now, rng) {}
        }
        let ended = server.run_journal(true, oracle, now);
        self.pass(Duration::from_millis(200));
        ended.is_ok()
    }

    fn trouble_disk(&mut self) {
        let is_well = self.ground.wire.fault.get() == Fault::None;
        let (fault, what) = match self.rng.random_range(0..8) {
            _ if !is_well => (Fault::None, "the disk is well again"),
            0..3 => (Fault::Full, "the disk is full"),
            3..5 => (Fault::Tight, "the disk is nearly full"),
            5 => (Fault::DiesBefore, "the disk dies before a commit"),
            _ => (Fault::DiesAfter, "the disk dies after a commit"),
        };
        self.ground.wire.fault.set(fault);
        self.fault(what);
    }

    fn trouble_store(&mut self) {
        let is_well = self.store.mood() == Mood::Well;
        let (mood, what) = match self.rng.random_range(0..10) {
            _ if !is_well => (Mood::Broken, "the store is back"),
            0..3 => (Mood::Down, "the store is down"),
            3..6 => (Mood::Ambiguous, "the store loses an answer"),
            n => {
                self.store.crash();
                // It comes back at once, or stays away.
                let mood = if n < 8 { Mood::Broken } else { Mood::Down };
                (mood, "the store crashes and loses its last second")
            }
        };
        self.store.set_mood(mood);
        self.fault(what);
    }

    fn reload(&mut self) {
        let (text, now) = (rules::draw(&mut self.rng), self.moment());
        if self.server().reload(rules::parse(&text), now) {
            self.has_reloaded = true;
            self.rule_text = text;
            self.fault("other rules");
        }
    }

    fn forget(&mut self) {
        let agent_idx = self.any_agent();
        let keys: Vec<_> = self.agents[agent_idx].keys().cloned().collect();
        let key = keys[self.rng.random_range(0..keys.len())].clone();
        if self.server().forget(&key) {
            self.fault("an instance is forgotten");
        }
    }

    fn trouble_network(&mut self) {
        let agent_idx = self.any_agent();
        if self.agents[agent_idx].stream.is_none() {
            return;
        }
        // What was on the wire arrives, or a part of it.
        if self.rng.random_bool(0.5) {
            let most = self.rng.random_range(1..6);
            self.send_of(agent_idx, most);
        }
        self.agents[agent_idx].break_off();
        self.fault("a stream breaks off");
    }
}
