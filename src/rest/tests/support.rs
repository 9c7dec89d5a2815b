//! A server with a few instances and a store in memory, and a client that hides nothing of HTTP.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::RwLock;
use serde_json::Value;
use slog::{Discard, Logger, o};
use uuid::Uuid;

use super::super::{Context, Options, Server, start};
use crate::{
    control::{Door, Requests, door},
    doors::{self, Doors, Hosts},
    health::{Health, Phase},
    model::{Alert, EventKind, InstanceKey, LifeEvent, RaiseId, Severity, Timestamp},
    rules::{Firing, RuleSet, SharedRules},
    state::{Heard, InstanceState, State},
    stats::Stats,
    store::{AlertRecord, AlertState, AlertStore, HistoryQuery, HistoryRow, StoreError},
};

/// No wait of a test is longer; each ends as soon as it can.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// 2026-11-23T02:39:25Z
pub(super) const BASE: Timestamp = Timestamp::from_nanos(1_795_401_565_000_000_000);

/// A server under test, and what it reads from.
pub(super) struct Running {
    pub(super) server: Server,
    pub(super) state: Arc<State>,
    pub(super) rules: SharedRules,
    pub(super) stats: Arc<Stats>,
    pub(super) health: Health,
    /// The way to control, which does not run here.
    pub(super) control: Door,
    pub(super) requests: Requests,
}

impl Running {
    /// Ready, with the built-in rules, no instance and an empty history.
    pub(super) fn empty() -> Self {
        Self::with_store(Rows::default(), Options::default())
    }

    /// The same with another store and other limits.
    pub(super) fn with_store(store: impl AlertStore + 'static, options: Options) -> Self {
        let (state, stats, health) = (Arc::new(State::new(2, 1_000_000)), Arc::new(Stats::new()), Health::new());
        health.enter(Phase::Ready);
        let rules = Arc::new(RwLock::new(Arc::new(RuleSet::built_in(None))));
        let (control, requests) = door();
        let loopback = std::net::IpAddr::from([127, 0, 0, 1]);
        let hosts = Hosts::new(loopback, &["test".to_owned()]).expect("a name");
        let settings = doors::Settings { hosts, ..doors::Settings::default() };
        let context = Context {
            control: control.clone(),
            doors: Arc::new(Doors::new(settings, stats.clone(), &Logger::root(Discard, o!()))),
            state: state.clone(),
            rules: rules.clone(),
            store: Arc::new(store),
            stats: stats.clone(),
            health: health.clone(),
        };
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let server = start(listener, context, options, Logger::root(Discard, o!())).expect("the server starts");
        Self { server, state, rules, stats, health, control, requests }
    }

    /// Makes an instance known.
    pub(super) fn add(&self, service: &str, instance: &str, change: impl FnOnce(&mut InstanceState)) {
        let key = Arc::new(InstanceKey::new(service, instance));
        let plan = self.rules.read().plan(&key);
        let mut instance = InstanceState::new(key, plan, Heard::default());
        instance.last_seen = BASE;
        change(&mut instance);
        self.state.restore(instance);
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.server.addr()
    }

    /// `GET path`.
    pub(super) fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "")
    }

    /// Any request without a body; `headers` end with `\r\n` each.
    pub(super) fn ask(&self, method: &str, path: &str, headers: &str) -> Answer {
        ask(self.addr(), method, path, headers)
    }

    /// A request with a body of so many bytes.
    pub(super) fn ask_with_body(&self, method: &str, path: &str, n_bytes: usize) -> Answer {
        let body = "x".repeat(n_bytes);
        ask(self.addr(), method, path, &format!("content-length: {n_bytes}\r\n\r\n{body}"))
    }

    /// Control is no longer there.
    pub(super) fn control_ends(&mut self) {
        (_, self.requests) = door();
    }

    /// The problem that `GET path` gets, which is of this status.
    pub(super) fn problem(&self, path: &str, status: u16) -> String {
        self.get(path).problem(status)
    }
}

pub(super) fn ask(addr: SocketAddr, method: &str, path: &str, headers: &str) -> Answer {
    let mut tcp = connect(addr);
    let head = format!("{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n{headers}\r\n");
    tcp.write_all(head.as_bytes()).expect("the connection holds");
    let mut bytes = Vec::new();
    tcp.read_to_end(&mut bytes).expect("the connection holds");
    Answer::read(&String::from_utf8(bytes).expect("text"))
}

