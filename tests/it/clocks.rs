//! Agents whose clocks are wrong: by an hour either way, by years, in 1970, in 2039. Rows say what the readings say, once,
//! with a kill of the server between raise and resolve; what no column can hold is refused (CONTRACT §2, §3).

use gopherwatch_proto::v1::MetricReport;

use crate::support::{
    client::balanced,
    history::Row,
    reports::{Says, cpu, now_nanos},
    server::Server,
    stores::Store,
    wait::{SOON, found},
};

const SECOND: u64 = 1_000_000_000;
const HOUR: i64 = 3_600;
/// The end of 2037 and the beginning of 2039: MySQL's TIMESTAMP ends between them.
const IN_2037: i64 = 2_145_000_000;
const IN_2039: i64 = 2_177_500_000;

/// How far a clock is ahead that says `then`, in seconds.
fn to(then: i64) -> i64 {
    then - i64::try_from(now_nanos() / SECOND).unwrap()
}

/// An agent whose clock is `ahead` seconds off.
struct Agent<'a> {
    service: &'a str,
    ahead: i64,
    /// The reading of its first report, by its own clock.
    start: u64,
    is_numbered: bool,
}

impl Agent<'_> {
    /// The report of its `n`th second.
    fn report(&self, n: u64, value: f64) -> MetricReport {
        let report = cpu(self.service, value).at(self.time(n));
        if self.is_numbered { report.numbered(n + 1) } else { report }
    }

    fn time(&self, n: u64) -> u64 {
        self.start + n * SECOND
    }

    /// Microseconds since 1970.
    fn micros(&self, n: u64) -> i64 {
        i64::try_from(self.time(n) / 1_000).unwrap()
    }

    /// Sends from the `n`th second on, and says what the clock is, if `says_so`.
    fn send(&self, server: &Server, n: u64, values: &[f64], says_so: bool) -> (u64, u64) {
        let clock = now_nanos().strict_add_signed(self.ahead * SECOND as i64).to_string();
        let mut metadata = vec![];
        if says_so {
            metadata.push(("agent-time-unix-nano", clock.as_str()));
        }
        if self.is_numbered {
            metadata.push(("agent-epoch", "7"));
        }
        let reports = (n..).zip(values).map(|(n, value)| self.report(n, *value));
        let receipt = balanced(server.client().send_with(&metadata, reports).unwrap());
        (receipt.accepted, receipt.alerts_raised)
    }
}

/// Begin and end of each row of a service, oldest first.
fn rows(server: &Server, service: &str) -> Vec<(i64, Option<i64>)> {
    let rows = server.history(&format!("service={service}"));
    rows.iter().rev().map(|row: &Row| (row.triggered_at, row.resolved_at)).collect()
}

#[test]
fn whatever_an_agents_clock_says_each_episode_is_one_row_by_that_clock() {
    for store in Store::BOTH {
        let mut server = store.setup().start();
        server.history_of(0, "");
        let begin = now_nanos() - 60 * SECOND;
        let agents: Vec<_> = [("ahead", HOUR), ("behind", -HOUR), ("far", to(IN_2037))]
            .into_iter()
            .flat_map(|(name, ahead)| [(name, ahead, true), (name, ahead, false)])
            .map(|(name, ahead, is_numbered)| {
                (format!("{name}-{is_numbered}"), ahead, begin.strict_add_signed(ahead * SECOND as i64), is_numbered)
            })
            .collect();
        let agents: Vec<_> = agents
            .iter()
            .map(|(service, ahead, start, is_numbered)| Agent {
                service,
                ahead: *ahead,
                start: *start,
                is_numbered: *is_numbered,
            })
            .collect();
        for agent in &agents {
            assert_eq!(agent.send(&server, 0, &[95.0, 96.0, 5.0, 97.0], true), (4, 2), "{}", agent.service);
        }
        server.kill9();
        let server = server.start_again("");
        for agent in &agents {
            // Numbered ones send again what they cannot know to be there.
            let from = if agent.is_numbered { 3 } else { 4 };
            let values = &[97.0, 98.0, 4.0, 99.0][from as usize - 3..];
            assert_eq!(agent.send(&server, from, values, true), (3, 1), "{}", agent.service);
        }
        server.settle();
        for agent in &agents {
            let expected = [
                (agent.micros(0), Some(agent.micros(2))),
                (agent.micros(3), Some(agent.micros(5))),
                (agent.micros(6), None),
            ];
            let found = rows(&server, agent.service);
            assert_eq!(found, expected, "{store:?} {}", agent.service);
        }
    }
}

