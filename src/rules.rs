//! Alert rules: what they say, and what a report means to them.
//!
//! Pure (I6): no clock, lock, log, I/O or thread. Time comes in with the reading, what an instance has been through
//! comes in as its firing alerts, and what happened comes out as events.

mod condition;
mod evaluate;
mod file;
mod parse;
mod summary;
mod update;

use std::{collections::BTreeMap, sync::Arc};

use globset::GlobSet;
use parking_lot::RwLock;

pub use condition::{Comparator, Condition, Held, Term, Truth};
pub use evaluate::{Change, Firing, Reading, evaluate, silence};
pub use file::{FileError, parse_file};
pub use summary::Summary;
pub use update::update;

use crate::model::{InstanceKey, Name, Severity};

/// Which violating reports get a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Record {
    /// One row from raise to resolve.
    #[default]
    Episode,
    /// One more closed row per violating report after the first.
    Every,
}

impl Record {
    /// The word in files, flags and REST.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Episode => "episode",
            Self::Every => "every",
        }
    }
}

/// Names as a rule's file gave them, and the matcher made of them.
#[derive(Clone, Debug)]
pub struct Globs {
    patterns: Vec<String>,
    set: GlobSet,
}

impl Globs {
    /// The patterns as they were written.
    pub fn patterns(&self) -> &[String] {
        &self.patterns
    }
}

/// One rule, compiled.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Unique among the rules in force.
    pub name: Name,
    /// The condition as it was written.
    pub when: Name,
    /// The condition.
    pub condition: Condition,
    /// How bad its alerts are.
    pub severity: Severity,
    /// Which services; `None`: all.
    pub services: Option<Globs>,
    /// Which services of these not.
    pub exclude: Option<Globs>,
    /// Which instances; `None`: all.
    pub instances: Option<Globs>,
    /// Which violating reports get a row.
    pub record: Record,
    /// Labels of its alerts.
    pub labels: Arc<BTreeMap<String, String>>,
    /// What its alerts say.
    pub summary: Summary,
    /// Where to read what to do.
    pub runbook_url: Option<String>,
}

impl Rule {
    /// Whether it looks at this instance.
    pub fn applies_to(&self, key: &InstanceKey) -> bool {
        let within = |globs: &Option<Globs>, name| globs.as_ref().is_none_or(|globs| globs.set.is_match(name));
        within(&self.services, key.service())
            && self.exclude.as_ref().is_none_or(|globs| !globs.set.is_match(key.service()))
            && within(&self.instances, key.instance())
    }
}

/// The rules in force, in the order of their file, which is the order in which they are evaluated.
#[derive(Clone, Debug)]
pub struct RuleSet {
    /// The rules; their places are what instances remember them by.
    pub rules: Vec<Rule>,
    /// Where they come from, for people: `built-in` or the file.
    pub source: String,
}

impl RuleSet {
    /// The rules of a server without a rule file: `cpu-high`, `memory-high` and `silent`.
    pub fn built_in(record: Option<Record>) -> Self {
        let rules = parse_file(BUILT_IN, record).expect("the built-in rules are valid, which a test shows");
        Self { rules: rules.unwrap_or_default(), source: "built-in".to_owned() }
    }

    /// The places of the rules that look at this instance.
    pub fn applicable(&self, key: &InstanceKey) -> Box<[u32]> {
        let places = self.rules.iter().enumerate().filter(|(_, rule)| rule.applies_to(key));
        places.map(|(place, _)| u32::try_from(place).expect("rules are few")).collect()
    }

    /// The place of the rule of this name.
    pub fn place(&self, name: &str) -> Option<u32> {
        self.rules.iter().position(|rule| &*rule.name == name).and_then(|place| u32::try_from(place).ok())
    }
}

/// The rules in force as REST shows them. Lanes have their own, and come to others by a turn.
pub type SharedRules = Arc<RwLock<Arc<RuleSet>>>;

/// CONTRACT §3: the rules of the mission, which hold when no file gives others.
const BUILT_IN: &str = r#"
[[rules]]
name = "cpu-high"
when = "cpu_percent > 90"
severity = "critical"

[[rules]]
name = "memory-high"
when = "memory_percent > 80"
severity = "critical"

[[rules]]
name = "silent"
when = "absent()"
severity = "warning"
"#;

#[cfg(test)]
mod tests;
