//! The rules of a chaos run: one table, which the server gets as its rule file and the checker evaluates by itself.
//!
//! None of them is `absent()`: silence is what faults are made of, and when it is noticed is no property of the ledger.

use std::fmt::Write as _;

/// The metrics that reports have, in the order in which the ledger keeps them.
pub const METRICS: [&str; 3] = ["cpu_percent", "memory_percent", "load_1m"];

/// A comparison of one metric with a number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Test {
    /// `>`
    Above(f64),
    /// `>=`
    AtLeast(f64),
    /// `<`
    Below(f64),
}

impl Test {
    /// Whether it holds for a reading.
    pub fn holds(self, value: f64) -> bool {
        match self {
            Self::Above(threshold) => value > threshold,
            Self::AtLeast(threshold) => value >= threshold,
            Self::Below(threshold) => value < threshold,
        }
    }

    /// What is compared with.
    pub fn threshold(self) -> f64 {
        let (Self::Above(threshold) | Self::AtLeast(threshold) | Self::Below(threshold)) = self;
        threshold
    }

    fn sign(self) -> &'static str {
        match self {
            Self::Above(_) => ">",
            Self::AtLeast(_) => ">=",
            Self::Below(_) => "<",
        }
    }
}

/// One rule.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Its name.
    pub name: &'static str,
    /// Which of [`METRICS`] it looks at.
    pub metric: usize,
    /// When it is violated.
    pub when: Test,
    /// When it is clear; `None`: when it is not violated.
    pub clear: Option<Test>,
    /// Of how many milliseconds up to the report it looks at the largest reading; 0: at the report's own.
    pub over_ms: u64,
    /// `for`, in milliseconds.
    pub for_ms: u64,
    /// `keep_firing_for`, in milliseconds.
    pub keep_ms: u64,
    /// Its severity.
    pub severity: &'static str,
}

const PLAIN: Rule = Rule {
    name: "",
    metric: 0,
    when: Test::Above(90.0),
    clear: None,
    over_ms: 0,
    for_ms: 0,
    keep_ms: 0,
    severity: "critical",
};

/// A rule for each way in which an episode begins and ends.
pub const RULES: [Rule; 6] = [
    Rule { name: "cpu-high", ..PLAIN },
    Rule {
        name: "memory-band",
        metric: 1,
        when: Test::Above(80.0),
        clear: Some(Test::Below(70.0)),
        severity: "warning",
        ..PLAIN
    },
    Rule { name: "cpu-held", when: Test::AtLeast(75.0), for_ms: 150, ..PLAIN },
    Rule { name: "load-kept", metric: 2, when: Test::Below(1.5), keep_ms: 200, severity: "info", ..PLAIN },
    Rule {
        name: "memory-slow",
        metric: 1,
        when: Test::Above(60.0),
        clear: Some(Test::Below(55.0)),
        for_ms: 100,
        keep_ms: 100,
        severity: "warning",
        ..PLAIN
    },
    // A maximum is one of the readings: unlike a mean it is the same to the last bit however it is reckoned.
    Rule { name: "memory-peak", metric: 1, over_ms: 400, ..PLAIN },
];

/// The rule file.
pub fn toml() -> String {
    let mut text = String::from("# Written by the chaos harness.\n");
    for rule in RULES {
        let metric = match rule.over_ms {
            0 => METRICS[rule.metric].to_owned(),
            over => format!("max({}, {over}ms)", METRICS[rule.metric]),
        };
        let condition = |test: Test| format!("{metric} {} {}", test.sign(), test.threshold());
        write!(text, "\n[[rules]]\nname = \"{}\"\nwhen = \"{}\"\n", rule.name, condition(rule.when)).unwrap();
        if let Some(clear) = rule.clear {
            writeln!(text, "clear = \"{}\"", condition(clear)).unwrap();
        }
        writeln!(text, "for = \"{}ms\"\nkeep_firing_for = \"{}ms\"", rule.for_ms, rule.keep_ms).unwrap();
        writeln!(text, "severity = \"{}\"", rule.severity).unwrap();
    }
    text
}
