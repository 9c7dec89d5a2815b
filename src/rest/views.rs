//! Pieces of JSON that several answers share, and the answer made of them.

use std::borrow::Cow;

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use uuid::Uuid;
use warp::{
    Reply,
    http::{HeaderValue, header},
    reply::Response,
};

use super::problem::Problem;
use crate::{
    model::{Alert, Timestamp},
    stats::Balance,
    store::{HistoryRow, labels_json},
};

/// A time as REST shows it: RFC 3339, UTC, microseconds.
#[derive(Clone, Copy)]
pub(super) struct Time(pub(super) Timestamp);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// An alert's id as REST shows it: lower case, with hyphens.
#[derive(Clone, Copy)]
pub(super) struct Id(pub(super) Uuid);

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.hyphenated().encode_lower(&mut Uuid::encode_buffer()))
    }
}

/// The accounts (CONTRACT §7.8).
#[derive(Serialize)]
pub(super) struct BalanceView {
    received: u64,
    accepted: u64,
    rejected: u64,
    duplicates: u64,
    queued: u64,
    events: u64,
    stored: u64,
    pending: u64,
    dead_letter: u64,
}

impl From<Balance> for BalanceView {
    fn from(balance: Balance) -> Self {
        let Balance { received, accepted, rejected, duplicates, queued, events, stored, pending, dead_letter } =
            balance;
        Self { received, accepted, rejected, duplicates, queued, events, stored, pending, dead_letter }
    }
}

/// JSON that was text before, given on as it stands: read and written again, a number could lose its last digit.
#[derive(Serialize)]
#[serde(transparent)]
pub(super) struct Json<'a>(Cow<'a, RawValue>);

impl<'a> Json<'a> {
    /// What the database keeps as an object; `None` if it is none, as a foreign program may have written it.
    pub(super) fn object(text: Option<&'a str>) -> Option<Self> {
        Self::beginning_with('{', text)
    }

    /// The same of an array.
    pub(super) fn array(text: Option<&'a str>) -> Option<Self> {
        Self::beginning_with('[', text)
    }

    fn beginning_with(bracket: char, text: Option<&'a str>) -> Option<Self> {
        let value: &RawValue = serde_json::from_str(text?).ok()?;
        value.get().starts_with(bracket).then_some(Self(Cow::Borrowed(value)))
    }

    /// What we have just written ourselves.
    pub(super) fn made(text: String) -> Self {
        Self(Cow::Owned(RawValue::from_string(text).expect("we wrote it as JSON")))
    }
}

/// An alert as one row: what every answer about alerts shows of it.
#[derive(Serialize)]
pub(super) struct RowView<'a> {
    /// Null in what is told from memory: only the store knows it, as it does `stored_at`.
    id: Option<u64>,
    alert_id: Option<Id>,
    service_name: &'a str,
    instance: Option<&'a str>,
    metric: &'a str,
    metric_value: f64,
    rule: Option<&'a str>,
    severity: Option<&'a str>,
    threshold: Option<f64>,
    triggered_at: Time,
    received_at: Option<Time>,
    stored_at: Option<Time>,
    resolved_at: Option<Time>,
    resolve_reason: Option<&'a str>,
    late: bool,
    labels: Json<'a>,
    summary: Option<&'a str>,
}

impl<'a> RowView<'a> {
    /// What the store holds.
    pub(super) fn of_row(row: &'a HistoryRow) -> Self {
        Self {
            id: Some(row.id),
            alert_id: row.alert_id.map(Id),
            service_name: &row.service_name,
            instance: row.instance.as_deref(),
            metric: &row.metric,
            metric_value: row.metric_value,
            rule: row.rule.as_deref(),
            severity: row.severity.as_deref(),
            threshold: row.threshold,
            triggered_at: Time(row.triggered_at),
            received_at: row.received_at.map(Time),
            stored_at: row.stored_at.map(Time),
            resolved_at: row.resolved_at.map(Time),
            resolve_reason: row.resolve_reason.as_deref(),
            late: row.late,
            labels: Json::object(row.labels.as_deref()).unwrap_or_else(|| Json::made("{}".to_owned())),
            summary: row.summary.as_deref(),
        }
    }

    /// What the server itself holds.
    pub(super) fn of_alert(alert: &'a Alert) -> Self {
        Self {
            id: None,
            alert_id: Some(Id(alert.alert_id)),
            service_name: alert.key.service(),
            instance: Some(alert.key.instance()),
            metric: &alert.metric,
            metric_value: alert.value,
            rule: Some(&alert.rule),
            severity: Some(alert.severity.as_str()),
            threshold: alert.threshold,
            triggered_at: Time(alert.triggered_at),
            received_at: Some(Time(alert.received_at)),
            stored_at: None,
            resolved_at: alert.resolved_at.map(Time),
            resolve_reason: alert.resolve_reason.map(|why| why.as_str()),
            late: alert.late,
            labels: Json::made(labels_json(&alert.labels)),
            summary: Some(&alert.summary),
        }
    }
}

/// 200 with `view` as its body.
pub(super) fn json(view: &impl Serialize) -> Result<Response, Problem> {
    json_of(view, 512)
}

/// The same, with room for `capacity` bytes from the start.
pub(super) fn json_of(view: &impl Serialize, capacity: usize) -> Result<Response, Problem> {
    let mut body = Vec::with_capacity(capacity);
    // Views have names for keys and nothing that could refuse to be written.
    serde_json::to_writer(&mut body, view).map_err(|_| Problem::internal())?;
    let mut response = body.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}
