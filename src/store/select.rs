//! The SELECTs of the history, in either dialect.
//!
//! A page costs its own rows: the index is named, never left to an optimizer's guess, and each index ends in
//! (triggered_at, id), so that a page begins where the last one ended and comes out in order. With several filters the
//! one that usually leaves the fewest rows leads; the others are checked row by row, within the store's time limit.
//!
//! A page after a cursor is read in two steps, the rest of the cursor's own time and then what is older, each one plain
//! range of the index. `(triggered_at, id) < (?, ?)` says the same at once, but SQLite uses only its first half: with
//! two million rows of one time it stepped over all pages before.

use uuid::Uuid;

use super::{AlertState, Cursor, HistoryQuery};
use crate::model::Timestamp;

/// The columns of a [`super::HistoryRow`], in the order in which both stores read them.
const COLUMNS: &str = "id, alert_id, service_name, instance, metric, metric_value, rule_name, severity, threshold, \
                       triggered_at, received_at, stored_at, resolved_at, resolve_reason, late, labels, summary";
/// What a [`super::AlertRecord`] has behind them.
const RECORD_COLUMNS: &str = "episode_id, last_value, version, events, evidence";

/// Where the two databases want different words for the same rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    MySql,
    Sqlite,
}

/// The value of one placeholder.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Arg<'a> {
    Text(&'a str),
    Time(Timestamp),
    Number(u64),
    Id(Uuid),
}

/// One range of the history, newest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The rows of the cursor's time that come after it.
    SameTime(Cursor),
    /// The rows before this time; all without it.
    Before(Option<Timestamp>),
}

/// The statement for the record of one alert, by its only unique key besides the primary.
pub(super) fn record(alert_id: Uuid) -> (String, Arg<'static>) {
    (format!("SELECT {COLUMNS}, {RECORD_COLUMNS} FROM alerts WHERE alert_id = ?"), Arg::Id(alert_id))
}

/// The ranges that a page is read from, in their order.
pub(super) fn steps(query: &HistoryQuery) -> impl Iterator<Item = Step> {
    let (same_time, before) = match (query.after, query.until) {
        // Both bound the page from above; only the lower one counts.
        (Some(after), until) if until.is_none_or(|until| after.triggered_at < until) => {
            (Some(Step::SameTime(after)), Some(after.triggered_at))
        }
        (_, until) => (None, until),
    };
    same_time.into_iter().chain([Step::Before(before)])
}

/// The statement for at most `limit` rows of one step, and its values.
pub(super) fn statement<'a>(
    query: &'a HistoryQuery,
    step: Step,
    limit: usize,
    dialect: Dialect,
) -> (String, Vec<Arg<'a>>) {
    let mut parts = Conditions { dialect, sql: Vec::new(), args: Vec::new() };
    parts.text("service_name", query.service.as_deref());
    parts.text("instance", query.instance.as_deref());
    parts.text("metric", query.metric.as_deref());
    parts.text("rule_name", query.rule.as_deref());
    parts.text("severity", query.severity.map(|severity| severity.as_str()));
    match query.state {
        Some(AlertState::Firing) => parts.add("firing = 1", &[]),
        Some(AlertState::Resolved) => parts.add("firing = 0", &[]),
        None => {}
    }
    // MySQL's zero date is shown as the beginning of 1970, and lies before every time that a column can be compared with.
    let is_zero_date = |time: Timestamp| dialect == Dialect::MySql && time <= Timestamp::default();
    if let Some(since) = query.since.filter(|since| !is_zero_date(*since)) {
        parts.add("triggered_at >= ?", &[Arg::Time(since)]);
    }
    match step {
        Step::SameTime(Cursor { triggered_at, id }) => {
            let same = if is_zero_date(triggered_at) { "<" } else { "=" };
            parts.add(format!("triggered_at {same} ? AND id < ?"), &[Arg::Time(triggered_at), Arg::Number(id)]);
        }
        Step::Before(Some(time)) if is_zero_date(time) => parts.add("1 = 0", &[]),
        Step::Before(Some(time)) => parts.add("triggered_at < ?", &[Arg::Time(time)]),
        Step::Before(None) => {}
    }

    let Conditions { sql, mut args, .. } = parts;
    let condition = if sql.is_empty() { "1 = 1".to_owned() } else { sql.join(" AND ") };
    let index = leading_index(query);
    let hint = match dialect {
        Dialect::MySql => format!("FORCE INDEX ({index})"),
        Dialect::Sqlite => format!("INDEXED BY {index}"),
    };
    args.push(Arg::Number(limit as u64));
    let text =
        format!("SELECT {COLUMNS} FROM alerts {hint} WHERE {condition} ORDER BY triggered_at DESC, id DESC LIMIT ?");
    (text, args)
}

