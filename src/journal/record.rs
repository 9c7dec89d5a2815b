//! The journal's records: protobuf messages, so that fields can be added and old files stay readable.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use prost::Message;
use uuid::Uuid;

use crate::{
    model::{
        Alert, Event, EventKind, Evidence, EvidencePoint, InstanceKey, LifeEvent, Name, ResolveReason, Severity,
        Timestamp,
    },
    state::{InstanceState, Mark, Presence},
};

/// An instance as the journal is to remember it, encoded by the lane that owns it.
#[derive(Debug)]
pub struct Snapshot {
    pub(super) key: Arc<InstanceKey>,
    /// `None`: it is to be forgotten altogether.
    pub(super) body: Option<Vec<u8>>,
}

/// An instance as the journal remembers it. Rules are named, since their places may have changed.
#[derive(Debug)]
pub struct RestoredInstance {
    /// Who it is.
    pub key: Arc<InstanceKey>,
    /// The last known value of each metric.
    pub metrics: Vec<(Name, f64)>,
    /// When the server last heard of it.
    pub last_seen: Timestamp,
    /// By how much its clock was ahead, in nanoseconds.
    pub skew_nanos: Option<i64>,
    /// Whether its silence would be an alert.
    pub armed: bool,
    /// Its usual gap between reports.
    pub usual_gap: Duration,
    /// Whether it left in order.
    pub left: bool,
    /// Whether only its marks are remembered.
    pub forgotten: bool,
    /// How far its numberings have come.
    pub marks: Vec<Mark>,
    /// Raises that no numbered report caused.
    pub raises: u64,
    /// The alerts that fire.
    pub firing: Vec<Arc<Alert>>,
}

/// A record that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// It is no message.
    #[error("decoding the message")]
    Decode(#[source] prost::DecodeError),
    /// A field holds what it cannot.
    #[error("field {0} holds what it cannot")]
    Field(&'static str),
}

impl Snapshot {
    /// The instance as it is now.
    pub fn of(instance: &InstanceState) -> Self {
        let presence = match instance.presence {
            Presence::Present => PRESENT,
            Presence::Left(_) => LEFT,
            Presence::Forgotten(_) => FORGOTTEN,
        };
        let marks = instance.marks.iter();
        let message = InstanceMessage {
            metrics: instance.metrics.iter().map(|(n, v)| MetricMessage { name: n.to_string(), value: *v }).collect(),
            last_seen: instance.last_seen.as_nanos(),
            skew_nanos: instance.skew_nanos,
            armed: instance.silence.is_armed(),
            usual_gap_nanos: u64::try_from(instance.silence.usual_gap().as_nanos()).unwrap_or(u64::MAX),
            presence,
            marks: marks
                .map(|m| MarkMessage { epoch: m.epoch, sequence: m.sequence, wire_time: m.wire_time })
                .collect(),
            raises: instance.raises,
            firing: instance.firing.iter().map(|f| AlertMessage::of(&f.alert)).collect(),
        };
        Self { key: instance.key.clone(), body: Some(message.encode_to_vec()) }
    }

    /// Nothing of the instance is to be remembered.
    pub fn none(key: &Arc<InstanceKey>) -> Self {
        Self { key: key.clone(), body: None }
    }
}

const PRESENT: u32 = 0;
const LEFT: u32 = 1;
const FORGOTTEN: u32 = 2;

#[derive(Clone, PartialEq, Message)]
struct MetricMessage {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(double, tag = "2")]
    value: f64,
}

#[derive(Clone, PartialEq, Message)]
struct MarkMessage {
    #[prost(fixed64, tag = "1")]
    epoch: u64,
    #[prost(uint64, tag = "2")]
    sequence: u64,
    #[prost(fixed64, tag = "3")]
    wire_time: u64,
}