#[test]
fn a_clock_in_1970_or_2039_is_refused_until_it_is_set_and_a_reading_without_a_time_is_not() {
    let server = Server::start();
    for (then, is_numbered) in [(0, true), (0, false), (IN_2039, true), (IN_2039, false)] {
        let service = format!("year-{then}-{is_numbered}");
        let start = (u64::try_from(then).unwrap() + 100) * SECOND;
        let agent = Agent { service: &service, ahead: to(then), start, is_numbered };
        assert_eq!(
            agent.send(&server, 0, &[95.0, 5.0], true),
            (0, 0),
            "no column of a database holds it, or it is a unit"
        );
        let timeless = MetricReport { time_unix_nano: 0, ..agent.report(2, 95.0) };
        assert_eq!(server.client().send_epoch(7, [timeless]).unwrap().alerts_raised, 1);
        // The clock is set, and the same agent goes on.
        let agent = Agent { service: &service, ahead: 0, start: now_nanos() - SECOND, is_numbered };
        assert_eq!(agent.send(&server, 3, &[4.0, 96.0], true), (2, 1));
        let rows = found(SOON, "two rows", || Some(rows(&server, &service)).filter(|rows| rows.len() == 2));
        assert_eq!(rows[0].1, Some(agent.micros(3)));
        assert_eq!(rows[1], (agent.micros(4), None));
    }
    server.settle();
}

#[test]
fn a_clock_that_is_ahead_and_does_not_say_so_is_refused() {
    let server = Server::start();
    for (service, ahead, n_accepted) in
        [("ahead", HOUR, 0), ("far", to(IN_2037), 0), ("beyond", to(IN_2039), 0), ("behind", -HOUR, 2)]
    {
        let start = (now_nanos() - 60 * SECOND).strict_add_signed(ahead * SECOND as i64);
        let agent = Agent { service, ahead, start, is_numbered: true };
        assert_eq!(agent.send(&server, 0, &[95.0, 5.0], false).0, n_accepted, "{service}");
    }
    server.history_of(1, "");
    server.settle();
}

/// The clock is set back in the midst of an alert: it neither stays for ever nor ends before it began.
#[test]
fn an_alert_of_a_clock_that_is_set_right_ends_with_the_next_report_that_clears_it() {
    for store in Store::BOTH {
        let server = store.setup().start();
        let now = now_nanos();
        let wrong = Agent {
            service: "web",
            ahead: to(IN_2037),
            start: now.strict_add_signed(to(IN_2037) * SECOND as i64),
            is_numbered: true,
        };
        assert_eq!(wrong.send(&server, 0, &[95.0], true), (1, 1));
        let right = Agent { ahead: 0, start: now, ..wrong };
        assert_eq!(right.send(&server, 1, &[96.0, 5.0, 97.0], true), (3, 1));
        server.settle();
        let rows = rows(&server, "web");
        let [first, second] = [rows.iter().find(|row| row.1.is_some()), rows.iter().find(|row| row.1.is_none())];
        let (first, second) = (first.unwrap(), second.unwrap());
        assert!(first.1.unwrap() >= first.0, "{rows:?}");
        assert_eq!((rows.len(), second.0), (2, right.micros(3)), "{rows:?}");
        assert_eq!(server.status_of("web"), "critical");
    }
}
