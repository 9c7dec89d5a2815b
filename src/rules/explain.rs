//! Why a rule fires for an instance, or why it does not: one reason, and the steps that lead to it, in order.
//!
//! Asked of the instance as it is, with its last report: what `/explain` tells somebody who wonders about a page, or
//! about one that did not come. Each situation has a code of its own, which never changes its meaning.

use std::time::Duration;

use super::{
    Firing, Progress, Rule,
    condition::{Comparison, Condition, Facts, Truth, Unknown, When},
};
use crate::{
    model::{Name, Row, Timestamp},
    units::show_duration,
};

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $code:literal,)*) => {
        /// The situation that a rule is in for an instance.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Reason {
            $($(#[$doc])* $variant,)*
        }

        impl Reason {
            /// Every reason there is.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The code that REST shows.
            pub const fn code(self) -> &'static str {
                match self {
                    $(Self::$variant => $code,)*
                }
            }
        }
    };
}

reasons! {
    /// It fires, and its condition is true.
    Firing = "firing",
    /// It fires: it is clear, but not for as long as `keep_firing_for` says.
    Clearing = "clearing",
    /// It fires: its condition is no longer true, but it is not clear either.
    NotClear = "not_clear",
    /// It fires: nothing says whether it is clear.
    ClearUnknown = "clear_unknown",
    /// It fires, and its instance is silent: no evidence, no resolve.
    FiringSilent = "firing_silent",
    /// Its condition is true, but not for as long as `for` says.
    Pending = "pending",
    /// It would fire, or resolve, by the last report, which came before the rule did.
    AwaitingReport = "awaiting_report",
    /// Its condition is false.
    ConditionFalse = "condition_false",
    /// The last report lacks a metric.
    MetricMissing = "metric_missing",
    /// A window has no reading in it.
    WindowEmpty = "window_empty",
    /// A window has too few readings.
    TooFewPoints = "too_few_points",
    /// A division by zero.
    DivisionByZero = "division_by_zero",
    /// A result that is no finite number.
    NotFinite = "not_finite",
    /// The instance has not sent a report yet, as far as the server remembers.
    NoReport = "no_report",
    /// The instance is silent: there is nothing to judge.
    Silent = "silent",
    /// The instance left in order.
    Left = "left",
    /// None of the rule's `services` is the instance's.
    ServiceNotMatched = "service_not_matched",
    /// The rule's `exclude` names the instance's service.
    ServiceExcluded = "service_excluded",
    /// None of the rule's `instances` is the instance's.
    InstanceNotMatched = "instance_not_matched",
    /// `absent()`: the instance has not reported often enough to be missed.
    NotArmed = "not_armed",
    /// `absent()`: the instance was heard.
    Heard = "heard",
    /// `absent(metric, …)`: the instance has never sent the metric.
    MetricNeverSent = "metric_never_sent",
    /// `absent(metric, …)`: the metric was in a report lately.
    MetricHeard = "metric_heard",
}

/// How an instance is, beside what its rules have made of it.
#[derive(Clone, Copy)]
pub struct Situation<'a> {
    /// Its last report: when it was read, and its readings.
    pub last_report: Option<(Timestamp, &'a [(Name, f64)])>,
    /// Whether it left in order.
    pub left: bool,
    /// Whether it has been silent for long.
    pub stale: bool,
    /// Whether it has reported often enough to be missed.
    pub armed: bool,
    /// How long it has been silent.
    pub silent: Duration,
    /// How long it may be silent when a rule does not say.
    pub patience: Duration,
    /// For how long its reports have lacked a metric; `None`: they never had it.
    pub lacking: &'a dyn Fn(&str) -> Option<Duration>,
}

/// One comparison, asked of the last report.
#[derive(Clone, Debug, PartialEq)]
pub struct Compared {
    /// The comparison as text.
    pub text: String,
    /// The value of its left side, when it has one.
    pub left: Option<f64>,
    /// The value of its right side, when it has one.
    pub right: Option<f64>,
    /// Whether it holds; `None`: unknown.
    pub holds: Option<bool>,
    /// Why that is unknown.
    pub unknown: Option<String>,
}

