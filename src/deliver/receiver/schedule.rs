//! What one receiver is told next, and how far it has come: decided here, done elsewhere.
//!
//! It reads no clock, does no I/O and has no thread: events, outcomes and times come in, tasks come out, so that it can be
//! stepped through any order of things. What one rule says of one instance is told in order: whoever goes by labels would
//! else take the end of one alert for the end of the next. The rest is told side by side. The position moves past an event
//! only when all before it are done, so that nothing is lost with the server (I10); what is done behind it is remembered
//! beside it, so that one notification that keeps failing does not bring all the others again with every restart. A key
//! that stays the same lets the receiver know what it is told again nevertheless.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use uuid::Uuid;

use super::late::{Held, Late, MAX_HELD, Over};
use crate::{
    journal::Ahead,
    model::{Alert, Event, Name, RaiseId, Timestamp},
    notify::{Notification, Occasion, Outcome},
};

/// Notifications that wait in memory; the others wait in the journal (I1).
const MAX_WAITING: usize = 1_000;
/// Events read at once.
const MAX_READ: usize = 500;
/// Waits before a failed notification, and its receiver, are tried again: doubling between these.
const RETRY_WAIT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// From an event's journaling on: what could not be told for so long is a dead letter.
pub(super) const TELL_FOR: Duration = Duration::from_secs(24 * 3_600);
/// Raises told before the journal had them, of which is remembered that they were.
const MAX_TOLD_DIRECTLY: usize = 10_000;

/// The present, by both clocks: spans of this run are measured on the one, of earlier runs on the other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) instant: Instant,
    pub(super) time: Timestamp,
}

/// Whom it is about.
#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) name: Name,
    pub(super) send_resolved: bool,
    /// Notifications under way at once.
    pub(super) n_at_once: usize,
    /// Of the jitter.
    pub(super) seed: u64,
}

/// Something to do: its outcome is to be given to [`Schedule::finished`].
#[derive(Clone, Debug)]
pub(super) struct Task {
    queue: Uuid,
    round: u64,
    pub(super) notification: Arc<Notification>,
}

/// A notification that is given up.
#[derive(Clone, Debug)]
pub(super) struct Dead {
    /// Its first event: what is remembered as done behind the position may be cut off among the others.
    pub(super) seq: u64,
    pub(super) occasion: Occasion,
    /// The alert, or the first of them.
    pub(super) alert: Arc<Alert>,
    pub(super) n_alerts: usize,
    pub(super) why: String,
}

/// The receiver does not take what it is told.
#[derive(Clone, Debug)]
pub(super) struct Failing {
    /// What happened last.
    pub(super) why: String,
    until: Instant,
    wait: Duration,
}

#[derive(Debug)]
struct Job {
    /// The events that it stands for, the last one last; none: the journal does not have it yet.
    seqs: Vec<u64>,
    /// When the first of them was journaled.
    at: Timestamp,
    notification: Arc<Notification>,
    n_failed: u32,
    /// What happened last.
    why: Option<String>,
}

/// The notifications of one rule about one instance, in order; or a digest.
#[derive(Debug, Default)]
struct Queue {
    jobs: VecDeque<Job>,
    /// The first of them is being told.
    is_under_way: bool,
    /// The one being told was given up meanwhile, and is not among the jobs any longer.
    is_abandoned: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Schedule {
    options: Options,
    read_to: u64,
    /// What an earlier run was done with behind its position.
    done_before: Ahead,
    /// The last event that is done.
    done_to: u64,
    caught_up: bool,
    given_up_to: u64,
    /// Events that are not done, and the queue of each.
    open: BTreeMap<u64, Uuid>,
    queues: HashMap<Uuid, Queue>,
    /// Queues whose first job may be told; some may be gone by now.
    ready: VecDeque<Uuid>,
    /// Queues whose first job failed, by when it may be tried again.
    delayed: BTreeMap<(Instant, u64), Uuid>,
    n_delayed: u64,
    n_waiting: usize,
    n_under_way: usize,
    late: Late,
    told_directly: HashSet<Uuid>,
    failing: Option<Failing>,
    n_failed_in_a_row: usize,
    /// Counts the changes between failing and not, so that answers to what was sent before one do not count behind it.
    round: u64,
    dead: Vec<Dead>,
    dice: u64,
}

impl Schedule {
    /// Nothing read yet, everything up to `position` done, and some of what is behind it.
    pub(super) fn new(options: Options, position: u64, done_before: Ahead) -> Self {
        Self {
            dice: options.seed,
            options,
            read_to: position,
            done_to: done_before.to(),
            done_before,
            caught_up: false,
            given_up_to: 0,
            open: BTreeMap::new(),
            queues: HashMap::new(),
            ready: VecDeque::new(),
            delayed: BTreeMap::new(),
            n_delayed: 0,
            n_waiting: 0,
            n_under_way: 0,
            late: Late::default(),
            told_directly: HashSet::new(),
            failing: None,
            n_failed_in_a_row: 0,
            round: 0,
            dead: Vec::new(),
        }
    }