#[derive(Clone, PartialEq, Message)]
struct InstanceMessage {
    #[prost(message, repeated, tag = "1")]
    metrics: Vec<MetricMessage>,
    #[prost(sfixed64, tag = "2")]
    last_seen: i64,
    #[prost(sint64, optional, tag = "3")]
    skew_nanos: Option<i64>,
    #[prost(bool, tag = "4")]
    armed: bool,
    #[prost(uint64, tag = "5")]
    usual_gap_nanos: u64,
    #[prost(uint32, tag = "6")]
    presence: u32,
    #[prost(message, repeated, tag = "7")]
    marks: Vec<MarkMessage>,
    #[prost(uint64, tag = "8")]
    raises: u64,
    #[prost(message, repeated, tag = "9")]
    firing: Vec<AlertMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct LifeMessage {
    #[prost(string, tag = "1")]
    kind: String,
    #[prost(sfixed64, tag = "2")]
    at: i64,
    #[prost(string, optional, tag = "3")]
    by: Option<String>,
    #[prost(double, optional, tag = "4")]
    value: Option<f64>,
}

#[derive(Clone, PartialEq, Message)]
struct PointMessage {
    #[prost(sfixed64, tag = "1")]
    at: i64,
    #[prost(double, tag = "2")]
    value: f64,
}

#[derive(Clone, PartialEq, Message)]
struct EvidenceMessage {
    #[prost(string, tag = "1")]
    when: String,
    #[prost(message, repeated, tag = "2")]
    points: Vec<PointMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct AlertMessage {
    #[prost(bytes = "vec", tag = "1")]
    alert_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    episode_id: Vec<u8>,
    #[prost(string, tag = "3")]
    service: String,
    #[prost(string, tag = "4")]
    instance: String,
    #[prost(string, tag = "5")]
    rule: String,
    #[prost(string, tag = "6")]
    metric: String,
    #[prost(double, tag = "7")]
    value: f64,
    #[prost(double, optional, tag = "8")]
    threshold: Option<f64>,
    #[prost(string, tag = "9")]
    severity: String,
    #[prost(btree_map = "string, string", tag = "10")]
    labels: BTreeMap<String, String>,
    #[prost(string, tag = "11")]
    summary: String,
    #[prost(message, optional, tag = "12")]
    evidence: Option<EvidenceMessage>,
    #[prost(message, repeated, tag = "13")]
    life: Vec<LifeMessage>,
    #[prost(bool, tag = "14")]
    late: bool,
    #[prost(sfixed64, tag = "15")]
    triggered_at: i64,
    #[prost(sfixed64, tag = "16")]
    received_at: i64,
    #[prost(sfixed64, optional, tag = "17")]
    resolved_at: Option<i64>,
    #[prost(string, optional, tag = "18")]
    resolve_reason: Option<String>,
    #[prost(double, tag = "19")]
    last_value: f64,
    #[prost(uint32, tag = "20")]
    version: u32,
}

#[derive(Clone, PartialEq, Message)]
struct EventMessage {
    #[prost(string, tag = "1")]
    kind: String,
    #[prost(message, optional, tag = "2")]
    alert: Option<AlertMessage>,
}

impl AlertMessage {
    fn of(alert: &Alert) -> Self {
        let point = |p: &EvidencePoint| PointMessage { at: p.at.as_nanos(), value: p.value };
        let life = |e: &LifeEvent| LifeMessage {
            kind: e.kind.as_str().to_owned(),
            at: e.at.as_nanos(),
            by: e.by.clone(),
            value: e.value,
        };
        Self {
            alert_id: alert.alert_id.as_bytes().to_vec(),
            episode_id: alert.episode_id.as_bytes().to_vec(),
            service: alert.key.service().to_owned(),
            instance: alert.key.instance().to_owned(),
            rule: alert.rule.to_string(),
            metric: alert.metric.to_string(),
            value: alert.value,
            threshold: alert.threshold,
            severity: alert.severity.as_str().to_owned(),
            labels: (*alert.labels).clone(),
            summary: alert.summary.clone(),
            evidence: alert.evidence.as_ref().map(|evidence| EvidenceMessage {
                when: evidence.when.to_string(),
                points: evidence.points.iter().map(point).collect(),
            }),
            life: alert.life.iter().map(life).collect(),
            late: alert.late,
            triggered_at: alert.triggered_at.as_nanos(),
            received_at: alert.received_at.as_nanos(),
            resolved_at: alert.resolved_at.map(Timestamp::as_nanos),
            resolve_reason: alert.resolve_reason.map(|why| why.as_str().to_owned()),
            last_value: alert.last_value,
            version: alert.version,
        }
    }

