//! An alert: one episode of a rule on an instance, from raise to resolve; and the events that make it up.

use std::{collections::BTreeMap, fmt, str::FromStr, sync::Arc};

use uuid::Uuid;

use super::{InstanceKey, Name, Timestamp};

/// Most events of its life that an alert carries; later ones push out the oldest but the raise.
pub const MAX_LIFE_EVENTS: usize = 50;

/// How bad an alert is; ordered from harmless to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Worth a look in working hours.
    Warning,
    /// Worth waking somebody.
    Critical,
}

impl Severity {
    /// The name in the rules, the database and REST: `info`, `warning` or `critical`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Severity {
    type Err = ();

    fn from_str(s: &str) -> Result<Self, ()> {
        [Self::Info, Self::Warning, Self::Critical].into_iter().find(|v| v.as_str() == s).ok_or(())
    }
}

/// Why an alert is no longer firing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResolveReason {
    /// A report cleared it.
    Cleared,
    /// The instance left in order and did not come back.
    Left,
    /// The instance was silent too long, or was removed by hand.
    Forgotten,
    /// The rule is gone, or no longer matches the instance.
    RuleRemoved,
    /// A row of `record = "every"`: one violating report, closed as it was written.
    Recorded,
}

impl ResolveReason {
    const ALL: [Self; 5] = [Self::Cleared, Self::Left, Self::Forgotten, Self::RuleRemoved, Self::Recorded];

    /// The name in the database and REST.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cleared => "cleared",
            Self::Left => "left",
            Self::Forgotten => "forgotten",
            Self::RuleRemoved => "rule_removed",
            Self::Recorded => "recorded",
        }
    }
}

impl fmt::Display for ResolveReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ResolveReason {
    type Err = ();

    fn from_str(s: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|v| v.as_str() == s).ok_or(())
    }
}

/// What an event did to its alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// It began to fire.
    Raise,
    /// Its severity, labels or summary changed while it fired.
    Update,
    /// It stopped firing.
    Resolve,
    /// A further violating report under `record = "every"`: a closed row of its own, which nobody is told of.
    Record,
    /// It still fires, and is told of again; no part of the row.
    Repeat,
    /// It fires, as everybody knows but a store that is another one than before: for that one the row as it is.
    Restate,
}

impl EventKind {
    const ALL: [Self; 6] = [Self::Raise, Self::Update, Self::Resolve, Self::Record, Self::Repeat, Self::Restate];

    /// By how many more alerts fire after it.
    pub const fn firing_delta(self) -> i64 {
        match self {
            Self::Raise => 1,
            Self::Resolve => -1,
            Self::Update | Self::Record | Self::Repeat | Self::Restate => 0,
        }
    }

    /// The name in logs, the database and REST.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Raise => "raise",
            Self::Update => "update",
            Self::Resolve => "resolve",
            Self::Record => "record",
            Self::Repeat => "repeat",
            Self::Restate => "restate",
        }
    }
}

impl FromStr for EventKind {
    type Err = ();

    fn from_str(s: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|v| v.as_str() == s).ok_or(())
    }
}

/// One line of an alert's life, as `/alerts/{alert_id}` tells it.
#[derive(Clone, Debug, PartialEq)]
pub struct LifeEvent {
    /// What happened.
    pub kind: EventKind,
    /// When: the reading's time, or the server's for what no reading caused.
    pub at: Timestamp,
    /// Who caused it, when a person did.
    pub by: Option<String>,
    /// The term's value then.
    pub value: Option<f64>,
}

/// One reading that an alert was raised on.
#[derive(Clone, Debug, PartialEq)]
pub struct EvidencePoint {
    /// When it was read.
    pub at: Timestamp,
    /// Its value.
    pub value: f64,
}

/// What an alert was raised on, frozen at that moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Evidence {
    /// The rule's condition as it was written.
    pub when: Name,
    /// The readings, oldest first; at most 60.
    pub points: Vec<EvidencePoint>,
}

