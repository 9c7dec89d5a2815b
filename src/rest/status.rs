//! `/status`: how every service is, from memory alone; it answers whatever the store does.

use globset::Glob;
use percent_encoding::percent_decode_str;
use serde::{Serialize, Serializer, ser::SerializeMap};
use warp::reply::Response;

use super::{
    Shared, cursor,
    parameters::{Pairs, Parameters},
    problem::Problem,
    views::{BalanceView, Id, Time, json, json_of},
};
use crate::{
    model::{Alert, Name, Timestamp},
    state::{InstanceView, Status},
};

/// What an instance with four metrics takes, roughly; growing a large answer by doubling would copy it again and again.
const BYTES_PER_INSTANCE: usize = 384;

#[derive(Serialize)]
struct StatusView<'a> {
    generated_at: Time,
    balance: BalanceView,
    totals: Totals,
    services: Vec<ServiceView<'a>>,
    /// Only on pages.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<Option<String>>,
}

/// Over everything known, whatever the filter: `ok` to `left` count services by their status.
#[derive(Default, Serialize)]
struct Totals {
    services: usize,
    instances: usize,
    ok: usize,
    warning: usize,
    critical: usize,
    stale: usize,
    left: usize,
    firing: usize,
}

#[derive(Clone, Copy, Serialize)]
struct ServiceView<'a> {
    service: &'a str,
    #[serde(serialize_with = "status_name")]
    status: Status,
    last_seen: Time,
    #[serde(serialize_with = "instances")]
    instances: &'a [InstanceView],
}

#[derive(Serialize)]
struct InstanceJson<'a> {
    instance: &'a str,
    #[serde(serialize_with = "status_name")]
    status: Status,
    stale: bool,
    last_seen: Time,
    clock_skew_seconds: Option<f64>,
    #[serde(serialize_with = "readings")]
    metrics: &'a [(Name, f64)],
    firing: Vec<FiringView<'a>>,
}

#[derive(Serialize)]
struct FiringView<'a> {
    alert_id: Id,
    rule: &'a str,
    metric: &'a str,
    value: f64,
    threshold: Option<f64>,
    severity: &'static str,
    since: Time,
}

/// GET /status
pub(super) fn list(shared: &Shared, pairs: Pairs) -> Result<Response, Problem> {
    let parameters = Parameters::new(pairs, &["service", "status", "limit", "cursor"])?;
    let glob = parameters.parsed("service", "a glob such as `payments-*`", |text| {
        Glob::new(text).ok().map(|glob| glob.compile_matcher())
    })?;
    let names = Status::ALL.map(Status::as_str).join(", ");
    let status = parameters.parsed("status", &format!("one of {names}"), |text| {
        Status::ALL.into_iter().find(|status| status.as_str() == text)
    })?;
    let limit = parameters
        .parsed("limit", "a whole number from 1 on", |text| text.parse().ok().filter(|limit: &usize| *limit > 0))?;
    let after = parameters.parsed("cursor", "the next_cursor of an earlier answer", cursor::service)?;

    let instances = shared.context.state.view(|_| true);
    let all = services(&instances);
    let totals = totals(&all);
    let wanted = |view: &ServiceView<'_>| {
        glob.as_ref().is_none_or(|glob| glob.is_match(view.service))
            && status.is_none_or(|status| view.status == status)
            && after.as_ref().is_none_or(|after| view.service > after.as_str())
    };
    let mut services: Vec<_> = all.into_iter().filter(wanted).collect();
    let next_cursor = limit.map(|limit| {
        let more = services.len() > limit;
        services.truncate(limit);
        services.last().filter(|_| more).map(|last| cursor::of_service(last.service))
    });
    let n_instances: usize = services.iter().map(|service| service.instances.len()).sum();
    let view = StatusView {
        generated_at: Time(Timestamp::now()),
        balance: shared.context.stats.balance().into(),
        totals,
        services,
        next_cursor,
    };
    json_of(&view, 1024 + n_instances * BYTES_PER_INSTANCE)
}

/// GET /status/{service}; `segment` as it stood in the path.
pub(super) fn one(shared: &Shared, segment: &str, pairs: Pairs) -> Result<Response, Problem> {
    Parameters::new(pairs, &[])?;
    let unknown = || Problem::not_found("no such service is known");
    let name = percent_decode_str(segment).decode_utf8().map_err(|_| unknown())?;
    let instances = shared.context.state.view(|key| key.service() == name);
    let service = services(&instances).pop().ok_or_else(unknown)?;
    json(&service)
}

/// Groups instances, which stand in order, by service.
fn services(instances: &[InstanceView]) -> Vec<ServiceView<'_>> {
    let groups = instances.chunk_by(|a, b| a.key.service() == b.key.service());
    groups
        .map(|instances| ServiceView {
            service: instances[0].key.service(),
            // `left` is the last in the order, so that it only shows when all have left.
            status: instances.iter().map(|instance| instance.status).min().unwrap_or(Status::Left),
            last_seen: Time(instances.iter().map(|instance| instance.last_seen).max().unwrap_or_default()),
            instances,
        })
        .collect()
}

fn totals(services: &[ServiceView<'_>]) -> Totals {
    let mut totals = Totals { services: services.len(), ..Totals::default() };
    for service in services {
        *match service.status {
            Status::Critical => &mut totals.critical,
            Status::Stale => &mut totals.stale,
            Status::Warning => &mut totals.warning,
            Status::Ok => &mut totals.ok,
            Status::Left => &mut totals.left,
        } += 1;
        totals.instances += service.instances.len();
        totals.firing += service.instances.iter().map(|instance| instance.firing.len()).sum::<usize>();
    }
    totals
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes every field by reference")]
fn status_name<S: Serializer>(status: &Status, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(status.as_str())
}

fn instances<S: Serializer>(instances: &&[InstanceView], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(instances.iter().map(|instance| InstanceJson {
        instance: instance.key.instance(),
        status: instance.status,
        stale: instance.stale,
        last_seen: Time(instance.last_seen),
        clock_skew_seconds: instance.clock_skew_seconds,
        metrics: &instance.metrics,
        firing: instance.firing.iter().map(|alert| firing(alert)).collect(),
    }))
}

fn readings<S: Serializer>(metrics: &&[(Name, f64)], serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(metrics.len()))?;
    for (name, value) in *metrics {
        map.serialize_entry(&**name, value)?;
    }
    map.end()
}

fn firing(alert: &Alert) -> FiringView<'_> {
    FiringView {
        alert_id: Id(alert.alert_id),
        rule: &alert.rule,
        metric: &alert.metric,
        value: alert.value,
        threshold: alert.threshold,
        severity: alert.severity.as_str(),
        since: Time(alert.triggered_at),
    }
}
