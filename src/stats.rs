//! Every figure the server keeps of itself, and the exposition of them.
//!
//! Stages count once per chunk, turn or commit, not per report. The balance (I4) is made of the same counters that
//! `/metrics` shows, so that both tell one story.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicI64, AtomicU64},
};

use parking_lot::Mutex;

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
        info::Info,
    },
    registry::{Registry, Unit},
};

use crate::model::{Rejection, Timestamp};

/// Labels of the refused reports.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

/// Labels of what is counted rule by rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RuleLabel {
    rule: String,
}

/// Labels of what is counted receiver by receiver.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReceiverLabel {
    receiver: String,
}

/// The labels of a figure that has none, and is not shown while there is nothing to show.
type NoLabels = [(&'static str, &'static str); 0];

/// Labels of those who were not let in.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DoorLabel {
    port: &'static str,
    reason: &'static str,
}

/// The figures of one receiver.
#[derive(Clone, Debug)]
pub struct ReceiverStats {
    /// Notifications that it took.
    pub told: Counter,
    /// Attempts that failed.
    pub errors: Counter,
    /// Notifications that were given up.
    pub dead_letters: Gauge<u64, AtomicU64>,
    /// Events of the journal that it is not past yet.
    pub pending: Gauge<u64, AtomicU64>,
}

/// What last went wrong with a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleError {
    /// When.
    pub at: Timestamp,
    /// What was said.
    pub message: String,
}

/// The accounts of reports and events at one moment (CONTRACT §7.8). Read while the pipeline runs, the figures can
/// differ by what moved between two reads; a difference that lasts is a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Balance {
    /// Reports admitted since the start.
    pub received: u64,
    /// Of these: evaluated.
    pub accepted: u64,
    /// Of these: refused.
    pub rejected: u64,
    /// Of these: accepted before.
    pub duplicates: u64,
    /// Of these: not yet decided.
    pub queued: u64,
    /// Events since the journal's creation.
    pub events: u64,
    /// Of these: in the store.
    pub stored: u64,
    /// Of these: on their way to it.
    pub pending: u64,
    /// Of these: refused by the store for ever.
    pub dead_letter: u64,
}

