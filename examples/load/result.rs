//! What came of a run: receipts checked and added up, and the figures that people compare.

use std::{collections::BTreeMap, time::Duration};

use gopherwatch_proto::v1::Summary;
use serde_json::json;
use tonic::Status;

use crate::{
    call::Receipted,
    process::{Usage, usage},
};

/// What the receipted reports of a call were.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    pub(crate) n_violating: u64,
    /// Violations of a service that did not violate the round before.
    pub(crate) n_episodes: u64,
    /// The number of the last report.
    pub(crate) last_sequence: u64,
}

/// What came of some calls.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    sum: Summary,
    sent: u64,
    violating: u64,
    episodes: u64,
    receipts: Vec<Duration>,
    refusals: BTreeMap<String, u64>,
    wrong: Vec<String>,
    pub(crate) unsent: u64,
}

impl Tally {
    /// Checks a receipt and adds it.
    pub(crate) fn take(&mut self, Receipted { summary, sent: positions, took }: &Receipted, sent: Sent) {
        let n_sent = positions.end - positions.start;
        if summary.received != summary.accepted + summary.rejected + summary.duplicates {
            self.wrong.push(format!("it does not balance: {summary:?}"));
        }
        if summary.received > n_sent {
            self.wrong.push(format!("it is for more than the {n_sent} reports sent: {summary:?}"));
        }
        if summary.rejected == 0 && summary.last_sequence != sent.last_sequence {
            self.wrong.push(format!("its last sequence is not {}: {summary:?}", sent.last_sequence));
        }
        self.add(summary);
        self.sent += n_sent;
        self.violating += sent.n_violating;
        self.episodes += sent.n_episodes;
        self.receipts.push(*took);
    }

    /// A call without a receipt.
    pub(crate) fn refused(&mut self, status: &Status) {
        *self.refusals.entry(format!("{:?}", status.code())).or_default() += 1;
    }

    pub(crate) fn merge(&mut self, other: Self) {
        self.add(&other.sum);
        self.sent += other.sent;
        self.violating += other.violating;
        self.episodes += other.episodes;
        self.receipts.extend(other.receipts);
        self.wrong.extend(other.wrong);
        self.unsent += other.unsent;
        other.refusals.into_iter().for_each(|(code, n)| *self.refusals.entry(code).or_default() += n);
    }

    fn add(&mut self, summary: &Summary) {
        self.sum.received += summary.received;
        self.sum.accepted += summary.accepted;
        self.sum.rejected += summary.rejected;
        self.sum.duplicates += summary.duplicates;
        self.sum.alerts_raised += summary.alerts_raised;
    }
}

/// What the processes had used before the run.
#[derive(Clone, Debug)]
pub(crate) struct Before {
    server_pid: Option<String>,
    server: Option<Usage>,
    own: Option<Usage>,
}

impl Before {
    pub(crate) fn now(server_pid: Option<u32>) -> Self {
        let server_pid = server_pid.map(|pid| pid.to_string());
        Self { server: server_pid.as_deref().and_then(usage), own: usage("self"), server_pid }
    }
}

/// A finished run.
#[derive(Debug)]
pub(crate) struct Total {
    tally: Tally,
    took: Duration,
    before: Before,
    server: Option<Usage>,
    own: Option<Usage>,
    /// Rows that the alert history has, if that was looked at.
    rows: Option<u64>,
}

impl Total {
    pub(crate) fn new(mut tally: Tally, took: Duration, before: Before) -> Self {
        tally.receipts.sort_unstable();
        let server = before.server_pid.as_deref().and_then(usage);
        Self { tally, took, server, own: usage("self"), before, rows: None }
    }

    /// Looks how many rows the history has, given how many episodes it should have; the server's work on them counts.
    pub(crate) fn compare_rows(&mut self, look: impl FnOnce(u64) -> u64) {
        self.rows = Some(look(self.tally.episodes));
        self.server = self.before.server_pid.as_deref().and_then(usage);
    }

