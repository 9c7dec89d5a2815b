//! The database is away for a minute in a storm of violations, and one of two receivers all along: receipts, `/status`
//! and the other receiver must not notice, and afterwards every row must be there.
//!
//! A receipt's time runs from the end of the stream, as its sender sees it. A raise's runs from when its report was on
//! the ledger's disk and went into the call until the request that tells of it was read whole.

use std::{
    fmt,
    time::{Duration, Instant},
};

use mysql::prelude::Queryable;

use super::{Outcome, Run, trouble::Trouble};
use crate::{
    agent::Load,
    dice::Dice,
    expected::episodes,
    generator::{Shape, now_us},
    ledger::{Contents, read_all},
    proxy::ReplyCut,
    wait::found,
    world::World,
};

/// Requests of MySQL's that are at least so long carry rows.
const WRITE_BYTES: usize = 400;
/// An OK packet has some eleven bytes: cuts within it, behind it and before it.
const MAX_REPLY_BYTES: u64 = 14;
/// From one question to `/status` to the next.
const ASK_EVERY: Duration = Duration::from_millis(200);
/// A storm that has not brought its violations by then is not going to.
const STORM_WAIT: Duration = Duration::from_secs(600);

/// How many notifications the server says that the dead receiver took.
const DEAD_TOOK: &str = r#"gopherwatch_receiver_notifications_total{receiver="dead"} "#;
/// What is asked of a webhook.
const IN_TIME: Duration = Duration::from_millis(100);

/// How the database is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outage {
    /// SIGSTOP: it takes connections and never answers.
    Stopped,
    /// `kill -9`: nobody is there.
    Killed,
    /// `LOCK TABLES … WRITE`, held by somebody else.
    Locked,
    /// It writes, but each answer to a write is cut off.
    RepliesCut,
    /// `read_only`, for all but those who may do everything.
    ReadOnly,
    /// An ALTER waits for somebody's open transaction.
    Altered,
    /// Others have all of its connections.
    Crowded,
}

/// Before, in and after the outage.
#[derive(Clone, Copy, Debug)]
struct Phases {
    begin: u64,
    end: u64,
}

/// One outage of at least `lasts`, until `n_violations` have come up in it.
pub fn outage(run: &Run, name: &str, how: Outage, lasts: Duration, n_violations: u64) -> Outcome {
    let began = Instant::now();
    let mut dice = Dice::of(run.seed, 3);
    let mut world = run.listened_world(name);
    // 3,200 reports a second at most, every other one of which violates.
    let storm = Load { streams: 2, instances: 40, pace_ms: 50, rotate_ms: 300, shape: Shape::Storm, seed: run.seed };
    for place in 0..2 {
        world.add_agent(Load { seed: run.seed ^ place, ..storm.clone() });
    }
    let before = lasts / 5;
    let mut answers = [Vec::new(), Vec::new(), Vec::new()];
    storm_on(&mut world, &mut answers[0], before, 0, |_| {});

    let begin = now_us();
    let mut lock = None;
    match how {
        Outage::Stopped => world.mariadb().pause(),
        Outage::Killed => world.mariadb().kill9(),
        Outage::Locked => {
            let mut conn = world.mariadb().conn();
            conn.query_drop(format!("LOCK TABLES {}.alerts WRITE", world.database())).unwrap();
            lock = Some(conn);
        }
        Outage::RepliesCut | Outage::ReadOnly | Outage::Altered | Outage::Crowded => {}
    }
    let mut trouble = Trouble::begin(how, &world);
    storm_on(&mut world, &mut answers[1], lasts, 2 * n_violations, |world| {
        trouble.iter_mut().for_each(|trouble| trouble.go_on(world));
        if how == Outage::RepliesCut && !world.back.waits_to_cut() {
            let reply_bytes = dice.below(MAX_REPLY_BYTES + 1) as usize;
            world.back.cut_reply(Some(ReplyCut { request_bytes: WRITE_BYTES, reply_bytes }));
        }
    });
    let n_cut = world.back.n_replies_cut();
    let pending = world.server.balance(Duration::from_secs(10)).map_or(0, |balance| balance.get("pending"));
    trouble.into_iter().for_each(Trouble::end);
    match how {
        Outage::Stopped => world.mariadb().resume(),
        Outage::Killed => world.mariadb().restart(),
        Outage::Locked => drop(lock),
        Outage::RepliesCut => world.back.cut_reply(None),
        Outage::ReadOnly | Outage::Altered | Outage::Crowded => {}
    }
    let end = now_us();
    storm_on(&mut world, &mut answers[2], before, 0, |_| {});

    let figures = world.server.text("/metrics").unwrap_or_default();
    let dead_took = figures.lines().find_map(|line| line.strip_prefix(DEAD_TOOK)).map(str::to_owned);
    let phases = Phases { begin, end };
    let ledgers = read_all(&world.folder().join("ledgers")).unwrap();
    let in_outage = |at: u64| (begin..end).contains(&at);
    let n_raised = episodes(&ledgers).keys().filter(|key| in_outage(key.triggered_at)).count();
    let seconds = (end - begin) as f64 / 1e6;
    let per_second = n_raised as f64 / seconds;
    let mut notes =
        vec![format!("{n_raised} violations in {seconds:.0} s without the database, {per_second:.0} a second")];
    notes.extend((how == Outage::RepliesCut).then(|| format!("{n_cut} replies to writes cut off")));
    let receipts = phases.split(receipt_times(&ledgers));
    let (n_receipts, n_answers) = (receipts[1].len(), answers[1].len());
    let listener = world.listener.clone().expect("this world has one");
    let mut outcome = Outcome::of(name, began, world);
    let told = listener.told();
    // Only now, since the last of them were told behind the storm.
    let raises = phases.split(told.raises(&ledgers));
    let took = [("receipts", &receipts), ("/status", &answers), ("raise to webhook", &raises)];
    for (what, phases) in took {
        for (phase, times) in ["before", "during", "after"].iter().zip(phases) {
            notes.push(format!("{what:<16} {phase:<6} {}", Times::of(times)));
        }
    }
    notes.push(format!("{} webhooks for {} alerts", told.n_posts, outcome.verdict.n_episodes));
    outcome = Outcome { n_faults: n_cut.max(1), notes, ..outcome };
    if n_receipts == 0 || n_answers == 0 {
        outcome.verdict.and_broken(format!("{n_receipts} receipts and {n_answers} answers of /status in the outage"));
    }
    if (n_raised as u64) < n_violations {
        outcome
            .verdict
            .and_broken(format!("a storm of {n_raised} violations, not {n_violations}: it proves too little"));
    }
    if dead_took.as_deref() != Some("0") {
        outcome.verdict.and_broken(format!("the dead receiver took {dead_took:?} notifications"));
    }
    if how != Outage::RepliesCut && pending == 0 {
        outcome.verdict.and_broken("nothing waited for the database at the end of the outage: there was none");
    }
    if how == Outage::RepliesCut && n_cut == 0 {
        outcome.verdict.and_broken("no reply was cut: the fault never came");
    }
    outcome
}