/// One episode: the whole row, as the journal and the database hold it.
#[derive(Clone, Debug, PartialEq)]
pub struct Alert {
    /// Unique and derived from the raising report: replaying the report gives the same id.
    pub alert_id: Uuid,
    /// The episode this row belongs to: `alert_id` itself, but for rows of `record = "every"`.
    pub episode_id: Uuid,
    /// Whose alert it is.
    pub key: Arc<InstanceKey>,
    /// The rule's name.
    pub rule: Name,
    /// The metric of the first comparison that held; `absent` for silence.
    pub metric: Name,
    /// Its term's value at the raise; the silent seconds for silence.
    pub value: f64,
    /// What it was compared with, when that is a number.
    pub threshold: Option<f64>,
    /// How bad.
    pub severity: Severity,
    /// The rule's labels.
    pub labels: Arc<BTreeMap<String, String>>,
    /// The rule's summary with its placeholders filled in.
    pub summary: String,
    /// Where its rule said at the raise to read what to do.
    pub runbook_url: Option<Name>,
    /// Who is told of it, as its rule said at the raise; `None`: every receiver there is. Whoever was told that it
    /// fires is so told that it no longer does, whatever the rule says by then.
    pub receivers: Option<Arc<[Name]>>,
    /// What it was raised on.
    pub evidence: Option<Arc<Evidence>>,
    /// Its life so far; at most [`MAX_LIFE_EVENTS`].
    pub life: Vec<LifeEvent>,
    /// Whether it was received more than 60 s after the reading, the agent's skew subtracted.
    pub late: bool,
    /// The reading that raised it; for silence the server's time.
    pub triggered_at: Timestamp,
    /// When the server got that reading.
    pub received_at: Timestamp,
    /// The reading that resolved it; `None`: firing.
    pub resolved_at: Option<Timestamp>,
    /// Why it was resolved.
    pub resolve_reason: Option<ResolveReason>,
    /// The term's value in the latest event.
    pub last_value: f64,
    /// 1 at the raise, one more at each later event: the store keeps the row with the highest.
    pub version: u32,
}

impl Alert {
    /// Whether it still fires.
    pub fn is_firing(&self) -> bool {
        self.resolved_at.is_none()
    }

    /// The same alert after one more event of its life.
    fn advanced(&self, event: LifeEvent) -> Self {
        let mut next = self.clone();
        next.version = next.version.checked_add(1).expect("no alert lives through four billion events");
        if let Some(value) = event.value {
            next.last_value = value;
        }
        if next.life.len() >= MAX_LIFE_EVENTS {
            next.life.remove(1);
        }
        next.life.push(event);
        next
    }

    /// The same alert, resolved at `at`, but never before it was raised.
    #[must_use]
    pub fn resolved(&self, at: Timestamp, reason: ResolveReason, value: Option<f64>) -> Self {
        let at = at.max(self.triggered_at);
        let mut next = self.advanced(LifeEvent { kind: EventKind::Resolve, at, by: None, value });
        next.resolved_at = Some(at);
        next.resolve_reason = Some(reason);
        next
    }

    /// The same alert, as its rule puts it from `at` on.
    #[must_use]
    pub fn updated(
        &self,
        severity: Severity,
        labels: Arc<BTreeMap<String, String>>,
        summary: String,
        at: Timestamp,
    ) -> Self {
        let next = self.advanced(LifeEvent { kind: EventKind::Update, at, by: None, value: None });
        Self { severity, labels, summary, ..next }
    }
}

/// What happened to an alert, with the whole row as it is after it.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The row after it.
    pub alert: Arc<Alert>,
}

/// Where an alert's id comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RaiseId {
    /// A numbered report: the same report raises the same alert however often it is sent.
    Report {
        /// The bare reading in nanoseconds since 1970; 0 if none was sent.
        reading: u64,
        /// The agent's epoch.
        epoch: u64,
        /// The report's number.
        sequence: u64,
    },
    /// An un-numbered report or silence: the instance's journaled count of such raises.
    Counter(u64),
}

/// GopherWatch's namespace for alert ids (a random UUID, fixed for ever).
const ALERT_NAMESPACE: Uuid = Uuid::from_u128(0x6f0b_8a52_54c1_4f0e_9d6e_27a4_0c1b_93d7);

