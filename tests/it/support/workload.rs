//! Reports of many services over many streams, and what the history must hold of them, worked out from the same
//! figures but by no code of the server.

use std::collections::BTreeSet;

use gopherwatch_proto::v1::{MetricReport, Summary};
use tonic::Status;

use super::{
    client::{Client, balanced},
    history::Row,
    reports::{Dice, Says, cpu, now_nanos},
    server::Server,
};

/// Readings of one service lie this far apart.
const STEP: u64 = 1_000_000;

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Workload {
    pub(crate) n_services: usize,
    pub(crate) n_streams: usize,
    /// Of each service.
    pub(crate) n_rounds: u64,
    pub(crate) breach: Breach,
    /// Rows as `--record every` makes them.
    pub(crate) every: bool,
    /// The reading of the first round.
    pub(crate) begin: u64,
}

/// Which reports violate `cpu-high`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Breach {
    /// One in so many, at random.
    OneIn(u64),
    /// Every other one.
    Alternating,
    /// All of them.
    Always,
}

/// A row as far as it is known before: service, raise and resolve in microseconds, value.
pub(crate) type Expected = (String, i64, Option<i64>, u64);

impl Workload {
    /// `n_reports` in all.
    pub(crate) fn new(n_reports: u64, n_services: usize, n_streams: usize, breach: Breach) -> Self {
        let n_rounds = n_reports.div_ceil(n_services as u64);
        let begin = now_nanos() - n_rounds * STEP;
        Self { n_services, n_streams, n_rounds, breach, every: false, begin }
    }

    pub(crate) fn n_reports(&self) -> u64 {
        self.n_rounds * self.n_services as u64
    }

    /// The reports of one stream, service by service in each round.
    pub(crate) fn reports(self, stream: usize) -> impl Iterator<Item = MetricReport> + Send + 'static {
        let services = move || (stream..self.n_services).step_by(self.n_streams);
        (0..self.n_rounds).flat_map(move |round| services().map(move |service| self.report(service, round)))
    }

    fn report(&self, service: usize, round: u64) -> MetricReport {
        cpu(&name(service), self.value(service, round) as f64).numbered(round + 1).at(self.time(round))
    }

    fn time(&self, round: u64) -> u64 {
        self.begin + round * STEP
    }

    fn value(&self, service: usize, round: u64) -> u64 {
        let violates = match self.breach {
            Breach::OneIn(n) => Dice(service as u64 * 1_000_003 + round).one_in(n),
            Breach::Alternating => round.is_multiple_of(2),
            Breach::Always => true,
        };
        if violates { 91 + round % 9 } else { 10 + round % 80 }
    }

    /// Every row that there must be once all is sent.
    pub(crate) fn rows(&self) -> BTreeSet<Expected> {
        self.rows_of(|_| self.n_rounds)
    }

    /// Every row that there must be once so many reports of each stream are sent.
    pub(crate) fn rows_of_prefixes(&self, n_sent: &[u64]) -> BTreeSet<Expected> {
        self.rows_of(|service| {
            let stream = service % self.n_streams;
            let n_own = (stream..self.n_services).step_by(self.n_streams).len() as u64;
            let place = (service / self.n_streams) as u64;
            n_sent[stream] / n_own + u64::from(place < n_sent[stream] % n_own)
        })
    }

    fn rows_of(&self, n_rounds: impl Fn(usize) -> u64) -> BTreeSet<Expected> {
        let mut rows = BTreeSet::new();
        for service in 0..self.n_services {
            let mut firing: Option<(i64, u64)> = None;
            for round in 0..n_rounds(service) {
                let at = i64::try_from(self.time(round) / 1_000).unwrap();
                let value = self.value(service, round);
                match (firing, value > 90) {
                    (None, true) => firing = Some((at, value)),
                    (Some(_), true) if self.every => {
                        rows.insert((name(service), at, Some(at), value));
                    }
                    (Some((since, value)), false) => {
                        rows.insert((name(service), since, Some(at), value));
                        firing = None;
                    }
                    _ => {}
                }
            }
            if let Some((since, value)) = firing {
                rows.insert((name(service), since, None, value));
            }
        }
        rows
    }

    /// Sends everything, each stream on a connection of its own, all at once; the answers.
    pub(crate) fn send(self, server: &Server, epoch: u64) -> Vec<Result<Summary, Status>> {
        let epoch = epoch.to_string();
        let clients: Vec<Client> = (0..self.n_streams).map(|_| server.client()).collect();
        let streams: Vec<_> = clients
            .iter()
            .enumerate()
            .map(|(n, client)| client.stream(&[("agent-epoch", &epoch)], self.reports(n)))
            .collect();
        streams.into_iter().map(super::client::Answer::wait).collect()
    }

    /// Sends everything and asserts that every receipt balances and that nothing was refused or a duplicate.
    pub(crate) fn send_all(self, server: &Server) {
        let summaries: Vec<_> = self.send(server, 7).into_iter().map(|answer| balanced(answer.unwrap())).collect();
        let accepted: u64 = summaries.iter().map(|summary| summary.accepted).sum();
        assert_eq!(accepted, self.n_reports());
        let n_raised: u64 = summaries.iter().map(|summary| summary.alerts_raised).sum();
        let once = Self { every: false, ..self };
        assert_eq!(n_raised, once.rows().len() as u64, "each episode is raised once");
    }

    /// Waits until all is stored, and asserts that the history has exactly the rows that it must.
    pub(crate) fn assert_stored(&self, server: &Server) {
        server.settle();
        assert_rows(&server.history("rule=cpu-high"), self.rows());
    }
}

/// Asserts that these are exactly the rows that there must be.
pub(crate) fn assert_rows(rows: &[Row], mut expected: BTreeSet<Expected>) {
    let n_expected = expected.len();
    let mut extra = Vec::new();
    for row in rows {
        let key = (row.service.clone(), row.triggered_at, row.resolved_at, row.value as u64);
        if !expected.remove(&key) {
            extra.push(row);
        }
    }
    assert!(
        extra.is_empty() && expected.is_empty(),
        "{} rows, {n_expected} expected: {} missing, such as {:?}; {} too many or wrong, such as {:?}",
        rows.len(),
        expected.len(),
        expected.iter().next(),
        extra.len(),
        extra.first()
    );
}

fn name(service: usize) -> String {
    format!("service-{service:04}")
}
