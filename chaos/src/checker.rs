//! The verdict: expected episodes beside the rows that there are.
//!
//! Each episode must have exactly one row, with what it says and in its final state, and no other row may exist.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fmt,
};

use crate::{
    expected::{Episode, Key, episodes},
    ledger::Contents,
    rows::Row,
};

/// Of each kind so many are shown.
const MAX_SHOWN: usize = 5;

/// What is wrong; nothing, if all of it is empty.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Reports sent.
    pub n_reports: usize,
    /// Episodes that there must be.
    pub n_episodes: usize,
    /// The most memory that the server took, in MiB.
    pub peak_mib: u64,
    /// Episodes without a row.
    pub missing: Vec<String>,
    /// Rows beyond the first of their episode, or with the id of another one.
    pub doubled: Vec<String>,
    /// Rows whose end is another one than the ledger's.
    pub wrong_state: Vec<String>,
    /// Rows that say something else of their beginning.
    pub wrong_value: Vec<String>,
    /// Rows of no episode.
    pub unexpected: Vec<String>,
    /// Promises broken beside the rows: receipts, balances, answers.
    pub broken: Vec<String>,
}

impl Verdict {
    /// Whether all is well.
    pub fn is_clean(&self) -> bool {
        self.lists().iter().all(|(_, list)| list.is_empty())
    }

    /// Notes what else is wrong.
    pub fn and_broken(&mut self, what: impl Into<String>) {
        self.broken.push(what.into());
    }

    fn lists(&self) -> [(&'static str, &[String]); 6] {
        [
            ("missing", &self.missing),
            ("doubled", &self.doubled),
            ("in a wrong state", &self.wrong_state),
            ("with a wrong value", &self.wrong_value),
            ("unexpected", &self.unexpected),
            ("broken promises", &self.broken),
        ]
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} reports, {} episodes, {} MiB", self.n_reports, self.n_episodes, self.peak_mib)?;
        for (what, list) in self.lists().iter().filter(|(_, list)| !list.is_empty()) {
            write!(f, "\n  {} {what}, such as", list.len())?;
            list.iter().take(MAX_SHOWN).try_for_each(|one| write!(f, "\n    {one}"))?;
        }
        Ok(())
    }
}

/// Compares the rows with what the ledgers demand.
pub fn check(ledgers: &[Contents], rows: &[Row]) -> Verdict {
    let expected = episodes(ledgers);
    let mut verdict = Verdict {
        n_reports: ledgers.iter().map(|ledger| ledger.sent.len()).sum(),
        n_episodes: expected.len(),
        ..Verdict::default()
    };
    receipts(ledgers, &mut verdict);
    let mut found: BTreeMap<&Key, u32> = BTreeMap::new();
    let mut ids = HashSet::new();
    for row in rows {
        if !ids.insert(&row.alert_id) {
            verdict.doubled.push(format!("the id of another row: {row:?}"));
        }
        let Some(episode) = expected.get(&row.key) else {
            verdict.unexpected.push(format!("{row:?}"));
            continue;
        };
        let n_found = found.entry(&row.key).or_default();
        *n_found += 1;
        if *n_found > 1 {
            verdict.doubled.push(format!("{row:?}"));
        } else {
            compare(row, episode, &mut verdict);
        }
    }
    let missing = expected.iter().filter(|(key, _)| !found.contains_key(key));
    verdict.missing = missing.map(|(key, episode)| format!("{key:?} {episode:?}")).collect();
    verdict
}

/// Compares what `/alerts/active` shows with what still fires.
pub fn check_active(ledgers: &[Contents], active: &BTreeSet<Key>, verdict: &mut Verdict) {
    let expected: BTreeSet<Key> = episodes(ledgers)
        .into_iter()
        .filter(|(_, episode)| episode.resolved_at.is_none())
        .map(|(key, _)| key)
        .collect();
    for key in expected.difference(active).take(MAX_SHOWN) {
        verdict.and_broken(format!("/alerts/active lacks {key:?}"));
    }
    for key in active.difference(&expected).take(MAX_SHOWN) {
        verdict.and_broken(format!("/alerts/active shows {key:?}, which does not fire"));
    }
}

