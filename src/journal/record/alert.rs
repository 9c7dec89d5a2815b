//! Alerts and their events as protobuf messages.

use std::{collections::BTreeMap, sync::Arc};

use prost::Message;
use uuid::Uuid;

use super::RecordError;
use crate::model::{
    Alert, Event, EventKind, Evidence, EvidencePoint, InstanceKey, LifeEvent, ResolveReason, Severity, Timestamp,
};

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
pub(super) struct PointMessage {
    #[prost(sfixed64, tag = "1")]
    at: i64,
    #[prost(double, tag = "2")]
    value: f64,
}

impl From<&EvidencePoint> for PointMessage {
    fn from(point: &EvidencePoint) -> Self {
        Self { at: point.at.as_nanos(), value: point.value }
    }
}

impl From<PointMessage> for EvidencePoint {
    fn from(point: PointMessage) -> Self {
        Self { at: Timestamp::from_nanos(point.at), value: point.value }
    }
}

#[derive(Clone, PartialEq, Message)]
struct EvidenceMessage {
    #[prost(string, tag = "1")]
    when: String,
    #[prost(message, repeated, tag = "2")]
    points: Vec<PointMessage>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct AlertMessage {
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
    #[prost(string, optional, tag = "21")]
    runbook_url: Option<String>,
    /// A message, so that nobody and everybody can be told apart.
    #[prost(message, optional, tag = "22")]
    receivers: Option<NamesMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct NamesMessage {
    #[prost(string, repeated, tag = "1")]
    names: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct EventMessage {
    #[prost(string, tag = "1")]
    kind: String,
    #[prost(message, optional, tag = "2")]
    alert: Option<AlertMessage>,
}

impl AlertMessage {
    pub(super) fn of(alert: &Alert) -> Self {
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
                points: evidence.points.iter().map(PointMessage::from).collect(),
            }),
            life: alert.life.iter().map(life).collect(),
            late: alert.late,
            triggered_at: alert.triggered_at.as_nanos(),
            received_at: alert.received_at.as_nanos(),
            resolved_at: alert.resolved_at.map(Timestamp::as_nanos),
            resolve_reason: alert.resolve_reason.map(|why| why.as_str().to_owned()),
            last_value: alert.last_value,
            version: alert.version,
            runbook_url: alert.runbook_url.as_deref().map(str::to_owned),
            receivers: alert
                .receivers
                .as_ref()
                .map(|names| NamesMessage { names: names.iter().map(|name| name.to_string()).collect() }),
        }
    }

    pub(super) fn into_alert(self) -> Result<Alert, RecordError> {
        let id = |bytes: &[u8], field| Uuid::from_slice(bytes).map_err(|_| RecordError::Field(field));
        let reason = |word: String| word.parse::<ResolveReason>().map_err(|()| RecordError::Field("resolve_reason"));
        let life = |e: LifeMessage| {
            let kind = e.kind.parse::<EventKind>().map_err(|()| RecordError::Field("life"))?;
            Ok(LifeEvent { kind, at: Timestamp::from_nanos(e.at), by: e.by, value: e.value })
        };
        let evidence = |e: EvidenceMessage| {
            Arc::new(Evidence { when: e.when.into(), points: e.points.into_iter().map(EvidencePoint::from).collect() })
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
            runbook_url: self.runbook_url.map(Into::into),
            receivers: self.receivers.map(|told| told.names.into_iter().map(Into::into).collect()),
        })
    }
}

/// The kind of an event, without the rest of it; `None`: it does not begin with that.
pub(in crate::journal) fn kind_of(body: &[u8]) -> Option<EventKind> {
    // The first field, of tag 1: a byte for tag and type, a byte of length, for no kind has a long name.
    let [b'\n', length, rest @ ..] = body else { return None };
    std::str::from_utf8(rest.get(..usize::from(*length))?).ok()?.parse().ok()
}

pub(in crate::journal) fn decode_event(body: &[u8]) -> Result<Event, RecordError> {
    let message = EventMessage::decode(body).map_err(RecordError::Decode)?;
    let kind = message.kind.parse::<EventKind>().map_err(|()| RecordError::Field("kind"))?;
    let alert = message.alert.ok_or(RecordError::Field("alert"))?.into_alert()?;
    Ok(Event { kind, alert: Arc::new(alert) })
}

