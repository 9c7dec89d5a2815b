//! Rule files made by the dice: each rule is there in one of its wordings, or is not.

use std::fmt::Write as _;

use rand::{RngExt, rngs::SmallRng};

use crate::rules::{RuleSet, tests::play};

/// A rule's name and its wordings. `absent` ones speak of time, the others of reports alone.
const RULES: [(&str, &[&str]); 7] = [
    (
        "high",
        &[
            "when = 'cpu > 90'\nseverity = 'critical'",
            "when = 'cpu > 90'\nseverity = 'warning'\nsummary = 'now {value}'",
            "when = 'cpu > 85'",
        ],
    ),
    (
        "held",
        &[
            "when = 'cpu > 80'\nfor = '10s'\nkeep_firing_for = '6s'",
            "when = 'cpu > 80'\nfor = '10s'\nkeep_firing_for = '20s'\nlabels = { team = 'a' }",
            "when = 'cpu > 78'\nfor = '4s'",
        ],
    ),
    (
        "clears",
        &[
            "when = 'mem > 70'\nclear = 'mem < 60'\nrecord = 'every'",
            "when = 'mem > 70'\nclear = 'mem < 50'",
            "services = ['s0', 's1']\nwhen = 'mem > 70'\nclear = 'mem < 60'\nrecord = 'every'",
        ],
    ),
    (
        "window",
        &["when = 'avg(cpu, 30s) > 80'", "when = 'max(cpu, 1m) > 93'\nfor = '5s'", "when = 'stddev(cpu, 40s) > 4'"],
    ),
    ("steps", &["when = 'increase(n, 1m) > 20'", "when = 'rate(n, 30s) > 0.4 and cpu > 70'"]),
    ("silent", &["when = 'absent()'\nrepeat = '1m'", "when = 'absent(45s)'"]),
    ("lacks", &["when = 'absent(mem, 40s)'", "when = 'absent(mem, 1m)'\nrepeat = '2m'"]),
];

/// A rule file of one of its versions.
pub(super) fn draw(rng: &mut SmallRng) -> String {
    let mut text = String::new();
    for (name, wordings) in RULES {
        if rng.random_bool(0.85) {
            let wording = wordings[rng.random_range(0..wordings.len())];
            write!(text, "[[rules]]\nname = '{name}'\n{wording}\n").expect("memory takes text");
        }
    }
    if text.is_empty() {
        text = "[[rules]]\nname = 'high'\nwhen = 'cpu > 90'\n".to_owned();
    }
    text
}

/// Whether the rule of this name speaks of reports alone.
pub(super) fn is_about_reports(name: &str) -> bool {
    !matches!(name, "silent" | "lacks")
}

pub(super) fn parse(text: &str) -> RuleSet {
    play::rules(text)
}
