//! The body of a webhook: what Alertmanager sends, and one key more.

use serde::Serialize;

use crate::{
    model::{Alert, Timestamp},
    notify::{
        Notification, Occasion,
        labels::{Labels, fingerprint, labels, printed},
    },
};

/// What Alertmanager says where there is no time yet: Go's zero.
const NEVER: &str = "0001-01-01T00:00:00Z";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WebhookBody<'a> {
    version: &'static str,
    group_key: String,
    truncated_alerts: usize,
    status: &'static str,
    receiver: &'a str,
    group_labels: Labels<'a>,
    common_labels: Labels<'a>,
    common_annotations: Labels<'a>,
    #[serde(rename = "externalURL")]
    external_url: &'a str,
    #[serde(rename = "notification_reason")]
    notification_reason: &'static str,
    alerts: Vec<AlertBody<'a>>,
    gopherwatch: Extra<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AlertBody<'a> {
    status: &'static str,
    labels: Labels<'a>,
    annotations: Labels<'a>,
    starts_at: String,
    ends_at: String,
    #[serde(rename = "generatorURL")]
    generator_url: String,
    fingerprint: String,
}

/// What Alertmanager has no place for. A digest has it for each alert, in their order.
#[derive(Serialize)]
struct Extra<'a> {
    event: &'static str,
    #[serde(flatten)]
    one: Option<Facts<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    alerts: Option<Vec<Facts<'a>>>,
}

#[derive(Serialize)]
struct Facts<'a> {
    alert_id: String,
    version: u32,
    metric: &'a str,
    value: f64,
    threshold: Option<f64>,
    last_value: f64,
    late: bool,
    triggered_at: String,
    received_at: String,
    resolved_at: Option<String>,
    resolve_reason: Option<&'static str>,
}

/// The bytes to send: the same for the same notification, whenever it is sent.
pub(super) fn body(receiver: &str, origin: &str, notification: &Notification) -> Vec<u8> {
    let Notification { occasion, alerts, n_more, key: _ } = notification;
    let is_digest = *occasion == Occasion::Digest;
    let alert_bodies: Vec<_> = alerts.iter().map(|alert| alert_body(alert, origin)).collect();
    let common_labels = common(alert_bodies.iter().map(|alert| &alert.labels));
    // One alert is one group. What may change in its life, such as its severity, does not make it another one.
    let mut group_labels = if is_digest { Labels::new() } else { common_labels.clone() };
    group_labels.retain(|name, _| ["alertname", "service", "instance"].contains(&&**name));
    let mut facts = alerts.iter().map(|alert| facts(alert));
    let body = WebhookBody {
        version: "4",
        group_key: format!("{{}}:{}", printed(&group_labels)),
        truncated_alerts: *n_more,
        status: if alerts.iter().any(|alert| alert.is_firing()) { "firing" } else { "resolved" },
        receiver,
        group_labels,
        common_annotations: common(alert_bodies.iter().map(|alert| &alert.annotations)),
        common_labels,
        external_url: origin,
        notification_reason: match occasion {
            Occasion::Raise => "first notification",
            Occasion::Resolve | Occasion::Digest => "all alerts resolved",
            Occasion::Repeat => "repeat interval elapsed",
        },
        gopherwatch: Extra {
            event: occasion.as_str(),
            one: if is_digest { None } else { facts.next() },
            alerts: is_digest.then(|| facts.collect()),
        },
        alerts: alert_bodies,
    };
    serde_json::to_vec(&body).expect("texts and numbers have a form in JSON")
}

fn alert_body<'a>(alert: &'a Alert, origin: &str) -> AlertBody<'a> {
    let labels = labels(alert);
    let annotations = [("summary", Some(&*alert.summary)), ("runbook_url", alert.runbook_url.as_deref())];
    AlertBody {
        status: if alert.is_firing() { "firing" } else { "resolved" },
        annotations: annotations.into_iter().filter_map(|(name, text)| Some((name.into(), text?))).collect(),
        starts_at: alert.triggered_at.to_string(),
        ends_at: alert.resolved_at.map_or_else(|| NEVER.to_owned(), |at| at.to_string()),
        generator_url: format!("{origin}/alerts/{}", alert.alert_id),
        fingerprint: fingerprint(&labels),
        labels,
    }
}

fn facts(alert: &Alert) -> Facts<'_> {
    Facts {
        alert_id: alert.alert_id.to_string(),
        version: alert.version,
        metric: &alert.metric,
        value: alert.value,
        threshold: alert.threshold,
        last_value: alert.last_value,
        late: alert.late,
        triggered_at: alert.triggered_at.to_string(),
        received_at: alert.received_at.to_string(),
        resolved_at: alert.resolved_at.as_ref().map(Timestamp::to_string),
        resolve_reason: alert.resolve_reason.map(|why| why.as_str()),
    }
}

/// What all of them have.
fn common<'a: 'b, 'b>(mut each: impl Iterator<Item = &'b Labels<'a>>) -> Labels<'a> {
    let mut common = each.next().cloned().unwrap_or_default();
    each.for_each(|labels| common.retain(|name, value| labels.get(name) == Some(value)));
    common
}