/// Lets the storm go on until it has lasted and has sent so many reports, and asks `/status` all along.
fn storm_on(world: &mut World, answers: &mut Vec<u64>, lasts: Duration, n_reports: u64, mut each: impl FnMut(&World)) {
    let began = Instant::now();
    let (from, _) = world.look();
    let mut asked: Option<Instant> = None;
    found(STORM_WAIT, "the storm brings its violations", || {
        each(world);
        if asked.is_none_or(|asked| asked.elapsed() >= ASK_EVERY) {
            asked = Some(Instant::now());
            let began = Instant::now();
            if world.server.balance(Duration::from_secs(10)).is_ok() {
                answers.push(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX));
            }
        }
        (began.elapsed() >= lasts && world.look().0 - from >= n_reports).then_some(())
    });
}

impl Phases {
    /// How long took what began before, in and after the outage.
    fn split(self, times: impl IntoIterator<Item = (u64, u64)>) -> [Vec<u64>; 3] {
        let mut split = [Vec::new(), Vec::new(), Vec::new()];
        for (began_at, took) in times {
            split[usize::from(began_at >= self.begin) + usize::from(began_at >= self.end)].push(took);
        }
        split
    }
}

/// When the calls of receipts ended, and how long after that each receipt came.
fn receipt_times(ledgers: &[Contents]) -> impl Iterator<Item = (u64, u64)> {
    let receipts = ledgers.iter().flat_map(|ledger| &ledger.receipts);
    receipts.map(|receipt| (receipt.at_us - receipt.latency_us, receipt.latency_us))
}

/// The quantiles of some times.
struct Times {
    n: usize,
    p50: Duration,
    p99: Duration,
    max: Duration,
    /// How many of a hundred took [`IN_TIME`] at most.
    percent_in_time: f64,
}

impl Times {
    fn of(micros: &[u64]) -> Self {
        let mut sorted = micros.to_vec();
        sorted.sort_unstable();
        let at = |percent: usize| {
            let place = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
            Duration::from_micros(sorted.get(place).copied().unwrap_or_default())
        };
        let n_in_time = sorted.partition_point(|micros| Duration::from_micros(*micros) <= IN_TIME);
        let percent_in_time = n_in_time as f64 * 100.0 / sorted.len().max(1) as f64;
        Self { n: sorted.len(), p50: at(50), p99: at(99), max: at(100), percent_in_time }
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |time: Duration| time.as_secs_f64() * 1_000.0;
        let Self { n, p50, p99, max, percent_in_time } = self;
        write!(f, "{n:>6} of p50 {:>5.1}, p99 {:>5.1}, max {:>5.1} ms", ms(*p50), ms(*p99), ms(*max))?;
        write!(f, "; {percent_in_time:.1} % within {} ms", IN_TIME.as_millis())
    }
}