    /// How many more events may be read.
    pub(super) fn room(&self) -> usize {
        if self.late.len() > MAX_HELD { 0 } else { MAX_WAITING.saturating_sub(self.n_waiting).min(MAX_READ) }
    }

    /// The last event read.
    pub(super) const fn read_to(&self) -> u64 {
        self.read_to
    }

    /// Every event up to this one is done.
    pub(super) fn position(&self) -> u64 {
        self.open.first_key_value().map_or(self.read_to, |(first, _)| first - 1)
    }

    /// What is done behind that.
    pub(super) fn ahead(&self) -> Ahead {
        if self.done_to <= self.position() {
            return Ahead::default();
        }
        let unread = self.done_before.open().iter().filter(|seq| **seq > self.read_to);
        Ahead::new(self.done_to, self.open.keys().chain(unread).copied())
    }

    /// Events read and not done.
    pub(super) fn n_open(&self) -> usize {
        self.open.len()
    }

    /// Notifications under way.
    pub(super) const fn n_under_way(&self) -> usize {
        self.n_under_way
    }

    /// Whether the receiver fails, and why.
    pub(super) const fn failing(&self) -> Option<&Failing> {
        self.failing.as_ref()
    }

    /// The receiver is another one now, or is reached otherwise: what failed before says nothing of it.
    pub(super) fn changed(&mut self, send_resolved: bool) {
        self.options.send_resolved = send_resolved;
        self.failing = None;
        self.round += 1;
        self.ready.extend(std::mem::take(&mut self.delayed).into_values());
    }

    /// Says whether the last reading of the journal came to its end.
    pub(super) const fn caught_up(&mut self, is_it: bool) {
        self.caught_up = is_it;
    }

    /// Takes the next event of the journal.
    pub(super) fn read(&mut self, seq: u64, at: Timestamp, event: &Event, now: Now) {
        self.read_to = seq;
        if self.done_before.is_done(seq) {
            return;
        }
        let alert = &event.alert;
        let Some(occasion) = Occasion::of(event.kind).filter(|occasion| self.is_told(*occasion, alert)) else { return };
        let held = self.late.holds(alert.alert_id);
        // Whether it still fires is what is being waited for.
        if held && occasion == Occasion::Repeat {
            return;
        }
        // A digest tells of a raise, too, so that it goes to those who do not hear of resolves.
        if !held && occasion == Occasion::Resolve && !self.options.send_resolved {
            self.drop_repeat(alert);
            return;
        }
        if occasion == Occasion::Raise && self.told_directly.remove(&alert.alert_id) {
            self.close(&[seq]);
            return;
        }
        if seq <= self.given_up_to {
            self.bury(seq, occasion, alert.clone(), 1, NO_ROOM);
            return;
        }
        let queue = queue_of(alert);
        self.open.insert(seq, queue);
        match occasion {
            Occasion::Raise if alert.late => self.late.hold(seq, at, alert.clone(), now),
            Occasion::Resolve if self.late.resolve(seq, alert) => {}
            _ => {
                let notification = Notification {
                    occasion,
                    alerts: vec![alert.clone()],
                    n_more: 0,
                    key: key(occasion, alert, Some(seq)),
                };
                if matches!(occasion, Occasion::Repeat | Occasion::Resolve) && self.is_repeat_waiting(queue) {
                    self.replace_last(queue, seq, at, notification);
                } else {
                    self.wait(queue, vec![seq], at, notification);
                }
            }
        }
    }