pub(super) fn connect(addr: SocketAddr) -> TcpStream {
    let tcp = TcpStream::connect(addr).expect("the server listens");
    tcp.set_read_timeout(Some(PATIENCE)).expect("the connection holds");
    tcp
}

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    headers: Vec<(String, String)>,
    pub(super) body: String,
}

impl Answer {
    fn read(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).expect("a status");
        let headers = lines.filter_map(|line| line.split_once(": ")).map(|(n, v)| (n.to_lowercase(), v.to_owned()));
        Self { status, headers: headers.collect(), body: body.to_owned() }
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// The JSON of an answer that is 200.
    pub(super) fn json(&self) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        self.json_anyway()
    }

    pub(super) fn json_anyway(&self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/json"));
        serde_json::from_str(&self.body).expect("it is JSON")
    }

    /// The detail of a problem, after a look at all that RFC 9457 and we promise of it.
    pub(super) fn problem(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        assert_eq!(self.header("x-content-type-options"), Some("nosniff"));
        let problem: Value = serde_json::from_str(&self.body).expect("it is JSON");
        assert_eq!(problem["type"], "about:blank");
        assert_eq!(problem["status"], status);
        assert!(problem["title"].is_string());
        problem["detail"].as_str().expect("a text").to_owned()
    }
}

/// An alert that fires.
pub(super) fn firing(service: &str, instance: &str, rule: &str, severity: Severity, raises: u64) -> Firing {
    let key = Arc::new(InstanceKey::new(service, instance));
    let alert_id = RaiseId::Counter(raises).alert_id(&key, rule);
    let triggered_at = BASE.plus(Duration::from_secs(raises));
    let alert = Alert {
        alert_id,
        episode_id: alert_id,
        key,
        rule: rule.into(),
        metric: "cpu_percent".into(),
        value: 95.5,
        threshold: Some(90.0),
        severity,
        labels: Arc::new([("team".to_owned(), "payments".to_owned())].into()),
        summary: "CPU is high".to_owned(),
        runbook_url: None,
        receivers: None,
        evidence: None,
        life: vec![LifeEvent { kind: EventKind::Raise, at: triggered_at, by: None, value: Some(95.5) }],
        late: false,
        triggered_at,
        received_at: triggered_at,
        resolved_at: None,
        resolve_reason: None,
        last_value: 95.5,
        version: 1,
    };
    Firing { rule: 0, alert: Arc::new(alert), clear_since: None, notified_at: triggered_at }
}

