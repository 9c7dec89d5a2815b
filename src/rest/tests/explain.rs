//! `/explain`: every reason there is, provoked by the reports that lead to it.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::support::{BASE, Running};
use crate::{
    model::{InstanceKey, Name, Row},
    rules::{Progress, Reading, Reason, RuleSet, evaluate, look, parse_file},
    state::{Heard, Hearing, InstanceState, Presence, Silence},
};

/// One instance, `web/a`, under one rule.
struct Story {
    rules: RuleSet,
    instance: InstanceState,
    sequence: u64,
    /// When its lane last ticked, in seconds.
    ticked: u64,
    start: Instant,
}

impl Story {
    /// Under a rule of these fields, `; ` between them.
    fn of(fields: &str) -> Self {
        let text = format!("[[rules]]\nname = \"rule\"\n{}", fields.replace("; ", "\n"));
        let rules =
            RuleSet::new(parse_file(&text, None).expect("a valid file").rules.expect("with rules"), "test".to_owned());
        let key = Arc::new(InstanceKey::new("web", "a"));
        let mut instance = InstanceState::new(key.clone(), rules.plan(&key), Heard::default());
        instance.last_seen = BASE;
        Self { rules, instance, sequence: 0, ticked: 0, start: Instant::now() }
    }

    fn heard(&self, seconds: u64) -> Heard {
        Hearing::starting(self.start).at(self.start + Duration::from_secs(seconds))
    }

    /// A report so many seconds after the start: `cpu_percent=95,a=1`.
    fn report(mut self, seconds: u64, metrics: &str) -> Self {
        let reading = |text: &str| {
            let (name, value) = text.split_once('=').expect("name=value");
            (Name::from(name), value.parse().expect("a number"))
        };
        let metrics: Vec<(Name, f64)> = metrics.split(',').filter(|text| !text.is_empty()).map(reading).collect();
        let metrics = Row::new(&metrics);
        self.sequence += 1;
        let (at, heard) = (BASE.plus(Duration::from_secs(seconds)), self.heard(seconds));
        let key = self.instance.key.clone();
        let reading = Reading {
            key: &key,
            metrics: metrics.readings(),
            at,
            wire_time: at.as_nanos().unsigned_abs(),
            received_at: at,
            skew_nanos: 0,
            epoch: 1,
            sequence: self.sequence,
        };
        let outcome = evaluate(&self.instance.progress, &reading);
        self.instance.take_readings(metrics.readings(), at, heard);
        self.instance.silence.heard_report(heard);
        self.instance.progress.apply(outcome, metrics.readings(), at);
        self.tick(seconds)
    }

    /// Three reports over 20 s: from then on it is missed.
    fn armed(self, metrics: &str) -> Self {
        self.report(0, metrics).report(10, metrics).report(20, metrics)
    }

    /// The lane looks who is silent.
    fn tick(mut self, seconds: u64) -> Self {
        self.ticked = seconds;
        let heard = self.heard(seconds);
        let (instance, now) = (&mut self.instance, BASE.plus(Duration::from_secs(seconds)));
        instance.stale = instance.silent_for(heard) >= instance.silence.patience();
        let outcome = instance.with_hush(heard, |hush| look(&instance.progress, &instance.key, hush, now));
        instance.progress.apply_look(outcome, now);
        self
    }

    fn left(mut self) -> Self {
        self.instance.presence = Presence::Left(self.heard(self.ticked));
        self
    }

    /// The rule asks something else from now on.
    fn under(mut self, fields: &str) -> Self {
        self.rules = Self::of(fields).rules.succeeding(&self.rules.records(), BASE);
        self.instance.adopt(&self.rules, BASE, self.heard(self.ticked));
        self
    }

    /// It was known before, and the rule is new.
    fn under_a_new_rule(mut self) -> Self {
        self.instance.progress = Progress::new(self.rules.plan(&self.instance.key));
        self.instance.silence = Silence::restored(true, Duration::from_secs(1));
        self
    }