    /// Passes by an event that cannot be read; false: an earlier run did so already.
    pub(super) fn skip(&mut self, seq: u64) -> bool {
        self.read_to = seq;
        !self.done_before.is_done(seq)
    }

    /// Whether the receiver is to hear of this.
    pub(super) fn concerns(&self, event: &Event) -> bool {
        let occasion = Occasion::of(event.kind).filter(|occasion| self.is_told(*occasion, &event.alert));
        occasion.is_some_and(|occasion| occasion != Occasion::Resolve || self.options.send_resolved)
    }

    /// Takes a raise that the journal cannot write down now. It comes again by the journal.
    pub(super) fn read_directly(&mut self, event: &Event, now: Now) {
        let alert = &event.alert;
        let is_raise = Occasion::of(event.kind) == Some(Occasion::Raise);
        if !is_raise || alert.late || !self.is_told(Occasion::Raise, alert) || self.n_waiting >= MAX_WAITING {
            return;
        }
        let (key, queue) = (key(Occasion::Raise, alert, None), queue_of(alert));
        let waits = |queue: &Queue| queue.jobs.iter().any(|job| job.notification.key == key);
        if self.queues.get(&queue).is_some_and(waits) || self.told_directly.contains(&alert.alert_id) {
            return;
        }
        let notification = Notification { occasion: Occasion::Raise, alerts: vec![alert.clone()], n_more: 0, key };
        self.wait(queue, Vec::new(), now.time, notification);
    }

    /// Whether the receiver hears of this at all. What is silenced or acknowledged will be left out here.
    fn is_told(&self, _: Occasion, alert: &Alert) -> bool {
        alert.receivers.as_ref().is_none_or(|names| names.contains(&self.options.name))
    }

    fn wait(&mut self, id: Uuid, seqs: Vec<u64>, at: Timestamp, notification: Notification) {
        let queue = self.queues.entry(id).or_default();
        if queue.jobs.is_empty() && !queue.is_under_way {
            self.ready.push_back(id);
        }
        queue.jobs.push_back(Job { seqs, at, notification: Arc::new(notification), n_failed: 0, why: None });
        self.n_waiting += 1;
    }

    /// Whether the last thing to tell in this queue is that an alert still fires, and is not being told: whatever comes
    /// next takes its place, so that after an outage of the receiver's the latest news is enough.
    fn is_repeat_waiting(&self, id: Uuid) -> bool {
        self.queues.get(&id).is_some_and(|queue| {
            let is_being_told = queue.is_under_way && !queue.is_abandoned && queue.jobs.len() == 1;
            !is_being_told && queue.jobs.back().is_some_and(|job| job.notification.occasion == Occasion::Repeat)
        })
    }

    /// Puts this in the place of the last thing to tell, which may have failed: it is as old in that, and tried when that
    /// would have been.
    fn replace_last(&mut self, id: Uuid, seq: u64, at: Timestamp, notification: Notification) {
        let Some(job) = self.queues.get_mut(&id).and_then(|queue| queue.jobs.back_mut()) else { return };
        let seqs = std::mem::replace(&mut job.seqs, vec![seq]);
        job.at = at;
        job.notification = Arc::new(notification);
        self.close(&seqs);
    }

    /// Drops the word that this still fires, unless it is being told: it does not.
    fn drop_repeat(&mut self, alert: &Alert) {
        let id = queue_of(alert);
        if !self.is_repeat_waiting(id) {
            return;
        }
        if let Some(job) = self.queues.get_mut(&id).and_then(|queue| queue.jobs.pop_back()) {
            self.n_waiting -= 1;
            self.close(&job.seqs);
        }
        self.forget_if_empty(id);
    }