/// The server's own figures. Shared by all stages.
#[derive(Debug)]
pub struct Stats {
    registry: Registry,
    /// Reports admitted into the pipeline, or refused at its door one by one.
    pub received: Counter,
    /// Reports evaluated.
    pub accepted: Counter,
    /// Numbered reports that were accepted before.
    pub duplicates: Counter,
    rejected: [Counter; Rejection::ALL.len()],
    /// Reports admitted and not yet decided.
    pub queued: Gauge<i64, AtomicI64>,
    /// Streams open now.
    pub streams_open: Gauge<i64, AtomicI64>,
    /// Streams opened.
    pub streams: Counter,
    /// Streams refused because the pipeline had no room for 5 s.
    pub overload_refusals: Counter,
    /// gRPC connections open now.
    pub connections_open: Gauge<i64, AtomicI64>,
    /// gRPC connections dropped because they did not open HTTP/2 in time.
    pub connections_dropped: Counter,
    /// Times that a gRPC connection could not be accepted.
    pub accept_errors: Counter,
    door_refusals: Family<DoorLabel, Counter>,
    /// Empty where there is no certificate: 0 would be one that ended in 1970.
    certificate_not_after: Family<NoLabels, Gauge<i64, AtomicI64>>,
    /// Times that an instance went back to an earlier numbering: often, if two agents report as one.
    pub numbering_returns: Counter,
    /// How long chunks waited for a slot in their lane.
    pub dispatch_wait: Histogram,
    /// Turns that lanes took.
    pub turns: Counter,
    /// Turns that were split over the rayon pool.
    pub parallel_turns: Counter,
    /// Reports whose evaluation panicked.
    pub evaluate_panics: Counter,
    rule_evaluations: Family<RuleLabel, Counter>,
    rule_errors: Mutex<BTreeMap<String, RuleError>>,
    /// Instances known.
    pub instances: Gauge<i64, AtomicI64>,
    /// Alerts that fire.
    pub alerts_firing: Gauge<i64, AtomicI64>,
    /// Raise events since the start.
    pub alerts_raised: Counter,
    /// Times that rules were read anew and came into force.
    pub rules_reloads: Counter,
    /// Times that they could not be.
    pub rules_reload_failures: Counter,
    /// Whether the latest of these was good: 1 or 0.
    pub rules_reload_successful: Gauge<i64, AtomicI64>,
    /// When the rules in force were read, in seconds since 1970.
    pub rules_reload_success_at: Gauge<f64, AtomicU64>,
    /// Journal transactions.
    pub journal_commits: Counter,
    /// How long they took.
    pub journal_commit: Histogram,
    /// Journal transactions that failed and are tried again.
    pub journal_errors: Counter,
    /// The part of the journal's largest size that is in use, from 0 to 1.
    pub journal_fill: Gauge<f64, AtomicU64>,
    /// Events in the journal since its creation.
    pub events: Gauge<u64, AtomicU64>,
    /// The number of the last of them that the store's writer is done with.
    pub store_position: Gauge<u64, AtomicU64>,
    /// Of these, delivered to the store.
    pub events_stored: Gauge<u64, AtomicU64>,
    /// Of these, refused by the store for ever.
    pub events_dead: Gauge<u64, AtomicU64>,
    /// Statements that wrote rows.
    pub store_batches: Counter,
    /// Rows they wrote.
    pub store_rows: Counter,
    /// How long they took.
    pub store_write: Histogram,
    /// Writes that failed.
    pub store_errors: Counter,
    /// Time from a reading to its arrival, of those that raised an alert.
    pub raise_received: Histogram,
    /// Time from a reading's arrival to its raise being in the journal.
    pub raise_durable: Histogram,
    /// Time from a reading's arrival to its alert's row being in the store.
    pub raise_stored: Histogram,
    /// Time from a reading's arrival to a receiver having been told of its raise.
    pub raise_told: Histogram,
    receiver_told: Family<ReceiverLabel, Counter>,
    receiver_errors: Family<ReceiverLabel, Counter>,
    receiver_dead_letters: Family<ReceiverLabel, Gauge<u64, AtomicU64>>,
    receiver_pending: Family<ReceiverLabel, Gauge<u64, AtomicU64>>,
}

