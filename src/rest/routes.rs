//! Which path leads where. A new resource is a line here and a file beside this one.

use std::{convert::Infallible, future::Future, sync::Arc};

use warp::{Filter, Rejection, Reply, filters::BoxedFilter, http::Method, path, reject, reply::Response};

use super::{
    Shared, alerts, control, explain, exposition, health, history, parameters::Pairs, problem::Problem, rules, status,
    writes::writes,
};

/// All routes; whatever matches none, or fails, becomes a [`Problem`].
pub(super) fn routes(shared: &Arc<Shared>) -> BoxedFilter<(Response,)> {
    let one_service = path!("status" / String).and(reads()).and(pairs()).and(with(shared)).and_then(
        |service: String, pairs, shared: Arc<Shared>| async move { answer(status::one(&shared, &service, pairs)) },
    );
    let history = path!("alerts" / "history")
        .and(reads())
        .and(pairs())
        .and(with(shared))
        .and_then(|pairs, shared: Arc<Shared>| async move { answer(history::list(&shared, pairs).await) });
    let one_alert =
        path!("alerts" / String).and(reads()).and(pairs()).and(with(shared)).and_then(
            |alert_id: String, pairs, shared: Arc<Shared>| async move {
                answer(alerts::one(&shared, &alert_id, pairs).await)
            },
        );
    let metrics = path!("metrics").and(reads()).and(warp::header::optional("accept")).and(with(shared)).and_then(
        |accept: Option<String>, shared: Arc<Shared>| async move {
            answer(Ok(exposition::metrics(&shared, accept.as_deref())))
        },
    );
    let reload = path!("-" / "reload")
        .and(writes(Method::POST, "POST"))
        .and(pairs())
        .and(with(shared))
        .and_then(|pairs, shared: Arc<Shared>| async move { answer(control::reload(&shared, pairs).await) });
    let forget = path!("services" / String / "instances" / String)
        .and(writes(Method::DELETE, "DELETE"))
        .and(pairs())
        .and(with(shared))
        .and_then(|service: String, instance: String, pairs, shared: Arc<Shared>| async move {
            answer(control::forget(&shared, &service, &instance, pairs).await)
        });
    resource(path!("status").boxed(), shared, status::list)
        .or(one_service)
        .unify()
        .or(resource(path!("alerts" / "active").boxed(), shared, alerts::active))
        .unify()
        .or(history)
        .unify()
        .or(one_alert)
        .unify()
        .or(resource(path!("rules").boxed(), shared, rules::list))
        .unify()
        .or(resource(path!("explain").boxed(), shared, explain::explain))
        .unify()
        .or(resource(path!("healthz").boxed(), shared, health::alive))
        .unify()
        .or(resource(path!("livez").boxed(), shared, health::alive))
        .unify()
        .or(resource(path!("readyz").boxed(), shared, health::ready))
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

/// A resource that is read, and made from what is in memory.
fn resource(
    path: BoxedFilter<()>,
    shared: &Arc<Shared>,
    handler: fn(&Shared, Pairs) -> Result<Response, Problem>,
) -> BoxedFilter<(Response,)> {
    let handle = move |pairs, shared: Arc<Shared>| async move { answer(handler(&shared, pairs)) };
    path.and(reads()).and(pairs()).and(with(shared)).and_then(handle).boxed()
}

/// A problem is an answer too, and no rejection: after one of `/alerts/active` the route of `/alerts/{alert_id}`, which
/// its path fits as well, would be tried.
fn answer(result: Result<Response, Problem>) -> Result<Response, Infallible> {
    Ok(result.unwrap_or_else(Reply::into_response))
}

fn with(shared: &Arc<Shared>) -> impl Filter<Extract = (Arc<Shared>,), Error = Infallible> + Clone + use<> {
    let shared = shared.clone();
    warp::any().map(move || shared.clone())
}

/// The query's names and values in order, percent-decoded.
fn pairs() -> impl Filter<Extract = (Pairs,), Error = Rejection> + Copy {
    warp::query::<Pairs>()
}

/// Stands behind the path, so that a wrong method on a known path is told from an unknown path.
fn reads() -> impl Filter<Extract = (), Error = Rejection> + Copy {
    warp::method().and_then(is_read).untuple_one()
}

fn is_read(method: Method) -> impl Future<Output = Result<(), Rejection>> {
    let is_read = method == Method::GET || method == Method::HEAD;
    std::future::ready(if is_read { Ok(()) } else { Err(reject::custom(Problem::method_not_allowed("GET, HEAD"))) })
}

async fn problem(rejection: Rejection) -> Result<Response, Infallible> {
    let problem = match rejection.find::<Problem>() {
        Some(problem) => problem.clone(),
        None => Problem::not_found("there is no such resource"),
    };
    Ok(problem.into_response())
}
