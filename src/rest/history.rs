//! `/alerts/history`: rows of the store, within a deadline.
//!
//! The only place of REST that blocks, and so the only `spawn_blocking`. A read that outlives its deadline goes on with
//! its permit, so that a store that hangs costs as many threads as there are permits, and no more.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde::Serialize;
use slog::{Logger, error, warn};
use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout};
use warp::reply::Response;

use super::{
    Options, Shared, cursor,
    parameters::{Pairs, Parameters},
    problem::Problem,
    views::{Id, Time, json_of, labels},
};
use crate::store::{AlertState, AlertStore, Cursor, HistoryQuery, HistoryRow, StoreError};

const DEFAULT_LIMIT: u32 = 100;
const MAX_LIMIT: u32 = 1_000;
/// What a row takes, roughly.
const BYTES_PER_ROW: usize = 512;
const PARAMETERS: [&str; 10] =
    ["service", "instance", "metric", "rule", "severity", "state", "since", "until", "limit", "cursor"];

/// Reads of the store.
pub(super) struct History {
    store: Arc<dyn AlertStore>,
    turns: Arc<Semaphore>,
    deadline: Duration,
    log: Logger,
}

#[derive(Serialize)]
struct HistoryView<'a> {
    alerts: Vec<RowView<'a>>,
    next_cursor: Option<String>,
}

#[derive(Serialize)]
struct RowView<'a> {
    id: u64,
    alert_id: Option<Id>,
    service_name: &'a str,
    instance: Option<&'a str>,
    metric: &'a str,
    metric_value: f64,
    rule: Option<&'a str>,
    severity: Option<&'a str>,
    threshold: Option<f64>,
    triggered_at: Time,
    received_at: Option<Time>,
    stored_at: Option<Time>,
    resolved_at: Option<Time>,
    resolve_reason: Option<&'a str>,
    late: bool,
    labels: BTreeMap<String, serde_json::Value>,
    summary: Option<&'a str>,
}

/// GET /alerts/history
pub(super) async fn list(shared: &Shared, pairs: Pairs) -> Result<Response, Problem> {
    let query = query(&Parameters::new(pairs, &PARAMETERS)?)?;
    let limit = query.limit;
    // One row more than asked for tells whether there is a next page.
    let mut rows = shared.history.read(HistoryQuery { limit: limit + 1, ..query }).await?;
    let more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let end = |row: &HistoryRow| cursor::of_row(Cursor { triggered_at: row.triggered_at, id: row.id });
    let view =
        HistoryView { alerts: rows.iter().map(row_view).collect(), next_cursor: rows.last().filter(|_| more).map(end) };
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

fn row_view(row: &HistoryRow) -> RowView<'_> {
    RowView {
        id: row.id,
        alert_id: row.alert_id.map(Id),
        service_name: &row.service_name,
        instance: row.instance.as_deref(),
        metric: &row.metric,
        metric_value: row.metric_value,
        rule: row.rule.as_deref(),
        severity: row.severity.as_deref(),
        threshold: row.threshold,
        triggered_at: Time(row.triggered_at),
        received_at: row.received_at.map(Time),
        stored_at: row.stored_at.map(Time),
        resolved_at: row.resolved_at.map(Time),
        resolve_reason: row.resolve_reason.as_deref(),
        late: row.late,
        labels: labels(row.labels.as_deref()),
        summary: row.summary.as_deref(),
    }
}

impl History {
    /// Reads `store` within the limits of `options`.
    pub(super) fn new(store: Arc<dyn AlertStore>, options: &Options, log: Logger) -> Self {
        let turns = Arc::new(Semaphore::new(options.max_store_reads));
        Self { store, turns, deadline: options.store_deadline, log }
    }

    async fn read(&self, query: HistoryQuery) -> Result<Vec<HistoryRow>, Problem> {
        let read = async {
            let turn = self.turns.clone().acquire_owned().await.expect("nobody closes the semaphore");
            let store = self.store.clone();
            spawn_blocking(move || {
                let rows = store.history(&query);
                drop(turn);
                rows
            })
            .await
        };
        match timeout(self.deadline, read).await {
            Ok(Ok(Ok(rows))) => Ok(rows),
            Ok(Ok(Err(err))) => Err(self.failed(&err)),
            Ok(Err(_panic)) => {
                error!(self.log, "reading the alert history panicked");
                Err(Problem::internal())
            }
            Err(_elapsed) => {
                let seconds = self.deadline.as_secs_f64();
                warn!(self.log, "the store did not answer in time"; "deadline_seconds" => seconds);
                Err(Problem::unavailable("the alert history does not answer at the moment"))
            }
        }
    }

    /// The client hears whether to try again; the log hears why.
    fn failed(&self, err: &StoreError) -> Problem {
        let chain = crate::log::chain(err);
        if err.is_transient() {
            warn!(self.log, "the alert history could not be read"; "error" => chain);
            Problem::unavailable("the alert history cannot be read at the moment")
        } else {
            error!(self.log, "the alert history could not be read"; "error" => chain);
            Problem::internal()
        }
    }
}
