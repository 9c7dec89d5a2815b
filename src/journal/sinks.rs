//! Sinks, and how far each has come.
//!
//! A sink moves its cursor in memory; the journal saves it with its next commit, so that after a crash some events are
//! delivered again (I10). The cursor, the count of what was delivered and the dead letters are one thing under one
//! lock: saved together, they always add up.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    mem,
    sync::Arc,
};

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;

use crate::model::Event;

/// Events that may wait for a sink while the journal cannot commit them. Those that find no room come by the cursor.
const MAX_DIRECT: usize = 10_000;

/// Dead letters of a sink that may lose events: the latest of them are kept. Of one that gets every event all are.
pub(super) const KEPT_LETTERS: usize = 1_000;

/// Open events that are remembered one by one; what is done behind more of them is done again after a restart.
const MAX_OPEN: usize = 1_000;

/// What a sink is done with behind its position: every event up to `to` but the open ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ahead {
    to: u64,
    /// In order.
    open: Vec<u64>,
}

impl Ahead {
    /// Done with everything up to `to` but these, which are in order; with less where they are too many.
    pub fn new(to: u64, open: impl Iterator<Item = u64>) -> Self {
        let mut open: Vec<u64> = open.take_while(|seq| *seq <= to).take(MAX_OPEN + 1).collect();
        let to = if open.len() > MAX_OPEN { open.pop().map_or(to, |first_unlisted| first_unlisted - 1) } else { to };
        Self { to, open }
    }

    /// The last event that it says anything of.
    pub const fn to(&self) -> u64 {
        self.to
    }

    /// The open ones, in order.
    pub fn open(&self) -> &[u64] {
        &self.open
    }

    /// Whether it says that this event is done.
    pub fn is_done(&self, seq: u64) -> bool {
        seq <= self.to && self.open.binary_search(&seq).is_err()
    }
}

/// How far a sink has come, as the journal remembers it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Saved {
    /// It is done with every event up to this number.
    pub(super) seq: u64,
    /// And with some behind it.
    pub(super) ahead: Ahead,
    /// Events that it has taken since the journal's creation.
    pub(super) delivered: u64,
    /// Events that it could not take, and has not taken since: also those whose letters are kept no longer.
    pub(super) dead: u64,
    /// What the events went to.
    pub(super) identity: Option<String>,
}

impl Saved {
    fn is_done(&self, seq: u64) -> bool {
        seq <= self.seq || self.ahead.is_done(seq)
    }
}

/// An event that a sink cannot take, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The event's number.
    pub seq: u64,
    /// What stands against it.
    pub reason: String,
}

#[derive(Debug, Default)]
struct Progress {
    /// But for the dead letters, of which some lie behind the position.
    saved: Saved,
    buried: VecDeque<DeadLetter>,
    /// Letters behind the position that are too many to be kept.
    unkept: Vec<u64>,
    exhumed: Vec<u64>,
    n_dead: u64,
    is_essential: bool,
    give_up_to: u64,
    /// The journal is short of room, and nobody has looked since.
    is_room_wanted: bool,
    /// Events behind this number are kept, although the sink has had them.
    keep_behind: Option<u64>,
}

/// One sink's place in the journal.
#[derive(Clone, Debug)]
pub struct SinkCursor {
    name: Arc<str>,
    progress: Arc<Mutex<Progress>>,
    doorbell: Receiver<()>,
    direct: Receiver<Event>,
}

impl SinkCursor {
    /// The sink's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The number of the last event that the sink is done with.
    pub fn position(&self) -> u64 {
        self.progress.lock().saved.seq
    }

    /// The sink is done with every event up to `seq`.
    pub fn advance(&self, seq: u64) {
        let mut progress = self.progress.lock();
        progress.saved.seq = progress.saved.seq.max(seq);
    }

    /// The same, for a sink that is done with some events behind `seq`, too.
    pub fn advance_with(&self, seq: u64, ahead: Ahead) {
        let mut progress = self.progress.lock();
        progress.saved.seq = progress.saved.seq.max(seq);
        progress.saved.ahead = ahead;
    }

    /// What the sink is done with behind its position.
    pub fn ahead(&self) -> Ahead {
        self.progress.lock().saved.ahead.clone()
    }

    /// The sink is done with every event up to `seq`, of which it has taken `n_taken` that it had not taken before.
    pub fn deliver(&self, seq: u64, n_taken: u64) {
        let mut progress = self.progress.lock();
        progress.saved.seq = progress.saved.seq.max(seq);
        progress.saved.delivered += n_taken;
    }

    /// The sink may want the events behind this number again, though it has had them: they are kept, however old they
    /// are and however short the room is. `None`: it has no such wish.
    pub fn keep_behind(&self, seq: Option<u64>) {
        self.progress.lock().keep_behind = seq;
    }