#[cfg(test)]
mod tests {
    use super::{super::write::encode_event, *};
    use crate::model::RaiseId;

    fn event(kind: EventKind) -> Event {
        let key = Arc::new(InstanceKey::new("web", "a"));
        let alert_id = RaiseId::Counter(1).alert_id(&key, "cpu-high");
        let alert = Alert {
            alert_id,
            episode_id: alert_id,
            key,
            rule: "cpu-high".into(),
            metric: "cpu_percent".into(),
            value: 95.0,
            threshold: Some(90.0),
            severity: Severity::Critical,
            labels: Arc::new([("team".to_owned(), "payments".to_owned())].into()),
            summary: "high".to_owned(),
            runbook_url: None,
            receivers: Some([].into()),
            evidence: None,
            life: vec![LifeEvent { kind, at: Timestamp::from_nanos(10), by: None, value: Some(95.0) }],
            late: false,
            triggered_at: Timestamp::from_nanos(10),
            received_at: Timestamp::from_nanos(11),
            resolved_at: None,
            resolve_reason: None,
            last_value: 95.0,
            version: 1,
        };
        Event { kind, alert: Arc::new(alert) }
    }

    #[test]
    fn an_events_kind_is_read_without_the_rest_of_it() {
        use EventKind::{Raise, Record, Repeat, Resolve, Restate, Update};
        for kind in [Raise, Update, Resolve, Record, Repeat, Restate] {
            let body = encode_event(&event(kind));
            assert_eq!(kind_of(&body), Some(kind));
            assert_eq!(decode_event(&body).expect("whole"), event(kind));
            // What does not begin with a kind is left to whoever reads all of it.
            assert_eq!(kind_of(&body[1..]), None);
            assert_eq!(kind_of(&body[..3]), None);
        }
        assert_eq!(kind_of(&[]), None);
    }

    /// As prost writes it.
    fn by_prost(event: &Event) -> Vec<u8> {
        let alert = Some(AlertMessage::of(&event.alert));
        EventMessage { kind: event.kind.as_str().to_owned(), alert }.encode_to_vec()
    }

    #[test]
    fn an_event_is_written_as_its_message_would_be() {
        let plain = event(EventKind::Raise);
        let long = |n: usize| "x".repeat(n);
        let point = |n| EvidencePoint { at: Timestamp::from_nanos(n), value: n as f64 };
        let full = Alert {
            labels: Arc::new((0..9).map(|n| (format!("label-{n}"), long(n * 40))).collect()),
            summary: long(20_000),
            runbook_url: Some("https://example.org".into()),
            receivers: Some(["a".into(), "".into()].into()),
            evidence: Some(Arc::new(Evidence {
                when: "cpu_percent > 90".into(),
                points: (-1..60).map(point).collect(),
            })),
            life: (0..50)
                .map(|n| LifeEvent {
                    kind: EventKind::Update,
                    at: Timestamp::from_nanos(n),
                    by: (n % 2 == 0).then(|| long(n as usize)),
                    value: (n % 3 == 0).then_some(n as f64),
                })
                .collect(),
            late: true,
            resolved_at: Some(Timestamp::from_nanos(0)),
            resolve_reason: Some(ResolveReason::Cleared),
            version: u32::MAX,
            ..(*plain.alert).clone()
        };
        let bare = Alert {
            rule: "".into(),
            value: 0.0,
            threshold: Some(0.0),
            labels: Arc::default(),
            summary: String::new(),
            receivers: None,
            life: Vec::new(),
            triggered_at: Timestamp::from_nanos(0),
            last_value: f64::INFINITY,
            version: 0,
            ..(*plain.alert).clone()
        };
        // Lengths about the places where one takes another byte.
        let edges = (100..140).chain(16_300..16_400).map(|n| Alert { summary: long(n), ..bare.clone() });
        for alert in [full, bare.clone()].into_iter().chain(edges) {
            let event = Event { kind: EventKind::Resolve, alert: Arc::new(alert) };
            let body = encode_event(&event);
            assert_eq!(body, by_prost(&event));
            assert_eq!(decode_event(&body).expect("whole"), event);
        }
    }
}
