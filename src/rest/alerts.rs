//! `/alerts/active`: what fires now, from memory, newest first. `/alerts/{alert_id}`: one alert and all that is known of
//! it, from memory while it fires, so that no trouble of the store hides it, and from the store after that.

use serde::Serialize;
use uuid::Uuid;
use warp::reply::Response;

use super::{
    Shared,
    parameters::{Pairs, Parameters, in_path},
    problem::Problem,
    views::{Id, Json, RowView, json, json_of},
};
use crate::{
    model::Alert,
    store::{AlertRecord, events_json, evidence_json},
};

/// What an alert takes, roughly.
const BYTES_PER_ALERT: usize = 512;

#[derive(Serialize)]
struct ActiveView<'a> {
    alerts: Vec<MarkedView<'a>>,
}

#[derive(Serialize)]
struct MarkedView<'a> {
    #[serde(flatten)]
    row: RowView<'a>,
    #[serde(flatten)]
    marks: Marks,
}

/// Always false: this version has neither silences nor acknowledgements.
#[derive(Default, Serialize)]
struct Marks {
    silenced: bool,
    acknowledged: bool,
}

#[derive(Serialize)]
struct OneView<'a> {
    #[serde(flatten)]
    row: RowView<'a>,
    episode_id: Option<Id>,
    last_value: Option<f64>,
    version: u32,
    events: Json<'a>,
    evidence: Option<Json<'a>>,
    #[serde(flatten)]
    marks: Marks,
}

/// GET /alerts/active
pub(super) fn active(shared: &Shared, pairs: Pairs) -> Result<Response, Problem> {
    let parameters = Parameters::new(pairs, &["service"])?;
    let service = parameters.text("service");
    let alerts = shared.context.state.active_alerts();
    let wanted = alerts.iter().filter(|alert| service.is_none_or(|service| alert.key.service() == service));
    let marked = wanted.map(|alert| MarkedView { row: RowView::of_alert(alert), marks: Marks::default() });
    let view = ActiveView { alerts: marked.collect() };
    json_of(&view, 64 + view.alerts.len() * BYTES_PER_ALERT)
}

/// GET /alerts/{alert_id}; `segment` as it stood in the path.
pub(super) async fn one(shared: &Shared, segment: &str, pairs: Pairs) -> Result<Response, Problem> {
    let expected = "a UUID such as f5e9228b-f754-5062-b09a-e46b13835b67";
    let alert_id = in_path("alert_id", segment, expected, |text| Uuid::parse_str(text).ok())?;
    Parameters::new(pairs, &[])?;
    if let Some(alert) = shared.context.state.firing_alert(alert_id) {
        return json(&OneView::of_alert(&alert));
    }
    match shared.reads.read(move |store| store.alert(alert_id)).await? {
        Some(record) => json(&OneView::of_record(&record)),
        None => Err(Problem::not_found("no alert with this id is known")),
    }
}

impl<'a> OneView<'a> {
    fn of_alert(alert: &'a Alert) -> Self {
        Self {
            row: RowView::of_alert(alert),
            episode_id: Some(Id(alert.episode_id)),
            last_value: Some(alert.last_value),
            version: alert.version,
            events: Json::made(events_json(&alert.life)),
            evidence: alert.evidence.as_deref().map(evidence_json).map(Json::made),
            marks: Marks::default(),
        }
    }

    fn of_record(record: &'a AlertRecord) -> Self {
        Self {
            row: RowView::of_row(&record.row),
            episode_id: record.episode_id.map(Id),
            last_value: record.last_value,
            version: record.version,
            events: Json::array(record.events.as_deref()).unwrap_or_else(|| Json::made("[]".to_owned())),
            evidence: Json::object(record.evidence.as_deref()),
            marks: Marks::default(),
        }
    }
}