    /// Something to do now; `None`: nothing, before [`Self::wake_at`] or an outcome.
    pub(super) fn begin(&mut self, now: Now) -> Option<Task> {
        self.decide_late(now);
        self.expire(now);
        // While it fails one notification at a time finds out whether it still does.
        let n_at_once = if self.failing.is_some() { 1 } else { self.options.n_at_once };
        if self.n_under_way >= n_at_once || self.failing.as_ref().is_some_and(|failing| failing.until > now.instant) {
            return None;
        }
        while let Some(entry) = self.delayed.first_entry()
            && entry.key().0 <= now.instant
        {
            self.ready.push_back(entry.remove());
        }
        while let Some(id) = self.ready.pop_front() {
            let Some(queue) = self.queues.get_mut(&id).filter(|queue| !queue.is_under_way) else { continue };
            let Some(job) = queue.jobs.front() else { continue };
            queue.is_under_way = true;
            self.n_under_way += 1;
            return Some(Task { queue: id, round: self.round, notification: job.notification.clone() });
        }
        None
    }

    /// Takes how a task went.
    pub(super) fn finished(&mut self, task: &Task, outcome: Outcome, now: Now) {
        self.n_under_way -= 1;
        match &outcome {
            Outcome::Retry { after, why } => {
                self.n_failed_in_a_row += 1;
                // One that fails now and then is not left alone for it: the others go on, and this one is tried again.
                let first = self.queues.get(&task.queue).and_then(|queue| queue.jobs.front());
                let is_first_time = first.is_none_or(|job| job.n_failed == 0);
                let is_mishap = after.is_none() && is_first_time && self.n_failed_in_a_row < self.options.n_at_once;
                if self.failing.is_some() || !is_mishap {
                    self.fails(task.round, *after, why, now.instant);
                }
            }
            Outcome::Done | Outcome::Refused { .. } => {
                self.n_failed_in_a_row = 0;
                if task.round == self.round && self.failing.is_some() {
                    self.failing = None;
                    self.round += 1;
                }
            }
        }
        let Some(queue) = self.queues.get_mut(&task.queue) else { return };
        queue.is_under_way = false;
        if std::mem::take(&mut queue.is_abandoned) {
            self.go_on(task.queue);
            return;
        }
        let n_waiting = queue.jobs.len();
        let Some(job) = queue.jobs.front_mut() else { return };
        match outcome {
            // Told directly, and failed: it comes again by the journal.
            Outcome::Retry { .. } if job.seqs.is_empty() => {
                self.take_first(task.queue);
                self.go_on(task.queue);
            }
            // There is newer news.
            Outcome::Retry { .. } if job.notification.occasion == Occasion::Repeat && n_waiting > 1 => {
                self.take_first(task.queue);
                self.go_on(task.queue);
            }
            Outcome::Retry { after, why } => {
                job.n_failed += 1;
                job.why = Some(why);
                let wait = RETRY_WAIT.0 * 2_u32.saturating_pow(job.n_failed - 1).min(64);
                let wait = wait.min(RETRY_WAIT.1).mul_f64(self.jitter()).max(after.unwrap_or_default());
                self.n_delayed += 1;
                self.delayed.insert((now.instant + wait, self.n_delayed), task.queue);
            }
            Outcome::Done => {
                let job = self.take_first(task.queue);
                if job.is_some_and(|job| job.seqs.is_empty()) {
                    self.was_told_directly(task);
                }
                if task.notification.occasion == Occasion::Raise {
                    self.drop_word_of(task);
                }
                self.go_on(task.queue);
            }
            Outcome::Refused { why } => {
                let job = self.take_first(task.queue);
                self.bury_job(job, &why);
                self.go_on(task.queue);
            }
        }
    }

