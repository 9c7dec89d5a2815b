//! What changes the running server: `/-/reload`, and instances that are to be forgotten.
//!
//! The work is control's; here it is asked for, and its answer waited for, but not longer than a client waits.

use std::{sync::Arc, time::Duration};

use percent_encoding::percent_decode_str;
use serde::Serialize;
use tokio::time::timeout;
use warp::{Reply, http::StatusCode, reply::Response};

use super::{
    Shared,
    parameters::{Pairs, Parameters},
    problem::Problem,
    views::json,
};
use crate::{
    control::{By, Refused, ReloadError},
    log::chain,
    model::InstanceKey,
};

/// How long an answer of control's is waited for: longer than it waits for the lanes, shorter than a request may take.
const ANSWER_WAIT: Duration = Duration::from_secs(7);

#[derive(Serialize)]
struct ReloadedView<'a> {
    rules: usize,
    source: &'a str,
}

/// POST /-/reload
pub(super) async fn reload(shared: &Shared, pairs: Pairs) -> Result<Response, Problem> {
    Parameters::new(pairs, &[])?;
    let answer = shared.context.control.reload(By::Request).map_err(refused)?;
    match timeout(ANSWER_WAIT, answer).await {
        Ok(Ok(Ok(rules))) => json(&ReloadedView { rules: rules.rules.len(), source: &rules.source }),
        Ok(Ok(Err(ReloadError::File(err)))) => {
            Err(Problem::new(StatusCode::BAD_REQUEST, chain(&err)).in_file(err.place()))
        }
        Ok(Ok(Err(doors @ ReloadError::Doors(_)))) => Err(Problem::new(StatusCode::BAD_REQUEST, doors.to_string())),
        Ok(Ok(Err(ReloadError::Refused(why)))) => Err(refused(why)),
        Ok(Ok(Err(late @ ReloadError::Late))) => Err(Problem::unavailable(&late.to_string())),
        Ok(Err(_lost)) => Err(refused(Refused::Stopping)),
        Err(_elapsed) => Err(Problem::unavailable("earlier changes take long; the rules are read again after them")),
    }
}

/// DELETE /services/{service}/instances/{instance}
pub(super) async fn forget(shared: &Shared, service: &str, instance: &str, pairs: Pairs) -> Result<Response, Problem> {
    Parameters::new(pairs, &[])?;
    let unknown = || Problem::not_found("no such instance is known");
    let decoded = |segment| percent_decode_str(segment).decode_utf8().map_err(|_| unknown());
    let key = InstanceKey::new(&decoded(service)?, &decoded(instance)?);
    if !shared.context.state.knows(&key) {
        return Err(unknown());
    }
    let done = shared.context.control.forget(Arc::new(key)).map_err(refused)?;
    match timeout(ANSWER_WAIT, done).await {
        Ok(Ok(())) => Ok(StatusCode::NO_CONTENT.into_response()),
        Ok(Err(_)) | Err(_) => Err(Problem::unavailable("it could not be forgotten in time")),
    }
}

fn refused(why: Refused) -> Problem {
    Problem::unavailable(&why.to_string())
}
