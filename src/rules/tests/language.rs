//! What a case is made of: rules as a tree, and the reports of one instance.
//!
//! Kept apart from the engine's own types on purpose: the reference and the engine meet only in the rule file's text
//! and in the events, so that neither can pass on a misunderstanding to the other.

use std::time::Duration;

/// The rules, and what one instance reported, in order of arrival.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) rules: Vec<RuleSpec>,
    pub(super) reports: Vec<Report>,
    /// How fancifully the rule file is written; 0: plainly, which is what a failing case shrinks to.
    pub(super) style: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct RuleSpec {
    pub(super) name: String,
    pub(super) when: Condition,
    pub(super) r#for: Duration,
    pub(super) keep_firing_for: Duration,
    pub(super) clear: Option<Condition>,
    /// `record = "every"` instead of `"episode"`.
    pub(super) record_every: bool,
}

/// One report; each metric at most once.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Report {
    /// The bare reading, in nanoseconds since 1970.
    pub(super) at: i64,
    pub(super) metrics: Vec<(String, f64)>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Condition {
    Compare(Comparison),
    And(Box<Condition>, Box<Condition>),
    Or(Box<Condition>, Box<Condition>),
    Not(Box<Condition>),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Comparison {
    pub(super) left: Term,
    pub(super) comparator: Comparator,
    pub(super) right: Term,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparator {
    Above,
    AtLeast,
    Below,
    AtMost,
    Equal,
    Unequal,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Term {
    Metric(String),
    /// Never negative: the language has a minus, but its numbers have no sign.
    Number(f64),
    Negate(Box<Term>),
    Arithmetic(Box<Term>, Operator, Box<Term>),
    Window(Function, String, Duration),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Plus,
    Minus,
    Times,
    Over,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    Avg,
    Min,
    Max,
    Sum,
    Count,
    Stddev,
    Rate,
    Increase,
    Delta,
}

impl Comparator {
    /// Every comparator as it is written.
    pub(super) const SIGNS: [(&'static str, Self); 6] = [
        (">", Self::Above),
        (">=", Self::AtLeast),
        ("<", Self::Below),
        ("<=", Self::AtMost),
        ("==", Self::Equal),
        ("!=", Self::Unequal),
    ];
}

impl Operator {
    /// Every operator as it is written.
    pub(super) const SIGNS: [(&'static str, Self); 4] =
        [("+", Self::Plus), ("-", Self::Minus), ("*", Self::Times), ("/", Self::Over)];
}

impl Function {
    /// Every function as it is written.
    pub(super) const NAMES: [(&'static str, Self); 9] = [
        ("avg", Self::Avg),
        ("min", Self::Min),
        ("max", Self::Max),
        ("sum", Self::Sum),
        ("count", Self::Count),
        ("stddev", Self::Stddev),
        ("rate", Self::Rate),
        ("increase", Self::Increase),
        ("delta", Self::Delta),
    ];
}

/// How one of the words above is written.
pub(super) fn word_of<T: PartialEq>(words: &[(&'static str, T)], wanted: &T) -> &'static str {
    words.iter().find(|(_, meaning)| meaning == wanted).map(|(word, _)| *word).expect("every meaning has a word")
}

impl Report {
    pub(super) fn reading(&self, metric: &str) -> Option<f64> {
        self.metrics.iter().find(|(name, _)| name == metric).map(|(_, value)| *value)
    }
}

impl Condition {
    /// The comparisons in the order of the text.
    pub(super) fn comparisons(&self) -> Vec<&Comparison> {
        match self {
            Self::Compare(comparison) => vec![comparison],
            Self::And(left, right) | Self::Or(left, right) => [left.comparisons(), right.comparisons()].concat(),
            Self::Not(inner) => inner.comparisons(),
        }
    }

    /// The window functions in the order of the text: function, metric, width.
    pub(super) fn windows(&self) -> Vec<(Function, &str, Duration)> {
        self.comparisons().iter().flat_map(|c| [c.left.windows(), c.right.windows()].concat()).collect()
    }
}

impl Term {
    /// The metric that is named first.
    pub(super) fn first_metric(&self) -> Option<&str> {
        match self {
            Self::Metric(name) | Self::Window(_, name, _) => Some(name),
            Self::Number(_) => None,
            Self::Negate(inner) => inner.first_metric(),
            Self::Arithmetic(left, _, right) => left.first_metric().or_else(|| right.first_metric()),
        }
    }

    fn windows(&self) -> Vec<(Function, &str, Duration)> {
        match self {
            Self::Metric(_) | Self::Number(_) => Vec::new(),
            Self::Negate(inner) => inner.windows(),
            Self::Arithmetic(left, _, right) => [left.windows(), right.windows()].concat(),
            Self::Window(function, metric, width) => vec![(*function, metric, *width)],
        }
    }
}