    /// Whether every receipt was right, every report has one, and every episode its row.
    pub(crate) fn is_right(&self) -> bool {
        let rows_are_right = self.rows.is_none_or(|rows| rows == self.tally.episodes);
        self.tally.wrong.is_empty() && self.tally.unsent == 0 && rows_are_right
    }

    pub(crate) fn print(&self) {
        let Self { tally: Tally { sum, .. }, .. } = self;
        let seconds = self.took.as_secs_f64();
        let per_second = sum.received as f64 / seconds;
        let millions = sum.received as f64 / 1e6;
        let millis = |share: f64| {
            let last = self.tally.receipts.len().saturating_sub(1);
            let at = (last as f64 * share).round() as usize;
            self.tally.receipts.get(at).map_or(0.0, |took| took.as_secs_f64() * 1e3)
        };
        let cpu = |before: Option<Usage>, after: Option<Usage>| Some(after?.cpu_seconds - before?.cpu_seconds);
        let server_cpu = cpu(self.before.server, self.server);
        let own_cpu = cpu(self.before.own, self.own);
        row("reports/s", format!("{per_second:.0}"));
        row("seconds", format!("{seconds:.3}"));
        row("receipts", format!("{}", self.tally.receipts.len()));
        row("receipt time, ms: p50 p99 max", format!("{:.2} {:.2} {:.2}", millis(0.5), millis(0.99), millis(1.0)));
        row("sent, with a receipt", format!("{}", self.tally.sent));
        row("  received", format!("{}", sum.received));
        row("  accepted", format!("{}", sum.accepted));
        row("  rejected", format!("{}", sum.rejected));
        row("  duplicates", format!("{}", sum.duplicates));
        row("  alerts raised", format!("{}", sum.alerts_raised));
        row("violating reports of these", format!("{}", self.tally.violating));
        row("  episodes of these", format!("{}", self.tally.episodes));
        if let Some(rows) = self.rows {
            row(
                if rows == self.tally.episodes { "  rows of these" } else { "WRONG NUMBER OF ROWS" },
                format!("{rows}"),
            );
        }
        row("generator's CPU-s per 1M", number(own_cpu.map(|cpu| cpu / millions)));
        row("server's CPU-s per 1M", number(server_cpu.map(|cpu| cpu / millions)));
        row(
            "server's RSS, MiB: before now",
            format!(
                "{} {}",
                number(self.before.server.map(|usage| usage.rss_mib)),
                number(self.server.map(|usage| usage.rss_mib))
            ),
        );
        row("server's peak RSS, MiB", number(self.server.map(|usage| usage.peak_rss_mib)));
        for (code, n) in &self.tally.refusals {
            row("calls without a receipt", format!("{n} {code}"));
        }
        if self.tally.unsent > 0 {
            row("WITHOUT A RECEIPT", format!("{}", self.tally.unsent));
        }
        for wrong in self.tally.wrong.iter().take(10) {
            row("WRONG RECEIPT", wrong.clone());
        }
        let line = json!({
            "reports_per_second": per_second.round(),
            "seconds": seconds,
            "receipts": self.tally.receipts.len(),
            "receipt_p50_ms": millis(0.5),
            "receipt_p99_ms": millis(0.99),
            "sent": self.tally.sent,
            "received": sum.received,
            "accepted": sum.accepted,
            "rejected": sum.rejected,
            "duplicates": sum.duplicates,
            "alerts_raised": sum.alerts_raised,
            "violating_sent": self.tally.violating,
            "episodes_sent": self.tally.episodes,
            "rows": self.rows,
            "without_receipt": self.tally.unsent,
            "wrong_receipts": self.tally.wrong.len(),
            "refusals": self.tally.refusals,
            "generator_cpu_seconds_per_million": own_cpu.map(|cpu| cpu / millions),
            "server_cpu_seconds_per_million": server_cpu.map(|cpu| cpu / millions),
            "server_rss_mib": self.server.map(|usage| usage.rss_mib),
            "server_peak_rss_mib": self.server.map(|usage| usage.peak_rss_mib),
        });
        println!("{line}");
    }
}

fn row(name: &str, value: String) {
    println!("{name:<32} {value}");
}

fn number(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"))
}
