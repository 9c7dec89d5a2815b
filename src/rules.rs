//! Alert rules: what they say, and what a report means to them.
//!
//! Pure (I6): no clock, lock, log, I/O or thread. Time comes in with the reading, what an instance has been through is
//! its [`Progress`], and what happens comes out as an [`Outcome`].

mod clock;
mod condition;
mod evaluate;
mod explain;
mod fault;
mod file;
mod lines;
mod never;
mod parse;
mod plan;
mod progress;
mod range;
mod receiver;
mod sieve;
mod suggest;
mod summary;
mod text;
mod update;
mod warnings;
mod window;
mod words;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use globset::GlobSet;
use parking_lot::RwLock;

pub use clock::Clock;
pub use condition::{Comparator, Comparison, Condition, Facts, Held, Operator, Term, Truth, Unknown, When, Window};
pub use evaluate::{Hush, Reading, evaluate, evaluate_one, evaluate_sifted, look};
pub use explain::{Compared, Explanation, Reason, Situation, explain};
pub use fault::{FileError, Location};
pub use file::{FileContent, parse_file};
pub use plan::{Plan, WindowsOf};
pub use progress::{Carried, Firing, Outcome, Pending, Progress, SeriesPart, Trail};
pub use receiver::{MAX_RECEIVERS, ReceiverConfig, Way, WebhookConfig};
pub use sieve::{Sieve, Sifting};
pub use suggest::{misspelt_metric, nearest};
pub use summary::Summary;
pub use warnings::{Doubt, Warning, warnings};
pub use window::{Bucket, Coarse, Function, Point, Series};
pub use words::words;

use crate::{
    model::{InstanceKey, Name, Severity, Timestamp},
    units::show_duration,
};

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
    /// Its place among them.
    pub place: usize,
    /// When it last began anew, in microseconds since 1970: a rule of this name that asked something else before has
    /// another one. Windows and pending timers are of one generation.
    pub generation: u64,
    /// The condition as it was written.
    pub when_text: Name,
    /// The condition.
    pub when: When,
    /// When its alerts resolve, as it was written.
    pub clear_text: Option<Name>,
    /// When its alerts resolve; `None`: when the condition is false.
    pub clear: Option<Condition>,
    /// How long the condition must hold before it fires.
    pub r#for: Duration,
    /// How long it must be clear before it resolves.
    pub keep_firing_for: Duration,
    /// After how long an alert that still fires is told of again; `None`: never.
    pub repeat: Option<Duration>,
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
    pub runbook_url: Option<Name>,
    /// Who is told of its alerts; `None`: every receiver there is.
    pub receivers: Option<Arc<[Name]>>,
    /// Where its condition stands in its file.
    pub location: Location,
    /// Where its `clear` stands.
    pub clear_location: Option<Location>,
    /// The metrics that it names, and where.
    pub mentions: Vec<(Name, Location)>,
}

/// Why a rule does not look at an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// None of its `services` is the instance's.
    Service,
    /// Its `exclude` names the instance's service.
    Excluded,
    /// None of its `instances` is the instance's.
    Instance,
}

impl Rule {
    /// Whether it looks at this instance; if not, why.
    pub fn applies_to(&self, key: &InstanceKey) -> Result<(), Mismatch> {
        let within = |globs: &Option<Globs>, name| globs.as_ref().is_none_or(|globs| globs.set.is_match(name));
        if !within(&self.services, key.service()) {
            return Err(Mismatch::Service);
        }
        if self.exclude.as_ref().is_some_and(|globs| globs.set.is_match(key.service())) {
            return Err(Mismatch::Excluded);
        }
        if within(&self.instances, key.instance()) { Ok(()) } else { Err(Mismatch::Instance) }
    }

    /// Whether it looks at every instance there is.
    fn applies_to_all(&self) -> bool {
        self.services.is_none() && self.exclude.is_none() && self.instances.is_none()
    }

    /// Every window that it reads.
    pub fn windows(&self) -> impl Iterator<Item = &Window> {
        let conditions = self.when.condition().into_iter().chain(&self.clear);
        conditions.flat_map(Condition::windows)
    }

    /// What it asks, in one form however it was written: as long as this is the same, what is pending goes on.
    fn question(&self) -> String {
        let clear = self.clear.as_ref().map_or_else(String::new, |clear| format!(" clear {clear}"));
        format!("{}{clear} for {}", self.when, show_duration(self.r#for))
    }
}

/// What is remembered of a rule from one load to the next: by what it asked it is known whether it has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleRecord {
    /// Its name.
    pub name: Name,
    /// What it asked.
    pub question: String,
    /// Its generation.
    pub generation: u64,
}

/// The rules in force, in the order of their file, which is the order in which they are evaluated.
#[derive(Clone, Debug)]
pub struct RuleSet {
    /// The rules.
    pub rules: Vec<Arc<Rule>>,
    /// Where they come from, for people: `built-in` or the file.
    pub source: String,
    /// Who can be told of their alerts.
    pub receivers: Arc<[ReceiverConfig]>,
    /// What passes over reports that make none of the rules true.
    pub sieve: Arc<Sieve>,
    /// The plan of an instance that every rule looks at: most are such, and they share it.
    everything: Arc<Plan>,
    /// The plan of the server's own accounts.
    accounts: Arc<Plan>,
}

impl RuleSet {
    /// Where the rules of a server without a rule file come from.
    pub const BUILT_IN: &str = "built-in";

