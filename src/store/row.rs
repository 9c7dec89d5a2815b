//! An alert as the columns of a row: what both stores write, and the JSON text inside it.
//!
//! JSON is made here and nowhere else in the store (the model knows no format); REST shows it in the same shapes. Times are cut to microseconds and
//! numbers to what a DOUBLE column can hold.

use std::collections::BTreeMap;

use serde::Serialize;
use uuid::Uuid;

use crate::model::{Alert, Evidence, LifeEvent};

/// The columns that both stores write for one alert, but for `stored_at` and `server_id`.
pub(super) struct AlertRow<'a> {
    pub(super) alert: &'a Alert,
    pub(super) labels: String,
    pub(super) evidence: Option<String>,
    pub(super) events: String,
}

impl<'a> AlertRow<'a> {
    pub(super) fn new(alert: &'a Alert) -> Self {
        Self {
            alert,
            labels: labels_json(&alert.labels),
            evidence: alert.evidence.as_deref().map(evidence_json),
            events: events_json(&alert.life),
        }
    }

    pub(super) fn alert_id(&self) -> &'a [u8] {
        self.alert.alert_id.as_bytes()
    }

    pub(super) fn episode_id(&self) -> &'a [u8] {
        self.alert.episode_id.as_bytes()
    }

    pub(super) fn metric_value(&self) -> f64 {
        storable(self.alert.value)
    }

    pub(super) fn threshold(&self) -> Option<f64> {
        self.alert.threshold.map(storable)
    }

    pub(super) fn last_value(&self) -> f64 {
        storable(self.alert.last_value)
    }

    pub(super) fn resolve_reason(&self) -> Option<&'static str> {
        self.alert.resolve_reason.map(|reason| reason.as_str())
    }
}

/// The nearest number that a DOUBLE column holds. Arithmetic in a rule can overflow to an infinity, which MySQL refuses;
/// a row with the largest number tells more than a row that could not be written.
fn storable(value: f64) -> f64 {
    if value.is_nan() { 0.0 } else { value.clamp(f64::MIN, f64::MAX) }
}

#[derive(Serialize)]
struct EventJson<'a> {
    kind: &'static str,
    at: String,
    by: Option<&'a str>,
    value: Option<f64>,
}

#[derive(Serialize)]
struct EvidenceJson<'a> {
    when: &'a str,
    points: Vec<(i64, f64)>,
}

/// A JSON object.
pub fn labels_json(labels: &BTreeMap<String, String>) -> String {
    to_json(labels)
}

/// `{"when": …, "points": [[unix_ms, value], …]}`.
pub fn evidence_json(evidence: &Evidence) -> String {
    let points = evidence.points.iter().map(|p| (p.at.as_nanos().div_euclid(1_000_000), p.value)).collect();
    to_json(&EvidenceJson { when: &evidence.when, points })
}

/// `[{"kind": …, "at": RFC 3339, "by": …, "value": …}, …]`.
pub fn events_json(life: &[LifeEvent]) -> String {
    let events: Vec<_> = life
        .iter()
        .map(|e| EventJson { kind: e.kind.as_str(), at: e.at.to_string(), by: e.by.as_deref(), value: e.value })
        .collect();
    to_json(&events)
}

fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("strings, numbers, lists and maps with text keys always have a JSON form")
}

/// An id from a column of 16 bytes; `None` for any other length, which only a foreign program can have written.
pub(super) fn uuid(bytes: &[u8]) -> Option<Uuid> {
    Uuid::from_slice(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{EventKind, EvidencePoint, Timestamp};

    #[test]
    fn the_json_of_a_row_has_the_shapes_that_rest_shows() {
        let life = [LifeEvent {
            kind: EventKind::Raise,
            at: Timestamp::from_nanos(1_795_401_565_000_001_999),
            by: Some("ann \"x\"\n".to_owned()),
            value: Some(f64::NAN),
        }];
        assert_eq!(
            events_json(&life),
            r#"[{"kind":"raise","at":"2026-11-23T02:39:25.000001Z","by":"ann \"x\"\n","value":null}]"#
        );
        let points = vec![EvidencePoint { at: Timestamp::from_nanos(1_999_999), value: 95.5 }];
        assert_eq!(
            evidence_json(&Evidence { when: "cpu_percent > 90".into(), points }),
            r#"{"when":"cpu_percent > 90","points":[[1,95.5]]}"#
        );
    }

    #[test]
    fn numbers_that_no_column_holds_become_the_nearest_one() {
        assert_eq!(storable(f64::INFINITY), f64::MAX);
        assert_eq!(storable(f64::NEG_INFINITY), f64::MIN);
        assert_eq!(storable(f64::NAN), 0.0);
        assert_eq!(storable(-1.5), -1.5);
    }
}
