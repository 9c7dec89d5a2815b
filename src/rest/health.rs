//! Probes: alive says that the process turns over; ready says that it takes reports, and how what it depends on does.
//!
//! Degraded is ready: a server whose store is away goes on alerting, and must not be taken out of service for it.
//! Parameters are not looked at, for a probe's `?verbose` is no reason to restart a server.

use std::collections::BTreeMap;

use serde::Serialize;
use warp::{http::StatusCode, reply::Response};

use super::{
    Shared,
    parameters::Pairs,
    problem::Problem,
    views::{Time, json},
};
use crate::health::{Check, Condition, Phase};

#[derive(Serialize)]
struct AliveView {
    status: &'static str,
}

#[derive(Serialize)]
struct ReadyView<'a> {
    status: &'static str,
    checks: BTreeMap<&'static str, CheckView<'a>>,
}

#[derive(Serialize)]
struct CheckView<'a> {
    status: &'static str,
    detail: &'a str,
    since: Time,
}

/// GET /healthz, /livez
pub(super) fn alive(_: &Shared, _: Pairs) -> Result<Response, Problem> {
    json(&AliveView { status: "ok" })
}

/// GET /readyz
pub(super) fn ready(shared: &Shared, _: Pairs) -> Result<Response, Problem> {
    let health = &shared.context.health;
    let (phase, checks) = (health.phase(), health.checks());
    let degraded = checks.values().any(|check| check.condition == Condition::Degraded);
    let status = match phase {
        Phase::Starting | Phase::Draining => "not_ready",
        Phase::Ready if degraded => "degraded",
        Phase::Ready => "ready",
    };
    let checks = checks.iter().map(|(name, check)| (*name, check_view(check))).collect();
    let mut response = json(&ReadyView { status, checks })?;
    if phase != Phase::Ready {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    Ok(response)
}

fn check_view(check: &Check) -> CheckView<'_> {
    let status = match check.condition {
        Condition::Ok => "ok",
        Condition::Degraded => "degraded",
    };
    CheckView { status, detail: &check.detail, since: Time(check.since) }
}