impl Stats {
    /// All figures at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("gopherwatch");
        let r = &mut registry;
        let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        r.register("build", "The version of the server", build);
        let rule_evaluations = Family::<RuleLabel, Counter>::default();
        r.register(
            "rule_evaluations",
            "Reports that each rule looked at, or that plain thresholds told it need not",
            rule_evaluations.clone(),
        );
        let rejected = Family::<ReasonLabel, Counter>::default();
        r.register("reports_rejected", "Reports refused one by one, by reason", rejected.clone());
        let rejected = Rejection::ALL.map(|why| rejected.get_or_create(&ReasonLabel { reason: why.as_str() }).clone());
        Self {
            received: counter(r, "reports_received", "Reports admitted, or refused one by one"),
            accepted: counter(r, "reports_accepted", "Reports evaluated"),
            duplicates: counter(r, "reports_duplicate", "Numbered reports that were accepted before"),
            rejected,
            queued: gauge(r, "reports_queued", "Reports admitted and not yet decided"),
            streams_open: gauge(r, "streams_open", "SendMetrics streams open now"),
            streams: counter(r, "streams", "SendMetrics streams opened"),
            overload_refusals: counter(r, "overload_refusals", "Streams refused because no lane had room for 5 s"),
            connections_open: gauge(r, "connections_open", "gRPC connections open now"),
            connections_dropped: counter(r, "connections_dropped", "gRPC connections that did not open HTTP/2 in time"),
            accept_errors: counter(r, "accept_errors", "Times that accepting a gRPC connection failed"),
            door_refusals: family(
                r,
                "door_refusals",
                "Connections and requests that were not let in, by port and reason",
            ),
            certificate_not_after: {
                let at = Family::default();
                let help = "When the server's certificate, or the first of its chain, ends to be valid, since 1970";
                r.register_with_unit("tls_certificate_not_after_timestamp", help, Unit::Seconds, at.clone());
                at
            },
            numbering_returns: counter(
                r,
                "numbering_returns",
                "Times that an instance went back to an earlier agent-epoch",
            ),
            dispatch_wait: seconds(r, "dispatch_wait", "How long chunks waited for a slot in their lane"),
            turns: counter(r, "evaluate_turns", "Turns that lanes took"),
            parallel_turns: counter(r, "evaluate_parallel_turns", "Turns that were split over the rayon pool"),
            rule_evaluations,
            rule_errors: Mutex::default(),
            evaluate_panics: counter(r, "evaluate_panics", "Reports whose evaluation panicked"),
            instances: gauge(r, "instances", "Instances known"),
            alerts_firing: gauge(r, "alerts_firing", "Alerts that fire now"),
            alerts_raised: counter(r, "alerts_raised", "Raise events since the start"),
            rules_reloads: counter(r, "rules_reloads", "Times that rules were read anew and came into force"),
            rules_reload_failures: counter(r, "rules_reload_failures", "Times that rules could not be read anew"),
            rules_reload_successful: gauge(
                r,
                "rules_last_reload_successful",
                "Whether rules could be read when they were read last, 1 or 0",
            ),
            rules_reload_success_at: {
                let at = Gauge::<f64, AtomicU64>::default();
                let help = "When the rules in force were read, since 1970";
                r.register_with_unit("rules_last_reload_success_timestamp", help, Unit::Seconds, at.clone());
                at
            },
            journal_commits: counter(r, "journal_commits", "Journal transactions"),
            journal_commit: seconds(r, "journal_commit", "How long journal transactions took"),
            journal_errors: counter(r, "journal_errors", "Journal transactions that failed and are tried again"),
            journal_fill: {
                let part = Gauge::<f64, AtomicU64>::default();
                r.register("journal_used_ratio", "Part of the journal's largest size that is in use", part.clone());
                part
            },
            events: gauge(r, "journal_events", "Events since the journal's creation"),
            store_position: gauge(r, "store_position", "Number of the last event that the store's writer is done with"),
            events_stored: gauge(r, "store_events", "Events delivered to the store since the journal's creation"),
            events_dead: gauge(r, "store_dead_letters", "Events that the store refused for ever"),
            store_batches: counter(r, "store_batches", "Statements that wrote rows"),
            store_rows: counter(r, "store_rows", "Rows written"),
            store_write: seconds(r, "store_write", "How long writes to the store took"),
            store_errors: counter(r, "store_errors", "Writes to the store that failed"),
            raise_received: hop(
                r,
                "raise_received",
                "Time from a reading to the arrival of its report, by both clocks",
            ),
            raise_durable: seconds(r, "raise_durable", "Time from a report's arrival to its raise being durable"),
            raise_stored: hop(r, "raise_stored", "Time from a report's arrival to its alert being in the store"),
            raise_told: hop(r, "raise_told", "Time from a report's arrival to a receiver being told of its raise"),
            receiver_told: family(r, "receiver_notifications", "Notifications that each receiver took"),
            receiver_errors: family(
                r,
                "receiver_errors",
                "Notifications that each receiver did not take, attempts counted",
            ),
            receiver_dead_letters: family(
                r,
                "receiver_dead_letters",
                "Notifications to each receiver that were given up",
            ),
            receiver_pending: family(r, "receiver_pending", "Events that each receiver is not past yet"),
            registry,
        }
    }

    /// The count of reports refused for `why`.
    pub fn rejected(&self, why: Rejection) -> &Counter {
        &self.rejected[why.idx()]
    }

    /// The count of connections and requests that were not let in at this port for this reason.
    pub fn door_refusals(&self, port: &'static str, reason: &'static str) -> Counter {
        self.door_refusals.get_or_create_owned(&DoorLabel { port, reason })
    }

    /// Notes when the server's certificate ends to be valid, in seconds since 1970.
    pub fn set_certificate_not_after(&self, seconds: i64) {
        self.certificate_not_after.get_or_create_owned(&[]).set(seconds);
    }

    /// The count of evaluations of the rule of this name. Hold on to it: looking it up takes a lock.
    pub fn rule_evaluations(&self, rule: &str) -> Counter {
        self.rule_evaluations.get_or_create_owned(&RuleLabel { rule: rule.to_owned() })
    }

    /// Notes what went wrong with a rule.
    pub fn note_rule_error(&self, rule: &str, message: String) {
        self.rule_errors.lock().insert(rule.to_owned(), RuleError { at: Timestamp::now(), message });
    }

    /// What last went wrong with a rule.
    pub fn rule_error(&self, rule: &str) -> Option<RuleError> {
        self.rule_errors.lock().get(rule).cloned()
    }

    /// The rule of this name is no longer in force: neither are its figures.
    pub fn forget_rule(&self, rule: &str) {
        self.rule_evaluations.remove(&RuleLabel { rule: rule.to_owned() });
        self.rule_errors.lock().remove(rule);
    }

    /// The figures of the receiver of this name.
    pub fn receiver(&self, receiver: &str) -> ReceiverStats {
        let label = ReceiverLabel { receiver: receiver.to_owned() };
        ReceiverStats {
            told: self.receiver_told.get_or_create_owned(&label),
            errors: self.receiver_errors.get_or_create_owned(&label),
            dead_letters: self.receiver_dead_letters.get_or_create_owned(&label),
            pending: self.receiver_pending.get_or_create_owned(&label),
        }
    }

    /// The receiver of this name is gone: so are its figures.
    pub fn forget_receiver(&self, receiver: &str) {
        let label = ReceiverLabel { receiver: receiver.to_owned() };
        self.receiver_told.remove(&label);
        self.receiver_errors.remove(&label);
        self.receiver_dead_letters.remove(&label);
        self.receiver_pending.remove(&label);
    }

    /// The accounts now.
    pub fn balance(&self) -> Balance {
        let (stored, dead_letter) = (self.events_stored.get(), self.events_dead.get());
        let position = self.store_position.get();
        let events = self.events.get();
        Balance {
            accepted: self.accepted.get(),
            rejected: self.rejected.iter().map(Counter::get).sum(),
            duplicates: self.duplicates.get(),
            queued: u64::try_from(self.queued.get()).unwrap_or(0),
            received: self.received.get(),
            events,
            stored,
            pending: events.saturating_sub(position),
            dead_letter,
        }
    }

    /// All figures in the OpenMetrics text format 1.0.0.
    pub fn exposition(&self) -> String {
        let mut text = String::new();
        // Writing into a String cannot fail.
        encode(&mut text, &self.registry).expect("a String takes every write");
        text
    }
}

