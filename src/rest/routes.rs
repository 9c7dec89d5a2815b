//! Which path leads where, and who may go there. A new resource is a line here and a file beside this one.

use std::{convert::Infallible, sync::Arc};

use warp::{Filter, Rejection, Reply, filters::BoxedFilter, http::Method, path, reply::Response};

use super::{
    Shared,
    access::{Granted, open, reads},
    alerts, control, explain, exposition, health, history,
    parameters::Pairs,
    problem::Problem,
    rules, status,
    writes::writes,
};

/// All routes; whatever matches none, or fails, becomes a [`Problem`].
pub(super) fn routes(shared: &Arc<Shared>) -> BoxedFilter<(Response,)> {
    let reading = reads(shared).boxed();
    let everybody = open().boxed();
    let one_service = path!("status" / String).and(reading.clone()).and(pairs()).and(with(shared)).and_then(
        |service: String, granted, pairs, shared: Arc<Shared>| async move {
            answer(granted, status::one(&shared, &service, pairs))
        },
    );
    let history = path!("alerts" / "history").and(reading.clone()).and(pairs()).and(with(shared)).and_then(
        |granted, pairs, shared: Arc<Shared>| async move { answer(granted, history::list(&shared, pairs).await) },
    );
    let one_alert = path!("alerts" / String).and(reading.clone()).and(pairs()).and(with(shared)).and_then(
        |alert_id: String, granted, pairs, shared: Arc<Shared>| async move {
            answer(granted, alerts::one(&shared, &alert_id, pairs).await)
        },
    );
    let metrics =
        path!("metrics").and(reading.clone()).and(warp::header::optional("accept")).and(with(shared)).and_then(
            |granted, accept: Option<String>, shared: Arc<Shared>| async move {
                answer(granted, Ok(exposition::metrics(&shared, accept.as_deref())))
            },
        );
    let reload =
        path!("-" / "reload").and(writes(shared, Method::POST, "POST")).and(pairs()).and(with(shared)).and_then(
            |granted, pairs, shared: Arc<Shared>| async move { answer(granted, control::reload(&shared, pairs).await) },
        );
    let forget = path!("services" / String / "instances" / String)
        .and(writes(shared, Method::DELETE, "DELETE"))
        .and(pairs())
        .and(with(shared))
        .and_then(|service: String, instance: String, granted, pairs, shared: Arc<Shared>| async move {
            answer(granted, control::forget(&shared, &service, &instance, pairs).await)
        });
    resource(path!("status").boxed(), &reading, shared, status::list)
        .or(one_service)
        .unify()
        .or(resource(path!("alerts" / "active").boxed(), &reading, shared, alerts::active))
        .unify()
        .or(history)
        .unify()
        .or(one_alert)
        .unify()
        .or(resource(path!("rules").boxed(), &reading, shared, rules::list))
        .unify()
        .or(resource(path!("explain").boxed(), &reading, shared, explain::explain))
        .unify()
        .or(resource(path!("healthz").boxed(), &everybody, shared, health::alive))
        .unify()
        .or(resource(path!("livez").boxed(), &everybody, shared, health::alive))
        .unify()
        .or(resource(path!("readyz").boxed(), &everybody, shared, health::ready))
        .unify()
        .or(metrics)
        .unify()
        .or(reload)
        .unify()
        .or(forget)
        .unify()
        .recover(problem)
        .unify()
        .boxed()
}

/// A resource that is read by those whom `access` grants it, and made from what is in memory.
fn resource(
    path: BoxedFilter<()>,
    access: &BoxedFilter<(Granted,)>,
    shared: &Arc<Shared>,
    handler: fn(&Shared, Pairs) -> Result<Response, Problem>,
) -> BoxedFilter<(Response,)> {
    let handle = move |granted, pairs, shared: Arc<Shared>| async move { answer(granted, handler(&shared, pairs)) };
    path.and(access.clone()).and(pairs()).and(with(shared)).and_then(handle).boxed()
}

/// What a handler says to one who was let in; no route is without that.
fn answer(granted: Granted, result: Result<Response, Problem>) -> Result<Response, Infallible> {
    Ok(granted.answer(result))
}

fn with(shared: &Arc<Shared>) -> impl Filter<Extract = (Arc<Shared>,), Error = Infallible> + Clone + use<> {
    let shared = shared.clone();
    warp::any().map(move || shared.clone())
}

/// The query's names and values in order, percent-decoded.
fn pairs() -> impl Filter<Extract = (Pairs,), Error = Rejection> + Copy {
    warp::query::<Pairs>()
}

async fn problem(rejection: Rejection) -> Result<Response, Infallible> {
    let problem = match rejection.find::<Problem>() {
        Some(problem) => problem.clone(),
        None => Problem::not_found("there is no such resource"),
    };
    Ok(problem.into_response())
}