/// A row of the history, raised `second` seconds after [`BASE`].
pub(super) fn row(id: u64, service: &str, second: u64) -> HistoryRow {
    HistoryRow {
        id,
        alert_id: Some(Uuid::from_u128(id.into())),
        service_name: service.to_owned(),
        instance: Some("a".to_owned()),
        metric: "cpu_percent".to_owned(),
        metric_value: 95.5,
        rule: Some("cpu-high".to_owned()),
        severity: Some("critical".to_owned()),
        threshold: Some(90.0),
        triggered_at: BASE.plus(Duration::from_secs(second)),
        received_at: Some(BASE),
        stored_at: Some(BASE),
        resolved_at: None,
        resolve_reason: None,
        late: false,
        labels: Some(r#"{"team":"payments"}"#.to_owned()),
        summary: Some("CPU is high".to_owned()),
    }
}

/// The record of a row: an episode that was raised and nothing more.
pub(super) fn record(row: HistoryRow) -> AlertRecord {
    AlertRecord {
        episode_id: row.alert_id,
        last_value: Some(row.metric_value),
        version: 1,
        events: Some(r#"[{"kind":"raise","at":"2026-11-23T02:39:25.000000Z","by":null,"value":95.5}]"#.to_owned()),
        evidence: Some(r#"{"when":"cpu_percent > 90","points":[[1795401565000,95.5]]}"#.to_owned()),
        row,
    }
}

/// A store that only reads.
macro_rules! read_only {
    () => {
        fn describe(&self) -> String {
            "memory".to_owned()
        }
        fn prepare(&self) -> Result<(), StoreError> {
            Ok(())
        }
        fn write(&self, _: &[Arc<Alert>]) -> Result<(), StoreError> {
            unreachable!("REST writes nothing")
        }
        fn prune(&self, _: Timestamp, _: u32) -> Result<u64, StoreError> {
            unreachable!("REST writes nothing")
        }
    };
}

/// A history in memory.
#[derive(Debug, Default)]
pub(super) struct Rows(pub(super) Vec<AlertRecord>);

impl AlertStore for Rows {
    fn shut(&self) {}

    read_only!();

    fn history(&self, query: &HistoryQuery) -> Result<Vec<HistoryRow>, StoreError> {
        let is = |wanted: &Option<String>, has: Option<&str>| wanted.is_none() || wanted.as_deref() == has;
        let state = |row: &HistoryRow| match query.state {
            None => true,
            Some(_) if row.alert_id.is_none() => false,
            Some(AlertState::Firing) => row.resolved_at.is_none(),
            Some(AlertState::Resolved) => row.resolved_at.is_some(),
        };
        let matches = |row: &&HistoryRow| {
            is(&query.service, Some(&row.service_name))
                && is(&query.instance, row.instance.as_deref())
                && is(&query.metric, Some(&row.metric))
                && is(&query.rule, row.rule.as_deref())
                && is(&query.severity.map(|s| s.to_string()), row.severity.as_deref())
                && state(row)
                && query.since.is_none_or(|since| row.triggered_at >= since)
                && query.until.is_none_or(|until| row.triggered_at < until)
                && query.after.is_none_or(|c| (row.triggered_at, row.id) < (c.triggered_at, c.id))
        };
        let mut rows: Vec<_> = self.0.iter().map(|record| &record.row).filter(matches).cloned().collect();
        rows.sort_by_key(|row| std::cmp::Reverse((row.triggered_at, row.id)));
        rows.truncate(query.limit as usize);
        Ok(rows)
    }

    fn alert(&self, alert_id: Uuid) -> Result<Option<AlertRecord>, StoreError> {
        Ok(self.0.iter().find(|record| record.row.alert_id == Some(alert_id)).cloned())
    }
}

/// A store whose every read fails.
#[derive(Debug)]
pub(super) struct Failing {
    pub(super) transient: bool,
}

impl Failing {
    fn error(&self) -> StoreError {
        let (doing, source) = ("reading the history".to_owned(), "SELECT secret FROM alerts: gone away".into());
        if self.transient { StoreError::Transient { doing, source } } else { StoreError::Permanent { doing, source } }
    }
}

impl AlertStore for Failing {
    fn shut(&self) {}

    read_only!();

    fn history(&self, _: &HistoryQuery) -> Result<Vec<HistoryRow>, StoreError> {
        Err(self.error())
    }

    fn alert(&self, _: Uuid) -> Result<Option<AlertRecord>, StoreError> {
        Err(self.error())
    }
}

/// A store whose every read hangs until it is released, or for 10 s.
#[derive(Clone, Debug, Default)]
pub(super) struct Hanging {
    released: Arc<(Mutex<bool>, Condvar)>,
    pub(super) n_reads: Arc<AtomicUsize>,
}

impl Hanging {
    pub(super) fn release(&self) {
        *self.released.0.lock().expect("no thread panicked") = true;
        self.released.1.notify_all();
    }

    fn hang(&self) {
        self.n_reads.fetch_add(1, Ordering::SeqCst);
        let (released, wake) = &*self.released;
        let ten_seconds = Duration::from_secs(10);
        let _held = wake
            .wait_timeout_while(released.lock().expect("no thread panicked"), ten_seconds, |released| !*released)
            .expect("no thread panicked");
    }
}

impl AlertStore for Hanging {
    fn shut(&self) {}

    read_only!();

    fn history(&self, _: &HistoryQuery) -> Result<Vec<HistoryRow>, StoreError> {
        self.hang();
        Ok(Vec::new())
    }

    fn alert(&self, _: Uuid) -> Result<Option<AlertRecord>, StoreError> {
        self.hang();
        Ok(None)
    }
}

/// Waits until `holds`.
pub(super) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "waited too long until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
