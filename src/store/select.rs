//! The history's SELECT, in either dialect.
//!
//! A page costs its own rows: the index is named, never left to an optimizer's guess, and each index ends in
//! (triggered_at, id), so that a page begins where the last one ended and comes out in order. With several filters the
//! one that usually leaves the fewest rows leads; the others are checked row by row, within the store's time limit.

use super::{AlertState, HistoryQuery};
use crate::model::Timestamp;

/// The columns of a [`super::HistoryRow`], in the order in which both stores read them.
const COLUMNS: &str = "id, alert_id, service_name, instance, metric, metric_value, rule_name, severity, threshold, \
                       triggered_at, received_at, stored_at, resolved_at, resolve_reason, late, labels, summary";

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
}

/// The statement for one page and its values.
pub(super) fn history<'a>(query: &'a HistoryQuery, dialect: Dialect) -> (String, Vec<Arg<'a>>) {
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
    if let Some(since) = query.since {
        parts.add("triggered_at >= ?", &[Arg::Time(since)]);
    }
    parts.upper_bound(query);

    let Conditions { sql, mut args, .. } = parts;
    let condition = if sql.is_empty() { "1 = 1".to_owned() } else { sql.join(" AND ") };
    let index = leading_index(query);
    let hint = match dialect {
        Dialect::MySql => format!("FORCE INDEX ({index})"),
        Dialect::Sqlite => format!("INDEXED BY {index}"),
    };
    args.push(Arg::Number(u64::from(query.limit)));
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

    /// `until` and the cursor both bound the page from above; only the lower one counts.
    fn upper_bound(&mut self, query: &HistoryQuery) {
        match (query.after, query.until) {
            (Some(after), until) if until.is_none_or(|until| after.triggered_at < until) => {
                let (time, id) = (Arg::Time(after.triggered_at), Arg::Number(after.id));
                match self.dialect {
                    // MySQL reads a row comparison as a condition to check, not as a range to begin at.
                    Dialect::MySql => {
                        self.add("(triggered_at < ? OR (triggered_at = ? AND id < ?))", &[time, time, id]);
                    }
                    Dialect::Sqlite => self.add("(triggered_at, id) < (?, ?)", &[time, id]),
                }
            }
            (_, Some(until)) => self.add("triggered_at < ?", &[Arg::Time(until)]),
            (_, None) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::Severity, store::Cursor};

    fn sql(query: &HistoryQuery, dialect: Dialect) -> String {
        let (sql, args) = history(query, dialect);
        assert_eq!(sql.matches('?').count(), args.len(), "{sql}");
        sql
    }

    #[test]
    fn a_cursor_past_until_gives_way_to_it() {
        let at = Timestamp::from_micros;
        let after = Some(Cursor { triggered_at: at(50), id: 7 });
        let query = |until| HistoryQuery { after, until, limit: 10, ..HistoryQuery::default() };
        assert!(sql(&query(None), Dialect::Sqlite).contains("(triggered_at, id) < (?, ?) ORDER"));
        assert!(sql(&query(Some(at(51))), Dialect::Sqlite).contains("(triggered_at, id) < (?, ?) ORDER"));
        assert!(sql(&query(Some(at(50))), Dialect::Sqlite).contains("WHERE triggered_at < ? ORDER"));
        assert!(sql(&query(None), Dialect::MySql).contains("OR (triggered_at = ? AND id < ?)"));
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
        for dialect in [Dialect::MySql, Dialect::Sqlite] {
            sql(&query, dialect);
        }
    }
}