impl Default for Stats {
    fn default() -> Self {
        Self::new()
    }
}

fn counter(registry: &mut Registry, name: &str, help: &str) -> Counter {
    let metric = Counter::default();
    registry.register(name, help, metric.clone());
    metric
}

fn family<L, M>(registry: &mut Registry, name: &str, help: &str) -> Family<L, M>
where
    Family<L, M>: prometheus_client::registry::Metric + Clone + Default,
{
    let metric = Family::default();
    registry.register(name, help, metric.clone());
    metric
}

fn gauge<N, A>(registry: &mut Registry, name: &str, help: &str) -> Gauge<N, A>
where
    Gauge<N, A>: prometheus_client::registry::Metric + Clone + Default,
{
    let metric = Gauge::default();
    registry.register(name, help, metric.clone());
    metric
}

/// A histogram of seconds, from 10 µs to 10 s.
fn seconds(registry: &mut Registry, name: &str, help: &str) -> Histogram {
    histogram(registry, name, help, exponential_buckets(1e-5, 4.0, 11))
}

/// A histogram of seconds that are few unless somebody was cut off, an agent from us or we from the database: from 1 ms
/// to a day. What is above 60 s came late.
fn hop(registry: &mut Registry, name: &str, help: &str) -> Histogram {
    let seconds = [
        0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 3_600.0, 21_600.0, 86_400.0,
    ];
    histogram(registry, name, help, seconds.into_iter())
}

fn histogram(registry: &mut Registry, name: &str, help: &str, buckets: impl Iterator<Item = f64>) -> Histogram {
    let metric = Histogram::new(buckets);
    registry.register_with_unit(name, help, Unit::Seconds, metric.clone());
    metric
}
