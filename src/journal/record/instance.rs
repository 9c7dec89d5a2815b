//! An instance as a protobuf message: all that the next start needs, but for the points of its windows.

use std::{sync::Arc, time::Duration};

use prost::Message;

use super::{
    RecordError,
    alert::{AlertMessage, PointMessage},
};
use crate::{
    model::{Alert, InstanceKey, Name, Timestamp},
    rules::{Carried, Clock, Firing, Pending, SeriesPart, Trail},
    state::{InstanceState, Mark, Presence},
};

/// An instance as the journal remembers it. Rules are named, since their places may have changed.
#[derive(Debug)]
pub struct RestoredInstance {
    /// Who it is.
    pub key: Arc<InstanceKey>,
    /// The last known value of each metric, and whether it was in the last report.
    pub metrics: Vec<(Name, f64, bool)>,
    /// When the last report was read.
    pub read_at: Option<Timestamp>,
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
    /// Its evaluation time.
    pub clock: Clock,
    /// What was true and not yet firing.
    pub pending: Vec<Carried<Pending>>,
    /// What fires.
    pub firing: Vec<Carried<Firing>>,
    /// The points of its windows, in the order in which they came.
    pub windows: Vec<Vec<SeriesPart>>,
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
    #[prost(bool, tag = "3")]
    fresh: bool,
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
struct PendingMessage {
    #[prost(string, tag = "1")]
    rule: String,
    #[prost(fixed64, tag = "2")]
    generation: u64,
    #[prost(sfixed64, tag = "3")]
    since: i64,
    #[prost(message, repeated, tag = "4")]
    points: Vec<PointMessage>,
    #[prost(uint64, tag = "5")]
    stride: u64,
    #[prost(uint64, tag = "6")]
    seen: u64,
}

/// What belongs to a firing alert beside its row.
#[derive(Clone, PartialEq, Message)]
struct FiringMessage {
    #[prost(fixed64, tag = "1")]
    generation: u64,
    #[prost(sfixed64, optional, tag = "2")]
    clear_since: Option<i64>,
    #[prost(sfixed64, tag = "3")]
    notified_at: i64,
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
    #[prost(sfixed64, optional, tag = "10")]
    read_at: Option<i64>,
    #[prost(sfixed64, optional, tag = "11")]
    latest: Option<i64>,
    #[prost(sint64, tag = "12")]
    offset_nanos: i64,
    #[prost(message, repeated, tag = "13")]
    pending: Vec<PendingMessage>,
    /// In the order of `firing`; shorter or empty in files of versions that did not write it.
    #[prost(message, repeated, tag = "14")]
    firing_state: Vec<FiringMessage>,
}

pub(super) fn encode(instance: &InstanceState) -> Vec<u8> {
    let progress = &instance.progress;
    let generation = |rule: usize| progress.plan.rules[rule].generation;
    let metric = |(name, value, fresh): (&Name, f64, bool)| MetricMessage { name: name.to_string(), value, fresh };
    let mark = |m: &Mark| MarkMessage { epoch: m.epoch, sequence: m.sequence, wire_time: m.wire_time };
    let pending = |pending: &Pending| PendingMessage {
        rule: progress.plan.rules[pending.rule].name.to_string(),
        generation: generation(pending.rule),
        since: pending.since.as_nanos(),
        points: pending.trail.points.iter().map(PointMessage::from).collect(),
        stride: pending.trail.stride,
        seen: pending.trail.seen,
    };
    let firing_state = |firing: &Firing| FiringMessage {
        generation: generation(firing.rule),
        clear_since: firing.clear_since.map(Timestamp::as_nanos),
        notified_at: firing.notified_at.as_nanos(),
    };
    let message = InstanceMessage {
        metrics: instance.latest.iter_marked().map(metric).collect(),
        last_seen: instance.last_seen.as_nanos(),
        skew_nanos: instance.skew_nanos,
        armed: instance.silence.is_armed(),
        usual_gap_nanos: u64::try_from(instance.silence.usual_gap().as_nanos()).unwrap_or(u64::MAX),
        presence: match instance.presence {
            Presence::Present => PRESENT,
            Presence::Left(_) => LEFT,
            Presence::Forgotten(_) => FORGOTTEN,
        },
        marks: instance.marks.iter().map(mark).collect(),
        raises: progress.raises,
        firing: progress.firing.iter().map(|firing| AlertMessage::of(&firing.alert)).collect(),
        read_at: instance.read_at.map(Timestamp::as_nanos),
        latest: progress.clock.latest.map(Timestamp::as_nanos),
        offset_nanos: progress.clock.offset_nanos,
        pending: progress.pending.iter().map(pending).collect(),
        firing_state: progress.firing.iter().map(firing_state).collect(),
    };
    message.encode_to_vec()
}

/// `windows`: the points of its windows, which are kept beside it.
pub(in crate::journal) fn decode_instance(
    service: &str,
    instance: &str,
    body: &[u8],
    windows: Vec<Vec<SeriesPart>>,
) -> Result<RestoredInstance, RecordError> {
    let message = InstanceMessage::decode(body).map_err(RecordError::Decode)?;
    let mark = |m: MarkMessage| Mark { epoch: m.epoch, sequence: m.sequence, wire_time: m.wire_time };
    let pending = |m: PendingMessage| Carried {
        rule: m.rule.into(),
        generation: m.generation,
        what: Pending {
            rule: 0,
            since: Timestamp::from_nanos(m.since),
            trail: Trail {
                points: m.points.into_iter().map(Into::into).collect(),
                stride: m.stride.max(1),
                seen: m.seen,
            },
        },
    };
    let mut states = message.firing_state.into_iter();
    let firing = |m: AlertMessage| {
        let alert = Arc::new(m.into_alert()?);
        Ok(firing(alert, states.next()))
    };
    Ok(RestoredInstance {
        key: Arc::new(InstanceKey::new(service, instance)),
        metrics: message.metrics.into_iter().map(|m| (m.name.into(), m.value, m.fresh)).collect(),
        read_at: message.read_at.map(Timestamp::from_nanos),
        last_seen: Timestamp::from_nanos(message.last_seen),
        skew_nanos: message.skew_nanos,
        armed: message.armed,
        usual_gap: Duration::from_nanos(message.usual_gap_nanos),
        left: message.presence == LEFT,
        forgotten: message.presence == FORGOTTEN,
        marks: message.marks.into_iter().map(mark).collect(),
        raises: message.raises,
        clock: Clock { latest: message.latest.map(Timestamp::from_nanos), offset_nanos: message.offset_nanos },
        pending: message.pending.into_iter().map(pending).collect(),
        firing: message.firing.into_iter().map(firing).collect::<Result<_, RecordError>>()?,
        windows,
    })
}

fn firing(alert: Arc<Alert>, state: Option<FiringMessage>) -> Carried<Firing> {
    let state = state
        .unwrap_or_else(|| FiringMessage { notified_at: alert.received_at.as_nanos(), ..FiringMessage::default() });
    Carried {
        rule: alert.rule.clone(),
        generation: state.generation,
        what: Firing {
            rule: 0,
            alert,
            clear_since: state.clear_since.map(Timestamp::from_nanos),
            notified_at: Timestamp::from_nanos(state.notified_at),
        },
    }
}