    /// What `/explain` says of it.
    fn explained(self) -> Value {
        let it = Running::empty();
        *it.rules.write() = Arc::new(self.rules.clone());
        it.state.note_heard(it.state.lane_of(&self.instance.key), self.heard(self.ticked));
        it.state.restore(self.instance);
        it.get("/explain?service=web&instance=a&rule=rule").json()
    }
}

#[test]
fn every_situation_has_its_reason() {
    let cpu = r#"when = "cpu_percent > 90""#;
    let with = |more: &str| Story::of(&format!("{cpu}; {more}"));
    let of_window = |function: &str| Story::of(&format!(r#"when = "{function}(a, 10s) > 5""#));
    let hysteresis = r#"clear = "cpu_percent < 80""#;
    let quiet = r#"when = "absent()""#;
    let lacking = r#"when = "absent(a, 15s)""#;
    let stories = [
        ("firing", Story::of(cpu).report(0, "cpu_percent=95")),
        ("clearing", with(r#"keep_firing_for = "10s""#).report(0, "cpu_percent=95").report(1, "cpu_percent=5")),
        ("not_clear", with(hysteresis).report(0, "cpu_percent=95").report(1, "cpu_percent=85")),
        ("clear_unknown", Story::of(cpu).report(0, "cpu_percent=95").report(1, "memory_percent=5")),
        ("firing_silent", Story::of(cpu).armed("cpu_percent=95").tick(60)),
        ("pending", with(r#"for = "10s""#).report(0, "cpu_percent=95").report(5, "cpu_percent=95")),
        ("awaiting_report", Story::of(cpu).report(0, "cpu_percent=95").under_a_new_rule()),
        ("condition_false", Story::of(cpu).report(0, "cpu_percent=90")),
        ("awaiting_report", Story::of(cpu).report(0, "cpu_percent=95").under(r#"when = "cpu_percent > 97""#)),
        ("metric_missing", Story::of(cpu).report(0, "memory_percent=95")),
        ("window_empty", of_window("avg").report(0, "a=1").report(60, "b=1")),
        ("too_few_points", of_window("rate").report(0, "a=9")),
        ("division_by_zero", Story::of(r#"when = "a / b > 1""#).report(0, "a=1,b=0")),
        ("not_finite", Story::of(r#"when = "a * a > 1""#).report(0, "a=1e300")),
        ("no_report", Story::of(cpu)),
        ("silent", Story::of(cpu).armed("cpu_percent=5").tick(60)),
        ("left", Story::of(cpu).report(0, "cpu_percent=5").left()),
        ("service_not_matched", with(r#"services = ["db*"]"#).report(0, "cpu_percent=95")),
        ("service_excluded", with(r#"exclude = ["w?b"]"#).report(0, "cpu_percent=95")),
        ("instance_not_matched", with(r#"instances = ["b"]"#).report(0, "cpu_percent=95")),
        ("not_armed", Story::of(quiet).report(0, "").tick(29)),
        ("heard", Story::of(quiet).armed("").tick(49)),
        ("metric_never_sent", Story::of(lacking).armed("b=1")),
        ("metric_heard", Story::of(lacking).armed("a=1").report(21, "b=1")),
        // The same situations, of rules on silence.
        ("firing", Story::of(quiet).armed("").tick(51)),
        ("clearing", Story::of(&format!("{quiet}; keep_firing_for = \"5s\"")).armed("").tick(51).report(52, "")),
        ("left", Story::of(quiet).armed("").tick(21).left()),
        ("firing", Story::of(lacking).armed("a=1").report(35, "b=1").tick(36)),
        ("not_armed", Story::of(lacking).report(0, "a=1").report(1, "b=1")),
        ("silent", Story::of(lacking).armed("a=1").tick(36)),
        ("left", Story::of(lacking).armed("a=1").left()),
    ];
    let mut seen = BTreeSet::new();
    for (reason, story) in stories {
        let answer = story.explained();
        assert_eq!(answer["reason"], reason, "{answer:#}");
        assert!(!answer["explanation"].as_str().expect("a sentence").is_empty(), "{answer:#}");
        assert_eq!(answer["steps"][0]["step"], "match", "{answer:#}");
        seen.insert(reason);
    }
    let all: BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.code()).collect();
    assert_eq!(seen, all, "each reason is provoked once");
}

/// The state used to be taken from the reason.
#[test]
fn what_is_pending_or_clearing_stays_so_when_a_report_says_nothing() {
    let held = r#"when = "cpu_percent > 90"; for = "60s"; keep_firing_for = "60s""#;
    let pending = Story::of(held).report(0, "cpu_percent=95").report(1, "memory_percent=5").explained();
    assert_eq!((&pending["state"], &pending["reason"]), (&"pending".into(), &"metric_missing".into()), "{pending:#}");
    let clearing = Story::of(held)
        .report(0, "cpu_percent=95")
        .report(60, "cpu_percent=95")
        .report(61, "cpu_percent=5")
        .report(62, "memory_percent=5");
    let clearing = clearing.explained();
    assert_eq!((&clearing["state"], &clearing["reason"]), (&"firing".into(), &"clearing".into()), "{clearing:#}");
}

#[test]
fn what_is_unknown_is_what_decides() {
    let rule = r#"when = "(x / y > 1 or b > 1) and c > 1""#;
    assert_eq!(Story::of(rule).report(0, "x=1,y=0,b=5").explained()["reason"], "metric_missing");
    assert_eq!(Story::of(rule).report(0, "x=1,y=0,b=0,c=5").explained()["reason"], "division_by_zero");
}

#[test]
fn times_are_those_of_the_agents_clock_after_it_was_set_back() {
    let held = r#"when = "cpu_percent > 90"; for = "60s""#;
    let story = Story::of(held).report(3_600, "cpu_percent=5").report(0, "cpu_percent=95");
    assert_eq!(story.explained()["fires_at"], "2026-11-23T02:40:25.000000Z");
}

#[test]
fn an_explanation_goes_from_the_report_to_the_answer() {
    let rule = r#"when = "cpu_percent > 90 and memory_percent > 50"; for = "10s""#;
    let answer = Story::of(rule).report(0, "cpu_percent=95,memory_percent=60").explained();
    let steps: Vec<_> = answer["steps"].as_array().expect("a list").iter().map(|step| step["step"].clone()).collect();
    assert_eq!(steps, ["match", "presence", "last_report", "comparison", "comparison", "condition", "for"]);
    assert_eq!(answer["state"], "pending");
    assert_eq!(answer["comparisons"][0]["left"], 95.0);
    assert_eq!(answer["comparisons"][1]["holds"], true);
    assert_eq!(answer["pending_since"], "2026-11-23T02:39:25.000000Z");
    assert_eq!(answer["fires_at"], "2026-11-23T02:39:35.000000Z");
}

#[test]
fn without_a_rule_all_are_explained_and_what_is_not_there_is_told_apart() {
    let it = Running::empty();
    it.add("web", "a", |_| {});
    let all = it.get("/explain?service=web").json();
    let rules: Vec<_> = all["rules"].as_array().expect("a list").iter().map(|rule| rule["rule"].clone()).collect();
    assert_eq!((all["instance"].as_str(), rules.len()), (Some("a"), 3), "the service's only instance is meant");
    let reason = |path: &str, status: u16| {
        let answer = it.get(path);
        answer.problem(status);
        serde_json::from_str::<Value>(&answer.body).expect("it is JSON")["reason"].clone()
    };
    assert_eq!(reason("/explain?service=db&rule=cpu-high", 404), "service_unknown");
    assert_eq!(reason("/explain?service=web&instance=b&rule=cpu-high", 404), "instance_unknown");
    assert_eq!(reason("/explain?service=web&instance=a&rule=cpu", 404), "rule_unknown");
    it.add("web", "b", |_| {});
    assert!(it.problem("/explain?service=web&rule=cpu-high", 400).contains("there are: a, b"));
    assert!(it.problem("/explain?instance=a", 400).starts_with("service:"));
}