/// The index of the filter that usually leaves the fewest rows. Firing rows are few, resolved ones nearly all, and a
/// severity is one of three.
fn leading_index(query: &HistoryQuery) -> &'static str {
    let candidates = [
        (query.service.is_some(), "idx_service_time"),
        (query.instance.is_some(), "idx_instance_time"),
        (query.state == Some(AlertState::Firing), "idx_firing_time"),
        (query.rule.is_some(), "idx_rule_time"),
        (query.metric.is_some(), "idx_metric_time"),
        (query.severity.is_some(), "idx_severity_time"),
        (query.state == Some(AlertState::Resolved), "idx_firing_time"),
    ];
    candidates.into_iter().find_map(|(given, index)| given.then_some(index)).unwrap_or("idx_time")
}

struct Conditions<'a> {
    dialect: Dialect,
    sql: Vec<String>,
    args: Vec<Arg<'a>>,
}

impl<'a> Conditions<'a> {
    fn add(&mut self, sql: impl Into<String>, args: &[Arg<'a>]) {
        self.sql.push(sql.into());
        self.args.extend_from_slice(args);
    }

    fn text(&mut self, column: &str, value: Option<&'a str>) {
        let Some(value) = value else { return };
        self.add(format!("{column} = ?"), &[Arg::Text(value)]);
        if self.dialect == Dialect::MySql {
            // utf8mb4_bin ignores trailing spaces: 'web' = 'web '. Conditions are exact on both stores.
            self.add(format!("OCTET_LENGTH({column}) = ?"), &[Arg::Number(value.len() as u64)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Severity;

    #[test]
    fn a_cursor_past_until_gives_way_to_it() {
        let at = Timestamp::from_micros;
        let after = Cursor { triggered_at: at(50), id: 7 };
        let steps = |after, until| {
            super::steps(&HistoryQuery { after, until, limit: 10, ..HistoryQuery::default() }).collect::<Vec<_>>()
        };
        let paged = [Step::SameTime(after), Step::Before(Some(at(50)))];
        assert_eq!(steps(Some(after), None), paged);
        assert_eq!(steps(Some(after), Some(at(51))), paged);
        assert_eq!(steps(Some(after), Some(at(50))), [Step::Before(Some(at(50)))]);
        assert_eq!(steps(None, None), [Step::Before(None)]);
    }

    #[test]
    fn the_filter_that_leaves_fewest_rows_leads() {
        let mut query = HistoryQuery { limit: 1, ..HistoryQuery::default() };
        assert_eq!(leading_index(&query), "idx_time");
        query.state = Some(AlertState::Resolved);
        assert_eq!(leading_index(&query), "idx_firing_time");
        query.severity = Some(Severity::Info);
        assert_eq!(leading_index(&query), "idx_severity_time");
        query.rule = Some("cpu-high".to_owned());
        assert_eq!(leading_index(&query), "idx_rule_time");
        query.state = Some(AlertState::Firing);
        assert_eq!(leading_index(&query), "idx_firing_time");
        query.service = Some("web".to_owned());
        assert_eq!(leading_index(&query), "idx_service_time");
    }

    #[test]
    fn every_placeholder_has_its_value() {
        let text = || Some("x".to_owned());
        let query = HistoryQuery {
            service: text(),
            instance: text(),
            metric: text(),
            rule: text(),
            severity: Some(Severity::Info),
            since: Some(Timestamp::default()),
            ..HistoryQuery::default()
        };
        let steps = [Timestamp::default(), Timestamp::from_micros(5)]
            .into_iter()
            .flat_map(|at| [Step::Before(Some(at)), Step::SameTime(Cursor { triggered_at: at, id: 1 })]);
        for dialect in [Dialect::MySql, Dialect::Sqlite] {
            for step in steps.clone().chain([Step::Before(None)]) {
                let (sql, args) = statement(&query, step, 10, dialect);
                assert_eq!(sql.matches('?').count(), args.len(), "{sql}");
            }
        }
    }
}
