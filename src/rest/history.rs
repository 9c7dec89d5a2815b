//! `/alerts/history`: rows of the store, page by page, newest first.

use serde::Serialize;
use warp::reply::Response;

use super::{
    Shared, cursor,
    parameters::{Pairs, Parameters},
    problem::Problem,
    views::{RowView, json_of},
};
use crate::store::{AlertState, Cursor, HistoryQuery, HistoryRow};

const DEFAULT_LIMIT: u32 = 100;
const MAX_LIMIT: u32 = 1_000;
/// What a row takes, roughly.
const BYTES_PER_ROW: usize = 512;
const PARAMETERS: [&str; 10] =
    ["service", "instance", "metric", "rule", "severity", "state", "since", "until", "limit", "cursor"];

#[derive(Serialize)]
struct HistoryView<'a> {
    alerts: Vec<RowView<'a>>,
    next_cursor: Option<String>,
}

/// GET /alerts/history
pub(super) async fn list(shared: &Shared, pairs: Pairs) -> Result<Response, Problem> {
    let mut query = query(&Parameters::new(pairs, &PARAMETERS)?)?;
    let limit = query.limit;
    // One row more than asked for tells whether there is a next page.
    query.limit += 1;
    let mut rows = shared.reads.read(move |store| store.history(&query)).await?;
    let more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let end = |row: &HistoryRow| cursor::of_row(Cursor { triggered_at: row.triggered_at, id: row.id });
    let view = HistoryView {
        alerts: rows.iter().map(RowView::of_row).collect(),
        next_cursor: rows.last().filter(|_| more).map(end),
    };
    json_of(&view, 64 + rows.len() * BYTES_PER_ROW)
}

fn query(parameters: &Parameters) -> Result<HistoryQuery, Problem> {
    let text = |name| parameters.text(name).map(str::to_owned);
    let limit = parameters.parsed("limit", "a whole number from 1 to 1000", |text| {
        text.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit))
    })?;
    Ok(HistoryQuery {
        service: text("service"),
        instance: text("instance"),
        metric: text("metric"),
        rule: text("rule"),
        severity: parameters.parsed("severity", "info, warning or critical", |text| text.parse().ok())?,
        state: parameters.parsed("state", "firing or resolved", |text| match text {
            "firing" => Some(AlertState::Firing),
            "resolved" => Some(AlertState::Resolved),
            _ => None,
        })?,
        since: parameters.time("since")?,
        until: parameters.time("until")?,
        after: parameters.parsed("cursor", "the next_cursor of an earlier answer", cursor::row)?,
        limit: limit.unwrap_or(DEFAULT_LIMIT),
    })
}