/// Why a rule fires, or why it does not.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// `firing`, `pending` or `ok`.
    pub state: &'static str,
    /// The situation.
    pub reason: Reason,
    /// The whole answer in a sentence.
    pub sentence: String,
    /// What was looked at, in order: what it is, and what was found.
    pub steps: Vec<(&'static str, String)>,
    /// The comparisons of its condition.
    pub comparisons: Vec<Compared>,
    /// Since when its condition is true without firing, by the agent's clock as it stands now.
    pub pending_since: Option<Timestamp>,
    /// Since when it is clear without resolving, by the same clock.
    pub clear_since: Option<Timestamp>,
}

/// Explains the rule at this place of the instance's plan.
pub fn explain(progress: &Progress, place: usize, situation: &Situation<'_>) -> Explanation {
    let rule = &progress.plan.rules[place];
    let mut answer = Answer { progress, rule, place, situation, steps: Vec::new(), comparisons: Vec::new() };
    answer.steps.push(("match", "the rule looks at this instance".to_owned()));
    let (reason, sentence) = answer.reason();
    let (steps, comparisons) = (answer.steps, answer.comparisons);
    let (pending, firing) = (progress.pending_of(place), progress.firing_of(place));
    Explanation {
        state: match (firing, pending) {
            (Some(_), _) => "firing",
            (None, Some(_)) => "pending",
            (None, None) => "ok",
        },
        reason,
        sentence,
        steps,
        comparisons,
        pending_since: pending.map(|pending| progress.clock.bare(pending.since)),
        clear_since: firing.and_then(|firing| firing.clear_since).map(|since| progress.clock.bare(since)),
    }
}

struct Answer<'a> {
    progress: &'a Progress,
    rule: &'a Rule,
    place: usize,
    situation: &'a Situation<'a>,
    steps: Vec<(&'static str, String)>,
    comparisons: Vec<Compared>,
}

