//! Control with lanes that nobody drains: a change that cannot get through, and the end of it.

use std::{fs, path::PathBuf};

use crossbeam_channel::{Sender, bounded};
use parking_lot::RwLock;
use slog::{Discard, o};
use tempfile::TempDir;

use super::*;
use crate::{
    deliver,
    dispatch::{self, LaneQueue, Turn},
};

struct Fixture {
    door: Door,
    queues: Vec<LaneQueue>,
    context: Context,
    file: PathBuf,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
    _dir: TempDir,
}

impl Fixture {
    /// Two lanes, the built-in rules, and no rule file yet.
    fn new(lanes_wait: Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("rules.toml");
        let stats = Arc::new(Stats::new());
        let options = dispatch::Options { n_lanes: 2, queue_reports: 4_096 };
        let (dispatcher, queues) = Dispatcher::new(options, stats.clone());
        let context = Context {
            dispatcher,
            state: Arc::new(State::new(2, 1_000)),
            rules: Arc::new(RwLock::new(Arc::new(RuleSet::built_in(None)))),
            receivers: deliver::receivers().0,
            doors: Arc::new(Doors::new(crate::doors::Settings::default(), stats.clone(), &Logger::root(Discard, o!()))),
            stats,
            health: Health::new(),
        };
        let (door, requests) = door();
        let (stop, stopped) = bounded(0);
        let options = Options { file: RuleFile::new(Some(file.clone()), None), text: None, lanes_wait };
        let log = Logger::root(Discard, o!());
        let thread = start(options, context.clone(), requests, stopped, &log).unwrap();
        Self { door, queues, context, file, stop: Some(stop), thread: Some(thread), _dir: dir }
    }

    fn reload(&self) -> Reloaded {
        self.door.reload(By::Request).expect("it runs").blocking_recv().expect("an answer")
    }

    fn stop(&mut self) {
        drop(self.stop.take());
        let began = Instant::now();
        self.thread.take().expect("not stopped yet").join().expect("control does not panic");
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    }

    fn degraded(&self) -> bool {
        self.context.health.checks()[CHECK].condition == Condition::Degraded
    }
}

#[test]
fn a_change_that_lanes_do_not_come_to_is_told_as_late_and_holds_up_the_next_one() {
    let mut it = Fixture::new(Duration::from_millis(200));
    fs::write(&it.file, "rules = []").unwrap();
    assert!(matches!(it.reload(), Err(ReloadError::Late)));
    assert!(it.context.rules.read().rules.is_empty(), "it is on its way, and cannot be taken back");
    assert!(!it.degraded(), "the file is good");
    fs::write(&it.file, "").unwrap();
    assert!(matches!(it.reload(), Err(ReloadError::Refused(Refused::Busy))));
    assert!(it.context.rules.read().rules.is_empty(), "one that was refused changes nothing");
    let receipt = it.door.forget(Arc::new(InstanceKey::new("web", "a"))).expect("it runs");
    assert!(receipt.blocking_recv().is_err(), "the lane has no place for it");
    assert!(it.queues.iter().all(|queue| queue.turns.len() == 1), "one turn of control in each lane");
    it.stop();
}

/// What waited for its turn used to stay in the channel, and whoever had asked for it waited on.
#[test]
fn a_stop_does_not_wait_for_a_change_under_way() {
    let mut it = Fixture::new(Duration::from_secs(600));
    fs::write(&it.file, "rules = []").unwrap();
    let answer = it.door.reload(By::Request).expect("it runs");
    let behind = it.door.forget(Arc::new(InstanceKey::new("web", "a"))).expect("it runs");
    let Ok(Turn::Reload(..)) = it.queues[0].turns.recv_timeout(Duration::from_secs(20)) else { panic!("a reload") };
    it.stop();
    assert!(!matches!(answer.blocking_recv(), Ok(Ok(_))), "nobody was told that it is in force");
    assert!(behind.blocking_recv().is_err());
    assert_eq!(it.door.reload(By::Request).err(), Some(Refused::Stopping));
    let queue = it.queues.pop().expect("two");
    drop(it.context);
    let last = std::iter::from_fn(|| queue.turns.recv().ok()).count();
    assert_eq!(last, 1, "the lane ends behind what it had: control holds no way in any longer (I8)");
}

#[test]
fn a_request_is_told_when_every_lane_has_the_rules_and_not_before() {
    let mut it = Fixture::new(Duration::from_secs(60));
    fs::write(&it.file, "rules = []").unwrap();
    let mut answer = it.door.reload(By::Request).expect("it runs");
    for queue in &it.queues {
        let Ok(Turn::Reload(rules, place, receipt)) = queue.turns.recv_timeout(Duration::from_secs(20)) else {
            panic!("a reload in each lane")
        };
        assert!(rules.rules.is_empty());
        assert!(answer.try_recv().is_err(), "a lane has yet to say so");
        drop(place);
        receipt.give();
    }
    assert_eq!(answer.blocking_recv().expect("an answer").expect("good").rules.len(), 0);
    it.stop();
}

#[test]
fn a_named_file_has_to_be_there_and_to_be_one() {
    let mut it = Fixture::new(Duration::from_millis(200));
    let reason = |answer: Reloaded| match answer {
        Err(ReloadError::File(err)) => chain(&err),
        other => panic!("{other:?}"),
    };
    assert!(reason(it.reload()).contains("reading the rule file"));
    assert!(it.degraded());
    fs::create_dir(&it.file).unwrap();
    assert!(reason(it.reload()).contains("no regular file"));
    fs::remove_dir(&it.file).unwrap();
    fs::write(&it.file, vec![b'#'; (4 << 20) + 1]).unwrap();
    assert!(reason(it.reload()).contains("longer than"));
    assert_eq!(it.context.rules.read().rules.len(), 3, "the old rules stay");
    assert!(it.queues.iter().all(|queue| queue.turns.is_empty()), "and lanes hear nothing of it");
    it.stop();
}
