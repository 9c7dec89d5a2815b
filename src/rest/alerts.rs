//! `/alerts/active`: what fires now, from memory, newest first.

use std::collections::BTreeMap;

use serde::Serialize;
use warp::reply::Response;

use super::{
    Shared,
    parameters::{Pairs, Parameters},
    problem::Problem,
    views::{Id, Time, json_of},
};
use crate::model::Alert;

/// What an alert takes, roughly.
const BYTES_PER_ALERT: usize = 512;

#[derive(Serialize)]
struct ActiveView<'a> {
    alerts: Vec<AlertView<'a>>,
}

/// A row of the history without what only the store knows: its number and when it was stored.
#[derive(Serialize)]
struct AlertView<'a> {
    alert_id: Id,
    service_name: &'a str,
    instance: &'a str,
    metric: &'a str,
    metric_value: f64,
    rule: &'a str,
    severity: &'static str,
    threshold: Option<f64>,
    triggered_at: Time,
    received_at: Time,
    resolved_at: Option<Time>,
    resolve_reason: Option<&'static str>,
    late: bool,
    labels: &'a BTreeMap<String, String>,
    summary: &'a str,
    /// Always false: this version has neither silences nor acknowledgements.
    silenced: bool,
    acknowledged: bool,
}

/// GET /alerts/active
pub(super) fn active(shared: &Shared, pairs: Pairs) -> Result<Response, Problem> {
    let parameters = Parameters::new(pairs, &["service"])?;
    let service = parameters.text("service");
    let alerts = shared.context.state.active_alerts();
    let wanted = alerts.iter().filter(|alert| service.is_none_or(|service| alert.key.service() == service));
    let view = ActiveView { alerts: wanted.map(|alert| alert_view(alert)).collect() };
    json_of(&view, 64 + view.alerts.len() * BYTES_PER_ALERT)
}

fn alert_view(alert: &Alert) -> AlertView<'_> {
    AlertView {
        alert_id: Id(alert.alert_id),
        service_name: alert.key.service(),
        instance: alert.key.instance(),
        metric: &alert.metric,
        metric_value: alert.value,
        rule: &alert.rule,
        severity: alert.severity.as_str(),
        threshold: alert.threshold,
        triggered_at: Time(alert.triggered_at),
        received_at: Time(alert.received_at),
        resolved_at: alert.resolved_at.map(Time),
        resolve_reason: alert.resolve_reason.map(|why| why.as_str()),
        late: alert.late,
        labels: &alert.labels,
        summary: &alert.summary,
        silenced: false,
        acknowledged: false,
    }
}