impl Answer<'_> {
    fn reason(&mut self) -> (Reason, String) {
        let Situation { left, stale, silent, .. } = *self.situation;
        let heard = match (left, stale) {
            (true, _) => "the instance left in order".to_owned(),
            (false, true) => format!("the instance has been silent for {}", seconds(silent)),
            (false, false) => format!("the instance was heard {} ago", seconds(silent)),
        };
        self.steps.push(("presence", heard.clone()));
        match &self.rule.when {
            When::Report(condition) => self.of_condition(condition, &heard),
            When::Silent { after } => self.of_silence(*after),
            When::Lacking { metric, after } => self.of_lacking(metric, *after),
        }
    }

    fn of_condition(&mut self, condition: &Condition, heard: &str) -> (Reason, String) {
        let (situation, rule) = (self.situation, self.rule);
        let Some((read_at, metrics)) = situation.last_report else {
            self.steps.push(("last_report", "there was none".to_owned()));
            if let Some(firing) = self.progress.firing_of(self.place) {
                let sentence = format!("fires since {}, and no report since says anything", firing.alert.triggered_at);
                return (Reason::ClearUnknown, sentence);
            }
            return (Reason::NoReport, "no report of this instance has been judged yet".to_owned());
        };
        let said: Vec<String> = metrics.iter().map(|(name, value)| format!("{name} {value}")).collect();
        self.steps.push(("last_report", format!("read at {read_at}: {}", said.join(", "))));
        let now = self.progress.clock.latest.unwrap_or(read_at);
        let row = Row::new(metrics);
        let facts = Facts {
            metrics: row.readings(),
            series: &self.progress.series,
            taken: true,
            generation: rule.generation,
            now,
        };
        self.comparisons = condition.comparisons().into_iter().map(|c| compared(c, &facts)).collect();
        for comparison in &self.comparisons {
            self.steps.push(("comparison", comparison.to_string()));
        }
        let truth = condition.ask(&facts);
        self.steps.push(("condition", format!("`{}` is {}", rule.when, word(truth))));
        if let Some(firing) = self.progress.firing_of(self.place) {
            return self.of_firing(firing, truth, &facts, heard);
        }
        if situation.left {
            return (Reason::Left, heard.to_owned());
        }
        if situation.stale {
            return (Reason::Silent, format!("{heard}: there is nothing to judge"));
        }
        match truth {
            Truth::True => self.of_pending(),
            Truth::False => (Reason::ConditionFalse, format!("`{}` is false by the last report", rule.when)),
            Truth::Unknown => unknown(condition, &facts),
        }
    }

    fn of_pending(&mut self) -> (Reason, String) {
        let rule = self.rule;
        let Some(pending) = self.progress.pending_of(self.place) else {
            let sentence = "true by the last report, which came before the rule did: the next one is judged by it";
            return (Reason::AwaitingReport, sentence.to_owned());
        };
        let since = self.progress.clock.bare(pending.since);
        let fires = since.plus(rule.r#for);
        self.steps.push(("for", format!("true since {since}, `for` is {}", show_duration(rule.r#for))));
        (Reason::Pending, format!("true since {since}: it fires with the first true report read at {fires} or later"))
    }

    /// An alert of a condition on reports.
    fn of_firing(&mut self, firing: &Firing, truth: Truth, facts: &Facts<'_>, heard: &str) -> (Reason, String) {
        let rule = self.rule;
        let alert = &firing.alert;
        self.steps.push(("alert", format!("fires since {}: {}", alert.triggered_at, alert.summary)));
        if self.situation.stale || self.situation.left {
            let until = if self.situation.left { "it is 10 min that it left" } else { "the instance is forgotten" };
            let sentence = format!("{heard}: the alert goes on firing until a report clears it, or until {until}");
            return (Reason::FiringSilent, sentence);
        }
        if truth == Truth::True {
            let since = alert.triggered_at;
            return (
                Reason::Firing,
                format!("`{}` is true by the last report; the alert fires since {since}", rule.when),
            );
        }
        let (clear, text) = match &rule.clear {
            Some(clear) => (clear.ask(facts), clear.to_string()),
            None => (truth.negated(), format!("not ({})", rule.when)),
        };
        self.steps.push(("clear", format!("`{text}` is {}", word(clear))));
        match (clear, firing.clear_since) {
            (Truth::True | Truth::Unknown, Some(since)) => self.clearing(since),
            (Truth::True, None) => {
                let sentence = "clear by the last report, which came before the rule did: the next one is judged by it";
                (Reason::AwaitingReport, sentence.to_owned())
            }
            (Truth::Unknown, None) => {
                (Reason::ClearUnknown, format!("whether `{text}` is true is unknown by the last report"))
            }
            _ => {
                let keep = rule.keep_firing_for;
                let long = if keep.is_zero() { String::new() } else { format!(" for {}", show_duration(keep)) };
                (Reason::NotClear, format!("it resolves once `{text}` is true{long}"))
            }
        }
    }

    fn clearing(&mut self, since: Timestamp) -> (Reason, String) {
        let keep = self.rule.keep_firing_for;
        let since = self.progress.clock.bare(since);
        self.steps.push(("keep_firing_for", format!("clear since {since}, it is {}", show_duration(keep))));
        let until = since.plus(keep);
        (
            Reason::Clearing,
            format!("clear since {since}: it resolves with the first clear report read at {until} or later"),
        )
    }

    fn of_silence(&mut self, after: Option<Duration>) -> (Reason, String) {
        let Situation { left, armed, silent, patience, .. } = *self.situation;
        if let Some(found) = self.of_absence(silent) {
            return found;
        }
        if left {
            return (Reason::Left, "the instance left in order: its silence is expected".to_owned());
        }
        if !armed {
            let sentence = "the instance has not sent three reports over at least 10 s yet: it is not missed before";
            return (Reason::NotArmed, sentence.to_owned());
        }
        let due = after.unwrap_or(patience);
        (Reason::Heard, format!("heard {} ago: it fires after {} of silence", seconds(silent), seconds(due)))
    }

    fn of_lacking(&mut self, metric: &Name, after: Duration) -> (Reason, String) {
        let Situation { left, armed, silent, patience, lacking, .. } = *self.situation;
        let lacking = lacking(metric);
        let found = match lacking {
            Some(lacking) => format!("{metric} was last in a report {} ago", seconds(lacking)),
            None => format!("{metric} was never in a report"),
        };
        self.steps.push(("metric", found.clone()));
        if let Some(found) = self.of_absence(lacking.unwrap_or_default()) {
            return found;
        }
        if left {
            return (Reason::Left, "the instance left in order".to_owned());
        }
        if lacking.is_none() {
            return (Reason::MetricNeverSent, format!("{found}: what was never there is not missed"));
        }
        if !armed {
            let sentence = "the instance has not sent three reports over at least 10 s yet: nothing is missed before";
            return (Reason::NotArmed, sentence.to_owned());
        }
        if silent >= patience.min(after) {
            let sentence = format!("the instance itself has been silent for {}", seconds(silent));
            return (Reason::Silent, sentence);
        }
        (Reason::MetricHeard, format!("{found}: it fires after {}", seconds(after)))
    }

    /// An alert of a rule on silence, if it fires.
    fn of_absence(&mut self, absent: Duration) -> Option<(Reason, String)> {
        let firing = self.progress.firing_of(self.place)?;
        let alert = &firing.alert;
        self.steps.push(("alert", format!("fires since {}: {}", alert.triggered_at, alert.summary)));
        Some(match firing.clear_since {
            Some(since) => self.clearing(since),
            None => (Reason::Firing, format!("absent for {}", seconds(absent))),
        })
    }
}

/// The first comparison that leaves an unknown condition undecided: not one whose answer would change nothing.
fn undecided<'a>(condition: &'a Condition, facts: &Facts<'_>) -> Option<&'a Comparison> {
    if condition.ask(facts) != Truth::Unknown {
        return None;
    }
    match condition {
        Condition::Compare(comparison) => Some(comparison),
        Condition::Not(condition) => undecided(condition, facts),
        Condition::All(conditions) | Condition::Any(conditions) => {
            conditions.iter().find_map(|condition| undecided(condition, facts))
        }
    }
}

/// Why a condition has no answer.
fn unknown(condition: &Condition, facts: &Facts<'_>) -> (Reason, String) {
    let why = undecided(condition, facts).and_then(|comparison| comparison.ask(facts).err());
    let reason = match why {
        Some(Unknown::Missing(_)) => Reason::MetricMissing,
        Some(Unknown::Empty(_)) => Reason::WindowEmpty,
        Some(Unknown::TooFew(_)) => Reason::TooFewPoints,
        Some(Unknown::DivisionByZero) => Reason::DivisionByZero,
        // A condition is unknown only where a comparison is.
        Some(Unknown::NotFinite) | None => Reason::NotFinite,
    };
    let why = why.map_or_else(String::new, |why| format!(": {why}"));
    (reason, format!("whether it is true is unknown{why}"))
}

fn compared(comparison: &Comparison, facts: &Facts<'_>) -> Compared {
    let answer = comparison.ask(facts);
    Compared {
        text: comparison.to_string(),
        left: comparison.left.value(facts).ok(),
        right: comparison.right.value(facts).ok(),
        holds: answer.ok(),
        unknown: answer.err().map(|why| why.to_string()),
    }
}

impl std::fmt::Display for Compared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let side = |value: Option<f64>| value.map_or_else(|| "unknown".to_owned(), |value| value.to_string());
        let answer = match (self.holds, &self.unknown) {
            (Some(true), _) => "true",
            (Some(false), _) => "false",
            (None, Some(why)) => why,
            (None, None) => "unknown",
        };
        write!(f, "`{}`: {} and {}: {answer}", self.text, side(self.left), side(self.right))
    }
}

fn word(truth: Truth) -> &'static str {
    match truth {
        Truth::True => "true",
        Truth::False => "false",
        Truth::Unknown => "unknown",
    }
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}