    /// The events up to this number are no longer needed for this sink.
    fn spares_up_to(&self) -> u64 {
        let progress = self.progress.lock();
        progress.keep_behind.map_or(progress.saved.seq, |keep| keep.min(progress.saved.seq))
    }

    /// The sink cannot take this event: it is kept apart, and the cursor may move past it.
    pub fn bury(&self, letter: DeadLetter) {
        let mut progress = self.progress.lock();
        progress.n_dead += 1;
        progress.buried.push_back(letter);
        if !progress.is_essential && progress.buried.len() > KEPT_LETTERS {
            let unkept = progress.buried.pop_front().map(|letter| letter.seq);
            progress.unkept.extend(unkept);
        }
    }

    /// The sink has taken a dead letter after all.
    pub fn exhume(&self, seq: u64) {
        let mut progress = self.progress.lock();
        progress.saved.delivered += 1;
        progress.n_dead = progress.n_dead.saturating_sub(1);
        progress.exhumed.push(seq);
    }

    /// Events taken since the journal's creation.
    pub fn n_delivered(&self) -> u64 {
        self.progress.lock().saved.delivered
    }

    /// Its dead letters.
    pub fn n_dead(&self) -> u64 {
        self.progress.lock().n_dead
    }

    /// What the events went to so far; `None`: nobody has said.
    pub fn identity(&self) -> Option<String> {
        self.progress.lock().saved.identity.clone()
    }

    /// From here on the events go to this.
    pub fn set_identity(&self, identity: String) {
        self.progress.lock().saved.identity = Some(identity);
    }

    /// The journal is short of room and needs the events up to this number gone: a sink that may lose them buries what
    /// it has not delivered of them. 0 unless the journal is nearly full.
    pub fn give_up_to(&self) -> u64 {
        self.progress.lock().give_up_to
    }

    /// Whether the journal has been short of room since this was last asked: a sink that wants events kept which it has had
    /// should find out whether it still does.
    pub fn is_room_wanted(&self) -> bool {
        mem::take(&mut self.progress.lock().is_room_wanted)
    }

    /// Rings after each commit with events, and when room is wanted.
    pub fn doorbell(&self) -> &Receiver<()> {
        &self.doorbell
    }

    /// Events that the journal cannot commit now: they come again by the cursor once it can.
    pub fn direct(&self) -> &Receiver<Event> {
        &self.direct
    }
}

#[derive(Debug)]
struct Sink {
    cursor: SinkCursor,
    ring: Sender<()>,
    direct: Sender<Event>,
    /// As the file has it, if it does.
    in_file: Option<Saved>,
    /// Whether it keeps its events however short the room is.
    is_essential: bool,
}

#[derive(Debug, Default)]
struct Inner {
    /// Sinks in the file that nobody has asked for yet.
    unclaimed: BTreeMap<String, Saved>,
    sinks: Vec<Sink>,
    /// In the file, and no longer wanted.
    removed: Vec<Arc<str>>,
    /// The first event that the file still has, and the last one.
    first_seq: u64,
    last_seq: u64,
}

/// All sinks. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Sinks(Arc<Mutex<Inner>>);

/// What one commit has to save about the sinks.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    pub(super) moved: Vec<(Arc<str>, Saved)>,
    pub(super) buried: Vec<Letters>,
    pub(super) exhumed: Vec<(Arc<str>, Vec<u64>)>,
    pub(super) removed: Vec<Arc<str>>,
}

/// New dead letters of a sink.
#[derive(Debug)]
pub(super) struct Letters {
    pub(super) sink: Arc<str>,
    pub(super) letters: Vec<DeadLetter>,
    /// Whether their events are kept with them, and all of them: for a sink that may take them after all.
    pub(super) with_events: bool,
}

impl Changes {
    pub(super) fn is_empty(&self) -> bool {
        self.moved.is_empty() && self.buried.is_empty() && self.exhumed.is_empty() && self.removed.is_empty()
    }
}

impl Sinks {
    /// The sinks in the file, and the first and the last event in it.
    pub(super) fn new(unclaimed: BTreeMap<String, Saved>, (first_seq, last_seq): (u64, u64)) -> Self {
        Self(Arc::new(Mutex::new(Inner { unclaimed, first_seq, last_seq, ..Inner::default() })))
    }

    /// A sink that may be made to give its oldest events up when the journal is short of room. It goes on where it was;
    /// one that the journal does not know begins with the next event.
    pub fn add(&self, name: &str) -> SinkCursor {
        self.enter(name, false)
    }