    /// Gives up what lies up to this event, though it be under way: the journal needs the room.
    pub(super) fn give_up_to(&mut self, seq: u64) {
        self.given_up_to = self.given_up_to.max(seq);
        if self.open.first_key_value().is_none_or(|(first, _)| *first > seq) {
            return;
        }
        for (seqs, alert, n_alerts) in self.late.give_up(seq) {
            let occasion = if n_alerts > 1 { Occasion::Digest } else { Occasion::Raise };
            let first = seqs.iter().copied().min().unwrap_or(seq);
            self.close(&seqs);
            self.bury(first, occasion, alert, n_alerts, NO_ROOM);
        }
        let ids: HashSet<Uuid> = self.open.range(..=seq).map(|(_, id)| *id).collect();
        for id in ids {
            while let Some(queue) = self.queues.get_mut(&id)
                && queue.jobs.front().is_some_and(|job| job.seqs.first().is_some_and(|first| *first <= seq))
            {
                queue.is_abandoned |= queue.is_under_way;
                let job = self.take_first(id);
                self.bury_job(job, NO_ROOM);
            }
            self.forget_if_empty(id);
        }
    }

    /// When to ask again, unless something happens before.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        let late = self.late.next_due(self.caught_up);
        let delayed = self.delayed.first_key_value().map(|((at, _), _)| *at);
        let next = match &self.failing {
            // Who is asked whether it still fails is waited for.
            Some(_) if self.n_under_way > 0 => None,
            Some(failing) if !self.ready.is_empty() => Some(failing.until),
            Some(failing) => delayed.map(|at| at.max(failing.until)),
            None => delayed.filter(|_| self.n_under_way < self.options.n_at_once),
        };
        late.into_iter().chain(next).min()
    }

    /// What was given up since this was asked last.
    pub(super) fn take_dead(&mut self) -> Vec<Dead> {
        std::mem::take(&mut self.dead)
    }

    /// Lets go of late alerts whose time is up.
    fn decide_late(&mut self, now: Now) {
        let (pages, over) = self.late.due(now.instant, self.caught_up);
        // What is over first: it is the older news.
        if let Some(Over { at, seqs, alerts, n_more, id, .. }) = over {
            // In order: the position is found by the first of them, and a dead letter is filed under it.
            let mut seqs = seqs;
            seqs.sort_unstable();
            for seq in &seqs {
                self.open.insert(*seq, id);
            }
            let notification = Notification { occasion: Occasion::Digest, alerts, n_more, key: format!("{id}-digest") };
            self.wait(id, seqs, at, notification);
        }
        for Held { seq, at, alert, .. } in pages {
            let key = key(Occasion::Raise, &alert, Some(seq));
            let id = queue_of(&alert);
            let notification = Notification { occasion: Occasion::Raise, alerts: vec![alert], n_more: 0, key };
            self.wait(id, vec![seq], at, notification);
        }
    }

    /// Gives up what could not be told for too long.
    fn expire(&mut self, now: Now) {
        while let Some((_, id)) = self.open.first_key_value() {
            let id = *id;
            // Held back: it is young, or decided as soon as everything is read.
            let Some(queue) = self.queues.get(&id) else { return };
            let is_old = |job: &Job| now.time.since(job.at) >= TELL_FOR;
            if queue.is_under_way || !queue.jobs.front().is_some_and(is_old) {
                return;
            }
            let job = self.take_first(id);
            let own = job.as_ref().and_then(|job| job.why.as_ref());
            let why = match own.or(self.failing.as_ref().map(|failing| &failing.why)) {
                Some(why) => format!("it could not be told within 24 h: {why}"),
                None => "it could not be told within 24 h".to_owned(),
            };
            self.bury_job(job, &why);
            self.forget_if_empty(id);
        }
    }

    fn fails(&mut self, round: u64, after: Option<Duration>, why: &str, now: Instant) {
        let jitter = self.jitter();
        let until = |wait: Duration| now + wait.mul_f64(jitter).max(after.unwrap_or_default());
        match &mut self.failing {
            None => {
                self.round += 1;
                self.failing = Some(Failing { why: why.to_owned(), until: until(RETRY_WAIT.0), wait: RETRY_WAIT.0 });
            }
            Some(failing) => {
                why.clone_into(&mut failing.why);
                // What was under way when it began to fail says nothing new.
                if round == self.round {
                    failing.wait = (failing.wait * 2).min(RETRY_WAIT.1);
                    failing.until = until(failing.wait);
                } else {
                    failing.until = failing.until.max(now + after.unwrap_or_default());
                }
            }
        }
    }

