//! The receivers' sinks, which come and go with the rule file.
//!
//! One thread starts, changes and ends them, so that a reload finds them at one place and in one order. A receiver that
//! is new begins behind the journal's last event: nobody is told of what was before they were there.

use std::{
    collections::BTreeMap,
    io,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use crossbeam_channel::{Receiver, Sender, bounded, select};
use parking_lot::Mutex;
use slog::{Logger, error, info, warn};

use super::{
    board::Board,
    receiver::{self, Means, Running},
};
use crate::{
    health::Health,
    journal::{Reader, Sinks},
    model::Name,
    rule_file::Receiver as Target,
    stats::Stats,
};

/// How often it looks whether all of them live.
const WATCH_EVERY: Duration = Duration::from_millis(250);

/// What receivers' sinks need of the server.
#[derive(Debug)]
pub struct Context {
    /// Their cursors.
    pub sinks: Sinks,
    /// Their way into the journal.
    pub reader: Reader,
    /// Where REST answers, such as `http://127.0.0.1:8080`.
    pub origin: String,
    /// Their figures.
    pub stats: Arc<Stats>,
    /// Where their failures are shown.
    pub health: Health,
}

/// Other receivers than before.
#[derive(Debug)]
struct Change {
    targets: Vec<Target>,
    /// Dropped when they are in force.
    done: Sender<()>,
}

/// The way to say which receivers there are. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Receivers(Sender<Change>);

/// The other end of [`Receivers`].
#[derive(Debug)]
pub struct Changes(Receiver<Change>);

/// A way to say which receivers there are, and its end.
pub fn receivers() -> (Receivers, Changes) {
    // Control is the only one to say so, and waits.
    let (changes, end) = bounded(1);
    (Receivers(changes), Changes(end))
}

impl Receivers {
    /// From now on there are these. Returns once that is so, or the server stops, or after `wait`: then it is on its way.
    pub fn change(&self, targets: Vec<Target>, wait: Duration) {
        let (done, is_done) = bounded(0);
        if self.0.send_timeout(Change { targets, done }, wait).is_ok() {
            let _ = is_done.recv_timeout(wait);
        }
    }
}

/// Starts the sinks of these receivers, and the thread that sees to them. It ends when `stop` is disconnected and what
/// they had under way is told; also when one of them has died.
pub fn start(
    targets: Vec<Target>,
    context: Context,
    changes: Changes,
    stop: Receiver<()>,
    log: &Logger,
) -> io::Result<JoinHandle<()>> {
    let Context { sinks, reader, origin, stats, health } = context;
    let mut all = All {
        running: BTreeMap::new(),
        sinks,
        reader: Arc::new(Mutex::new(reader)),
        origin: origin.into(),
        stats,
        board: Board::new(health),
        log: log.new(slog::o!("thread" => "receivers")),
        parent: log.clone(),
    };
    // Before the journal runs: what it does not find then, it forgets.
    for target in targets {
        all.add(target)?;
    }
    all.warn_if_none();
    thread::Builder::new().name("receivers".to_owned()).spawn(move || all.run(&changes.0, &stop))
}

struct All {
    running: BTreeMap<Name, (Target, Running)>,
    sinks: Sinks,
    reader: Arc<Mutex<Reader>>,
    origin: Arc<str>,
    stats: Arc<Stats>,
    board: Board,
    log: Logger,
    parent: Logger,
}

impl All {
    fn run(mut self, changes: &Receiver<Change>, stop: &Receiver<()>) {
        loop {
            select! {
                recv(stop) -> _ => break,
                recv(changes) -> change => match change {
                    // Whoever asked has gone on after a while: that is no reason to leave it.
                    Ok(Change { targets, done }) => {
                        self.change(targets);
                        drop(done);
                    }
                    Err(_) => break,
                },
                default(WATCH_EVERY) => {}
            }
            if let Some((name, _)) = self.running.iter().find(|(_, (_, running))| running.has_died()) {
                error!(self.log, "the sink of a receiver died"; "receiver" => &**name);
                return;
            }
        }
        // All are told before one is waited for.
        let threads: Vec<_> = self.running.into_values().map(|(_, running)| running.stop()).collect();
        for thread in threads {
            // One that panicked has ended, too.
            let _ = thread.join();
        }
    }

    fn change(&mut self, targets: Vec<Target>) {
        let gone = |name: &Name| !targets.iter().any(|target| target.config.name == *name);
        let gone: Vec<Name> = self.running.keys().filter(|name| gone(name)).cloned().collect();
        for name in gone {
            if let Some((_, running)) = self.running.remove(&name) {
                running.remove();
                self.sinks.remove(&sink_name(&name));
                self.stats.forget_receiver(&name);
                self.board.remove(&name);
            }
        }
        for target in targets {
            match self.running.get_mut(&target.config.name) {
                Some((before, _)) if *before == target => {}
                Some((before, running)) => {
                    *before = target.clone();
                    running.change(target);
                }
                None => {
                    let name = target.config.name.clone();
                    match self.add(target) {
                        Ok(()) => info!(self.log, "a new receiver"; "receiver" => &*name),
                        Err(err) => {
                            self.sinks.remove(&sink_name(&name));
                            error!(self.log, "a receiver is not told: its threads cannot be started; reload to try again";
                                "receiver" => &*name, "error" => %err);
                        }
                    }
                }
            }
        }
        self.warn_if_none();
    }

    fn add(&mut self, target: Target) -> io::Result<()> {
        let name = target.config.name.clone();
        let cursor = self.sinks.add(&sink_name(&name));
        let means = Means {
            reader: self.reader.clone(),
            cursor,
            origin: self.origin.clone(),
            stats: self.stats.clone(),
            board: self.board.clone(),
            log: self.parent.clone(),
        };
        let running = receiver::start(target.clone(), means)?;
        self.running.insert(name, (target, running));
        Ok(())
    }

    fn warn_if_none(&self) {
        if self.running.is_empty() {
            warn!(self.log, "nobody is told of alerts: the rule file has no [[receivers]]");
        }
    }
}

/// Beside the sinks that every server has.
fn sink_name(receiver: &str) -> String {
    format!("receiver:{receiver}")
}