    /// A sink that gets every event.
    pub(super) fn add_essential(&self, name: &str) -> SinkCursor {
        self.enter(name, true)
    }

    fn enter(&self, name: &str, is_essential: bool) -> SinkCursor {
        let mut inner = self.0.lock();
        if let Some(sink) = inner.sinks.iter().find(|sink| &*sink.cursor.name == name) {
            return sink.cursor.clone();
        }
        let in_file = inner.unclaimed.remove(name);
        // One that gets every event has them all before it, however late it is first saved.
        let begin = if is_essential { (inner.first_seq - 1).min(inner.last_seq) } else { inner.last_seq };
        let saved = in_file.clone().unwrap_or(Saved { seq: begin, ..Saved::default() });
        let (ring, doorbell) = bounded(1);
        let (direct, at_once) = bounded(MAX_DIRECT);
        let progress = Progress { n_dead: saved.dead, saved, is_essential, ..Progress::default() };
        let cursor =
            SinkCursor { name: name.into(), progress: Arc::new(Mutex::new(progress)), doorbell, direct: at_once };
        inner.sinks.push(Sink { cursor: cursor.clone(), ring, direct, in_file, is_essential });
        cursor
    }

    /// The sink is gone, and with it its place and its dead letters.
    pub fn remove(&self, name: &str) {
        let mut inner = self.0.lock();
        if let Some(idx) = inner.sinks.iter().position(|sink| &*sink.cursor.name == name) {
            let sink = inner.sinks.remove(idx);
            inner.removed.push(sink.cursor.name);
        }
    }

    /// Sinks of the file that nobody has asked for until now are gone.
    pub(super) fn forget_unclaimed(&self) {
        let mut inner = self.0.lock();
        let gone = mem::take(&mut inner.unclaimed);
        inner.removed.extend(gone.into_keys().map(Arc::from));
    }

    /// The number of the last event that is durable.
    pub fn last_seq(&self) -> u64 {
        self.0.lock().last_seq
    }

    /// Every sink is done with the events up to this number.
    pub(super) fn delivered(&self) -> u64 {
        let inner = self.0.lock();
        inner.sinks.iter().map(|sink| sink.cursor.spares_up_to()).min().unwrap_or(inner.last_seq)
    }

    /// What has changed since it was last saved.
    pub(super) fn changes(&self) -> Changes {
        let inner = self.0.lock();
        let mut changes = Changes { removed: inner.removed.clone(), ..Changes::default() };
        for Sink { cursor, in_file, is_essential, .. } in &inner.sinks {
            let progress = cursor.progress.lock();
            let is_done = |seq: u64| progress.saved.is_done(seq);
            // One that is not done as the file has it is tried again after a crash.
            let letters: Vec<_> = progress.buried.iter().filter(|letter| is_done(letter.seq)).cloned().collect();
            let n_unkept = progress.unkept.iter().filter(|seq| !is_done(**seq)).count();
            let n_behind = progress.buried.len() - letters.len() + n_unkept;
            let saved = Saved { dead: progress.n_dead - n_behind as u64, ..progress.saved.clone() };
            if in_file.as_ref() != Some(&saved) {
                changes.moved.push((cursor.name.clone(), saved));
            }
            if !letters.is_empty() {
                let (sink, with_events) = (cursor.name.clone(), *is_essential);
                changes.buried.push(Letters { sink, letters, with_events });
            }
            if !progress.exhumed.is_empty() {
                changes.exhumed.push((cursor.name.clone(), progress.exhumed.clone()));
            }
        }
        changes
    }

    /// These changes are durable.
    pub(super) fn saved(&self, changes: &Changes) {
        let mut inner = self.0.lock();
        inner.removed.retain(|name| !changes.removed.contains(name));
        for (name, saved) in &changes.moved {
            if let Some(sink) = inner.sinks.iter_mut().find(|sink| sink.cursor.name == *name) {
                sink.in_file = Some(saved.clone());
            }
        }
        for sink in &inner.sinks {
            let mut progress = sink.cursor.progress.lock();
            for buried in changes.buried.iter().filter(|buried| buried.sink == sink.cursor.name) {
                let saved: HashSet<u64> = buried.letters.iter().map(|letter| letter.seq).collect();
                progress.buried.retain(|letter| !saved.contains(&letter.seq));
            }
            for (_, saved) in changes.moved.iter().filter(|(name, _)| *name == sink.cursor.name) {
                progress.unkept.retain(|seq| !saved.is_done(*seq));
            }
            for (_, seqs) in changes.exhumed.iter().filter(|(name, _)| *name == sink.cursor.name) {
                let saved: HashSet<u64> = seqs.iter().copied().collect();
                progress.exhumed.retain(|seq| !saved.contains(seq));
            }
        }
    }