    fn into_alert(self) -> Result<Alert, RecordError> {
        let id = |bytes: &[u8], field| Uuid::from_slice(bytes).map_err(|_| RecordError::Field(field));
        let reason = |word: String| word.parse::<ResolveReason>().map_err(|()| RecordError::Field("resolve_reason"));
        let life = |e: LifeMessage| {
            let kind = e.kind.parse::<EventKind>().map_err(|()| RecordError::Field("life"))?;
            Ok(LifeEvent { kind, at: Timestamp::from_nanos(e.at), by: e.by, value: e.value })
        };
        let point = |p: PointMessage| EvidencePoint { at: Timestamp::from_nanos(p.at), value: p.value };
        let evidence = |e: EvidenceMessage| {
            Arc::new(Evidence { when: e.when.into(), points: e.points.into_iter().map(point).collect() })
        };
        Ok(Alert {
            alert_id: id(&self.alert_id, "alert_id")?,
            episode_id: id(&self.episode_id, "episode_id")?,
            key: Arc::new(InstanceKey::new(&self.service, &self.instance)),
            rule: self.rule.into(),
            metric: self.metric.into(),
            value: self.value,
            threshold: self.threshold,
            severity: self.severity.parse::<Severity>().map_err(|()| RecordError::Field("severity"))?,
            labels: Arc::new(self.labels),
            summary: self.summary,
            evidence: self.evidence.map(evidence),
            life: self.life.into_iter().map(life).collect::<Result<_, RecordError>>()?,
            late: self.late,
            triggered_at: Timestamp::from_nanos(self.triggered_at),
            received_at: Timestamp::from_nanos(self.received_at),
            resolved_at: self.resolved_at.map(Timestamp::from_nanos),
            resolve_reason: self.resolve_reason.map(reason).transpose()?,
            last_value: self.last_value,
            version: self.version,
        })
    }
}

pub(super) fn encode_event(event: &Event) -> Vec<u8> {
    let message = EventMessage { kind: event.kind.as_str().to_owned(), alert: Some(AlertMessage::of(&event.alert)) };
    message.encode_to_vec()
}

pub(super) fn decode_event(body: &[u8]) -> Result<Event, RecordError> {
    let message = EventMessage::decode(body).map_err(RecordError::Decode)?;
    let kind = message.kind.parse::<EventKind>().map_err(|()| RecordError::Field("kind"))?;
    let alert = message.alert.ok_or(RecordError::Field("alert"))?.into_alert()?;
    Ok(Event { kind, alert: Arc::new(alert) })
}

pub(super) fn decode_instance(service: &str, instance: &str, body: &[u8]) -> Result<RestoredInstance, RecordError> {
    let message = InstanceMessage::decode(body).map_err(RecordError::Decode)?;
    let firing = |message: AlertMessage| Ok(Arc::new(message.into_alert()?));
    let mark = |m: MarkMessage| Mark { epoch: m.epoch, sequence: m.sequence, wire_time: m.wire_time };
    Ok(RestoredInstance {
        key: Arc::new(InstanceKey::new(service, instance)),
        metrics: message.metrics.into_iter().map(|m| (m.name.into(), m.value)).collect(),
        last_seen: Timestamp::from_nanos(message.last_seen),
        skew_nanos: message.skew_nanos,
        armed: message.armed,
        usual_gap: Duration::from_nanos(message.usual_gap_nanos),
        left: message.presence == LEFT,
        forgotten: message.presence == FORGOTTEN,
        marks: message.marks.into_iter().map(mark).collect(),
        raises: message.raises,
        firing: message.firing.into_iter().map(firing).collect::<Result<_, RecordError>>()?,
    })
}