    /// From a half to one (splitmix64): receivers that failed together are not tried together.
    fn jitter(&mut self) -> f64 {
        self.dice = self.dice.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.dice;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        0.5 + ((z ^ (z >> 31)) >> 32) as f64 / f64::from(u32::MAX) / 2.0
    }

    /// Takes the first job of a queue; its events are done.
    fn take_first(&mut self, id: Uuid) -> Option<Job> {
        let job = self.queues.get_mut(&id)?.jobs.pop_front()?;
        self.n_waiting -= 1;
        self.close(&job.seqs);
        Some(job)
    }

    fn close(&mut self, seqs: &[u64]) {
        for seq in seqs {
            self.open.remove(seq);
            self.done_to = self.done_to.max(*seq);
        }
    }

    /// The queue's first job is done: the next one may be told.
    fn go_on(&mut self, id: Uuid) {
        if self.queues.get(&id).is_some_and(|queue| !queue.jobs.is_empty()) {
            self.ready.push_back(id);
        }
        self.forget_if_empty(id);
    }

    fn forget_if_empty(&mut self, id: Uuid) {
        if self.queues.get(&id).is_some_and(|queue| queue.jobs.is_empty() && !queue.is_under_way) {
            self.queues.remove(&id);
        }
        // What is given up while nothing is told leaves its place among the ready ones.
        if self.ready.len() > 2 * MAX_WAITING {
            self.ready.retain(|id| self.queues.contains_key(id));
        }
    }

    /// A raise was told before the journal had it: by the journal it is no news.
    fn was_told_directly(&mut self, task: &Task) {
        let is_it = |queue: &Queue| queue.jobs.front().is_some_and(|j| j.notification.key == task.notification.key);
        if self.queues.get(&task.queue).is_some_and(is_it) {
            self.take_first(task.queue);
        } else if self.told_directly.len() < MAX_TOLD_DIRECTLY {
            self.told_directly.extend(task.notification.alerts.first().map(|alert| alert.alert_id));
        }
    }

    /// That an alert still fires is no news to whom it was just told that it does.
    fn drop_word_of(&mut self, task: &Task) {
        let same = |alert: &Arc<Alert>| {
            task.notification
                .alerts
                .first()
                .is_some_and(|told| (told.alert_id, told.version) == (alert.alert_id, alert.version))
        };
        let next = self.queues.get(&task.queue).and_then(|queue| queue.jobs.front());
        if next.is_some_and(|job| {
            job.notification.occasion == Occasion::Repeat && job.notification.alerts.iter().all(same)
        }) {
            self.take_first(task.queue);
        }
    }

    fn bury_job(&mut self, job: Option<Job>, why: &str) {
        let Some(Job { seqs, notification, .. }) = job else { return };
        let Notification { occasion, alerts, n_more, .. } = &*notification;
        if let (Some(seq), Some(alert)) = (seqs.first(), alerts.first()) {
            self.bury(*seq, *occasion, alert.clone(), alerts.len() + n_more, why);
        }
    }

    fn bury(&mut self, seq: u64, occasion: Occasion, alert: Arc<Alert>, n_alerts: usize, why: &str) {
        self.dead.push(Dead { seq, occasion, alert, n_alerts, why: why.to_owned() });
    }
}

/// The queue of a rule's alerts of an instance. No alert has such an id: raises are counted from far above 0.
fn queue_of(alert: &Alert) -> Uuid {
    RaiseId::Counter(0).alert_id(&alert.key, &alert.rule)
}

const NO_ROOM: &str = "the journal needed the room";

/// What the receiver knows a notification by when it is told again. A repeat leaves the alert as it was, so that only its
/// place in the journal tells it from another one.
fn key(occasion: Occasion, alert: &Alert, seq: Option<u64>) -> String {
    let (id, version, word) = (alert.alert_id, alert.version, occasion.as_str());
    match (occasion, seq) {
        (Occasion::Repeat, Some(seq)) => format!("{id}-{version}-{word}-{seq}"),
        _ => format!("{id}-{version}-{word}"),
    }
}

#[cfg(test)]
mod tests;