    /// Events up to `last_seq` are durable: wakes every sink if there are new ones.
    pub(super) fn committed(&self, last_seq: u64) {
        let mut inner = self.0.lock();
        if mem::replace(&mut inner.last_seq, last_seq) != last_seq {
            for sink in &inner.sinks {
                // A full doorbell rings already.
                let _ = sink.ring.try_send(());
            }
        }
    }

    /// Gives a raise that cannot be committed now to every sink that may lose events.
    pub(super) fn tell_directly(&self, event: &Event) {
        for sink in self.0.lock().sinks.iter().filter(|sink| !sink.is_essential) {
            // Full: it comes by the cursor.
            let _ = sink.direct.try_send(event.clone());
        }
    }

    /// The journal is short of room: the essential sinks are to want no more kept than they must, and with `gives_up` each
    /// sink that can is to give up a quarter of what is behind it, of what the essential ones are done with.
    pub(crate) fn ask_for_room(&self, gives_up: bool) {
        let inner = self.0.lock();
        let essential = inner.sinks.iter().filter(|sink| sink.is_essential).map(|sink| sink.cursor.position()).min();
        let limit = essential.unwrap_or(inner.last_seq);
        for sink in &inner.sinks {
            let mut progress = sink.cursor.progress.lock();
            progress.is_room_wanted = true;
            if gives_up && !sink.is_essential {
                let behind = inner.last_seq.saturating_sub(progress.saved.seq);
                progress.give_up_to = (progress.saved.seq + behind.div_ceil(4)).min(limit);
            }
            let _ = sink.ring.try_send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_behind_the_position_is_remembered_as_far_as_it_is_short() {
        let ahead = Ahead::new(9, [3, 7, 12].into_iter());
        let done: Vec<u64> = (1..=12).filter(|seq| ahead.is_done(*seq)).collect();
        assert_eq!(done, [1, 2, 4, 5, 6, 8, 9]);
        let long = Ahead::new(9_000, (1..).map(|n| 2 * n));
        assert_eq!((long.open().len(), long.to()), (MAX_OPEN, 2 * MAX_OPEN as u64 + 1));
        assert!(long.is_done(long.to()) && !long.is_done(long.to() + 2), "nothing that is open counts as done");
        assert!(!Ahead::default().is_done(1));
    }

    #[test]
    fn letters_of_what_is_done_behind_the_position_are_saved_with_it() {
        let sinks = Sinks::new(BTreeMap::new(), (1, 9));
        let ops = sinks.add("ops");
        sinks.saved(&sinks.changes());
        for seq in [11, 13] {
            ops.bury(DeadLetter { seq, reason: "no".to_owned() });
        }
        ops.advance_with(9, Ahead::new(11, [10].into_iter()));
        let changes = sinks.changes();
        let seqs: Vec<u64> = changes.buried[0].letters.iter().map(|letter| letter.seq).collect();
        assert_eq!((seqs, changes.moved[0].1.dead), (vec![11], 1), "13 is told again after a crash");
    }

    #[test]
    fn letters_behind_the_position_are_counted_and_saved_when_it_comes_to_them() {
        let sinks = Sinks::new(BTreeMap::new(), (1, 9_000));
        let ops = sinks.add("ops");
        sinks.saved(&sinks.changes());
        // Everything is refused but the first, which is tried for long.
        for n in 1..=3_000 {
            ops.bury(DeadLetter { seq: 9_001 + n, reason: "no".to_owned() });
        }
        assert!(sinks.changes().is_empty(), "after a crash they are told again");
        assert_eq!((ops.n_dead(), ops.progress.lock().buried.len()), (3_000, KEPT_LETTERS));
        ops.advance(12_001);
        let changes = sinks.changes();
        assert_eq!((changes.moved[0].1.dead, changes.buried[0].letters.len()), (3_000, KEPT_LETTERS));
        sinks.saved(&changes);
        assert!(sinks.changes().is_empty() && ops.progress.lock().unkept.is_empty());
    }

    /// A store that went down for more than ten minutes, or while the disk was full, used to lose its last second: what it
    /// had had was dropped before it could be delivered again (seeds 1280, 1441 and 1550 of the simulation).
    #[test]
    fn what_a_sink_wants_kept_is_not_spared_though_it_has_had_it() {
        let sinks = Sinks::new(BTreeMap::new(), (1, 0));
        let store = sinks.add_essential("store");
        sinks.committed(9);
        store.keep_behind(Some(3));
        store.advance(9);
        assert_eq!(sinks.delivered(), 3);
        store.keep_behind(None);
        assert_eq!(sinks.delivered(), 9);
    }
}