/// At the end of a run every report has a receipt, none was refused, and no answer was one that cannot be.
fn receipts(ledgers: &[Contents], verdict: &mut Verdict) {
    for ledger in ledgers {
        let (n_sent, n_receipted) = (ledger.sent.len(), ledger.n_receipted());
        if n_sent != n_receipted {
            verdict.and_broken(format!("{}: {n_receipted} of {n_sent} reports have receipts", ledger.stream));
        }
        let rejected: u64 = ledger.receipts.iter().map(|receipt| receipt.rejected).sum();
        if rejected > 0 {
            verdict.and_broken(format!("{}: {rejected} good reports were refused", ledger.stream));
        }
        // What was accepted in a stream without a receipt counts as a duplicate in the next one.
        let accepted: u64 = ledger.receipts.iter().map(|receipt| receipt.accepted).sum();
        if accepted > n_sent as u64 {
            verdict.and_broken(format!("{}: {accepted} of {n_sent} reports accepted: some twice", ledger.stream));
        }
        verdict.broken.extend(ledger.faults.iter().map(|fault| format!("{}: {fault}", ledger.stream)));
    }
}

fn compare(row: &Row, episode: &Episode, verdict: &mut Verdict) {
    let reason = episode.resolved_at.map(|_| "cleared");
    let version = if episode.resolved_at.is_some() { 2 } else { 1 };
    if row.resolved_at != episode.resolved_at || row.reason.as_deref() != reason || row.version != version {
        verdict.wrong_state.push(format!("{row:?}: expected {episode:?}"));
    }
    // To the bit: nothing on the way from the wire to the column may round.
    let same = row.metric == episode.metric
        && row.value.to_bits() == episode.value.to_bits()
        && row.threshold.map(f64::to_bits) == Some(episode.threshold.to_bits())
        && row.severity == episode.severity;
    if !same {
        verdict.wrong_value.push(format!("{row:?}: expected {episode:?}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Ledger, Receipt, Sent, read_all};

    /// A ledger with two episodes of `cpu-high`, the second of which still fires, and the rows that it demands.
    fn good() -> (Vec<Contents>, Vec<Row>) {
        let folder = tempfile::tempdir().unwrap();
        let (mut ledger, _) = Ledger::open(folder.path(), "web").unwrap();
        ledger.epoch(7).unwrap();
        let readings = [95.5, 10.0, 91.25];
        let sent: Vec<_> = (1..).zip(readings).map(|(n, cpu)| sent(n, cpu)).collect();
        ledger.sent(&sent).unwrap();
        ledger.receipt(Receipt { upto: 3, accepted: 3, ..Receipt::default() }).unwrap();
        (read_all(folder.path()).unwrap(), vec![row(1, 95.5, Some(2)), row(3, 91.25, None)])
    }

    fn sent(n: u64, cpu: f64) -> Sent {
        Sent { instance: 0, epoch: 7, sequence: n, time: n * 1_000, values: [Some(cpu), None, None] }
    }

    fn row(triggered_at: u64, value: f64, resolved_at: Option<u64>) -> Row {
        Row {
            key: Key { service: "web-0".into(), instance: "i0".into(), rule: "cpu-high".into(), triggered_at },
            alert_id: format!("{triggered_at}"),
            metric: "cpu_percent".into(),
            value,
            threshold: Some(90.0),
            severity: "critical".into(),
            resolved_at,
            reason: resolved_at.map(|_| "cleared".into()),
            version: if resolved_at.is_some() { 2 } else { 1 },
        }
    }

    /// How many are missing, doubled, in a wrong state, of a wrong value, unexpected, broken, after `change`.
    fn after(change: impl FnOnce(&mut Vec<Contents>, &mut Vec<Row>)) -> [usize; 6] {
        let (mut ledgers, mut rows) = good();
        change(&mut ledgers, &mut rows);
        let verdict = check(&ledgers, &rows);
        let found = verdict.lists().map(|(_, list)| list.len());
        assert_eq!(verdict.is_clean(), found == [0; 6]);
        found
    }

    #[test]
    fn what_the_ledger_demands_is_fine() {
        assert_eq!(after(|_, _| {}), [0; 6]);
    }

    #[test]
    fn a_missing_row_is_missed() {
        assert_eq!(after(|_, rows| drop(rows.remove(0))), [1, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn a_doubled_row_is_seen_whether_it_has_an_id_of_its_own_or_not() {
        assert_eq!(after(|_, rows| rows.push(Row { alert_id: "x".into(), ..rows[0].clone() })), [0, 1, 0, 0, 0, 0]);
        assert_eq!(after(|_, rows| rows.push(rows[0].clone())), [0, 2, 0, 0, 0, 0]);
        let id = |rows: &mut Vec<Row>| rows[1].alert_id = rows[0].alert_id.clone();
        assert_eq!(after(|_, rows| id(rows)), [0, 1, 0, 0, 0, 0]);
    }

    #[test]
    fn a_wrong_final_state_is_seen() {
        assert_eq!(after(|_, rows| rows[0] = row(1, 95.5, None)), [0, 0, 1, 0, 0, 0], "a lost resolve");
        assert_eq!(after(|_, rows| rows[1].resolved_at = Some(4)), [0, 0, 1, 0, 0, 0], "an invented one");
        assert_eq!(after(|_, rows| rows[0].resolved_at = Some(9)), [0, 0, 1, 0, 0, 0], "at another time");
        assert_eq!(after(|_, rows| rows[0].reason = Some("left".into())), [0, 0, 1, 0, 0, 0]);
        assert_eq!(after(|_, rows| rows[0].version = 3), [0, 0, 1, 0, 0, 0]);
    }

    #[test]
    fn a_wrong_value_is_seen() {
        assert_eq!(after(|_, rows| rows[0].value = 95.500_000_000_000_01), [0, 0, 0, 1, 0, 0]);
        assert_eq!(after(|_, rows| rows[0].metric = "memory_percent".into()), [0, 0, 0, 1, 0, 0]);
        assert_eq!(after(|_, rows| rows[0].severity = "info".into()), [0, 0, 0, 1, 0, 0]);
        assert_eq!(after(|_, rows| rows[0].threshold = None), [0, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn a_row_of_no_episode_is_seen() {
        assert_eq!(after(|_, rows| rows.push(row(2, 10.0, None))), [0, 0, 0, 0, 1, 0]);
        assert_eq!(after(|_, rows| rows[0].key.triggered_at = 5), [1, 0, 0, 0, 1, 0], "at another time");
    }

    #[test]
    fn receipts_that_do_not_add_up_are_seen() {
        assert_eq!(after(|ledgers, _| ledgers[0].receipts[0].upto = 2), [0, 0, 0, 0, 0, 1]);
        assert_eq!(after(|ledgers, _| ledgers[0].receipts[0].rejected = 1), [0, 0, 0, 0, 0, 1]);
        assert_eq!(after(|ledgers, _| ledgers[0].receipts[0].accepted = 4), [0, 0, 0, 0, 0, 1], "accepted twice");
        assert_eq!(after(|ledgers, _| ledgers[0].faults.push("odd".into())), [0, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn what_fires_is_what_is_active() {
        let (ledgers, rows) = good();
        let broken = |active: BTreeSet<Key>| {
            let mut verdict = Verdict::default();
            check_active(&ledgers, &active, &mut verdict);
            verdict.broken.len()
        };
        assert_eq!(broken(BTreeSet::from([rows[1].key.clone()])), 0);
        assert_eq!(broken(BTreeSet::new()), 1);
        assert_eq!(broken(rows.iter().map(|row| row.key.clone()).collect()), 1);
    }
}