impl RaiseId {
    /// The id of the alert that `rule` raises on the instance: UUIDv5 over the fields, each with its length before it
    /// (4 bytes, big-endian), so that no two lists of fields give the same bytes. Numbers are 8 bytes, big-endian.
    pub fn alert_id(self, key: &InstanceKey, rule: &str) -> Uuid {
        let mut bytes = Vec::with_capacity(96);
        let mut field = |value: &[u8]| {
            // Names are at most 128 bytes, so that their length always fits.
            bytes.extend_from_slice(&u32::try_from(value.len()).unwrap_or(u32::MAX).to_be_bytes());
            bytes.extend_from_slice(value);
        };
        field(key.service().as_bytes());
        field(key.instance().as_bytes());
        field(rule.as_bytes());
        match self {
            Self::Report { reading, epoch, sequence } => {
                [reading, epoch, sequence].iter().for_each(|n| field(&n.to_be_bytes()));
            }
            Self::Counter(count) => field(&count.to_be_bytes()),
        }
        Uuid::new_v5(&ALERT_NAMESPACE, &bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alert() -> Alert {
        let key = Arc::new(InstanceKey::new("web", "a"));
        let id = RaiseId::Counter(1).alert_id(&key, "cpu-high");
        Alert {
            alert_id: id,
            episode_id: id,
            key,
            rule: "cpu-high".into(),
            metric: "cpu_percent".into(),
            value: 95.0,
            threshold: Some(90.0),
            severity: Severity::Critical,
            labels: Arc::default(),
            summary: String::new(),
            runbook_url: None,
            receivers: None,
            evidence: None,
            life: vec![LifeEvent {
                kind: EventKind::Raise,
                at: Timestamp::from_nanos(10),
                by: None,
                value: Some(95.0),
            }],
            late: false,
            triggered_at: Timestamp::from_nanos(10),
            received_at: Timestamp::from_nanos(11),
            resolved_at: None,
            resolve_reason: None,
            last_value: 95.0,
            version: 1,
        }
    }

    #[test]
    fn ids_tell_apart_what_joined_strings_would_not() {
        let id = |service, instance, rule| RaiseId::Counter(1).alert_id(&InstanceKey::new(service, instance), rule);
        assert_ne!(id("ab", "c", "r"), id("a", "bc", "r"));
        assert_eq!(id("a", "b", "r"), id("a", "b", "r"));
        let key = InstanceKey::new("a", "b");
        let report = |reading, epoch, sequence| RaiseId::Report { reading, epoch, sequence }.alert_id(&key, "r");
        assert_ne!(report(0, 0, 1), RaiseId::Counter(1).alert_id(&key, "r"));
        assert_ne!(report(1, 2, 3), report(1, 3, 2));
    }

    #[test]
    fn a_resolve_never_lies_before_its_raise() {
        let resolved = alert().resolved(Timestamp::from_nanos(3), ResolveReason::Cleared, Some(20.0));
        assert_eq!(resolved.resolved_at, Some(Timestamp::from_nanos(10)));
        assert_eq!((resolved.version, resolved.last_value, resolved.value), (2, 20.0, 95.0));
        assert!(!resolved.is_firing());
    }

    #[test]
    fn an_update_changes_what_is_said_and_nothing_that_happened() {
        let before = alert();
        let labels: Arc<BTreeMap<_, _>> = Arc::new([("team".to_owned(), "payments".to_owned())].into());
        let at = Timestamp::from_nanos(20);
        let after = before.updated(Severity::Info, labels.clone(), "CPU is high".to_owned(), at);
        assert_eq!((after.severity, &after.labels, after.summary.as_str()), (Severity::Info, &labels, "CPU is high"));
        assert_eq!((after.version, after.last_value, after.is_firing()), (2, 95.0, true));
        assert_eq!((after.alert_id, after.triggered_at), (before.alert_id, before.triggered_at));
        assert_eq!(after.life.last().map(|event| (event.kind, event.at)), Some((EventKind::Update, at)));
    }

    #[test]
    fn a_long_life_keeps_its_raise_and_its_latest_events() {
        let mut alert = alert();
        for n in 0..100 {
            let at = Timestamp::from_nanos(20 + n);
            alert = alert.advanced(LifeEvent { kind: EventKind::Update, at, by: None, value: None });
        }
        assert_eq!(alert.life.len(), MAX_LIFE_EVENTS);
        assert_eq!(alert.life[0].kind, EventKind::Raise);
        assert_eq!(alert.life.last().map(|e| e.at), Some(Timestamp::from_nanos(119)));
        assert_eq!(alert.version, 101);
    }
}