    /// The rules that a file gave, none of which was ever in force.
    pub fn new(rules: Vec<Rule>, source: String) -> Self {
        let placed = rules.into_iter().enumerate().map(|(place, rule)| Arc::new(Rule { place, ..rule }));
        let rules: Vec<_> = placed.collect();
        let everything = Arc::new(Plan::new(rules.clone()));
        let sieve = Arc::new(Sieve::new(&rules));
        Self { rules, source, receivers: Arc::default(), sieve, everything, accounts: accounts() }
    }

    /// What a file says, which is called `source`; where it has no rules, the built-in ones hold.
    pub fn of_file(content: FileContent, source: String, record: Option<Record>) -> Self {
        let rules = content.rules.map_or_else(|| Self::built_in(record), |rules| Self::new(rules, source));
        Self { receivers: content.receivers.into(), ..rules }
    }

    /// The same rules, in force after those of `before`: those that ask what they asked there go on as the same
    /// generation, the others begin anew at `now`.
    #[must_use]
    pub fn succeeding(self, before: &[RuleRecord], now: Timestamp) -> Self {
        let fresh = now.as_micros().unsigned_abs();
        let generation = |rule: &Arc<Rule>| {
            let question = rule.question();
            let known = before.iter().find(|record| record.name == rule.name && record.question == question);
            Rule { generation: known.map_or(fresh, |record| record.generation), ..(**rule).clone() }
        };
        let rules = self.rules.iter().map(generation).collect();
        Self { receivers: self.receivers, ..Self::new(rules, self.source) }
    }

    /// The rules of a server without a rule file: `cpu-high`, `memory-high` and `silent`.
    pub fn built_in(record: Option<Record>) -> Self {
        let rules = parse_file(BUILT_IN, record).expect("the built-in rules are valid, which a test shows");
        Self::new(rules.rules.unwrap_or_default(), Self::BUILT_IN.to_owned())
    }

    /// How many of the rules are asked about every report, since the sieve does not know them.
    pub fn n_asked(&self) -> usize {
        self.everything.asked.len()
    }

    /// Whether it is the plan of an instance that every rule in force looks at.
    pub fn is_all(&self, plan: &Arc<Plan>) -> bool {
        Arc::ptr_eq(plan, &self.everything)
    }

    /// What is to be remembered of the rules for the next load.
    pub fn records(&self) -> Vec<RuleRecord> {
        let record = |rule: &Arc<Rule>| RuleRecord {
            name: rule.name.clone(),
            question: rule.question(),
            generation: rule.generation,
        };
        self.rules.iter().map(record).collect()
    }

    /// The rules that look at this instance.
    pub fn plan(&self, key: &InstanceKey) -> Arc<Plan> {
        if key.service() == ACCOUNTS {
            return self.accounts.clone();
        }
        if self.everything.is_for_all {
            return self.everything.clone();
        }
        let rules: Vec<_> = self.rules.iter().filter(|rule| rule.applies_to(key).is_ok()).cloned().collect();
        if rules.len() == self.rules.len() { self.everything.clone() } else { Arc::new(Plan::new(rules)) }
    }

    /// What the operator should hear of them as they come into force: what is surely wrong, with its place.
    pub fn warnings(&self) -> Vec<String> {
        let warnings = warnings(&self.rules).into_iter().filter(|warning| warning.doubt == Doubt::Warning);
        warnings.map(|warning| format!("{}: {warning}", self.source)).collect()
    }

    /// The rule of this name.
    pub fn rule(&self, name: &str) -> Option<&Arc<Rule>> {
        self.rules.iter().find(|rule| &*rule.name == name)
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

/// The service as which the server reports on its own accounts. Its one rule looks at nothing else, and no other rule at it.
pub const ACCOUNTS: &str = "gopherwatch:accounts";

/// CONTRACT §7.8: a difference that lasts 30 s.
const ACCOUNTS_RULE: &str = r#"
[[rules]]
name = "accounts-balance"
when = "balance_difference > 0"
for = "30s"
severity = "critical"
summary = "the accounts of the server itself are out by {value}: a fault of GopherWatch, please report it"
"#;

fn accounts() -> Arc<Plan> {
    let content = parse_file(ACCOUNTS_RULE, None).expect("the built-in rules are valid, which a test shows");
    // Of one generation for ever, and beside the rules in force, so that no reload makes it begin anew.
    let own = |rule| Arc::new(Rule { place: usize::MAX, ..rule });
    Arc::new(Plan::new(content.rules.unwrap_or_default().into_iter().map(own).collect()))
}

#[cfg(test)]
pub(crate) mod tests;
