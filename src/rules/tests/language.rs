//! What a case is made of: rules as a tree, and the reports of one instance.
//!
//! Kept apart from the engine's own types on purpose: the reference and the engine meet only in the rule file's text
//! and in the events, so that neither can pass on a misunderstanding to the other.

use std::time::Duration;

/// The rules, and what one instance reported, in order of arrival.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) rules: Vec<RuleSpec>,
    pub(crate) reports: Vec<Report>,
    /// How fancifully the rule file is written; 0: plainly, which is what a failing case shrinks to.
    pub(crate) style: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RuleSpec {
    pub(crate) name: String,
    pub(crate) when: Condition,
    pub(crate) r#for: Duration,
    pub(crate) keep_firing_for: Duration,
    pub(crate) clear: Option<Condition>,
    /// `record = "every"` instead of `"episode"`.
    pub(crate) record_every: bool,
}

/// One report; each metric at most once.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Report {
    /// The bare reading, in nanoseconds since 1970.
    pub(crate) at: i64,
    pub(crate) metrics: Vec<(String, f64)>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Condition {
    Compare(Comparison),
    And(Box<Condition>, Box<Condition>),
    Or(Box<Condition>, Box<Condition>),
    Not(Box<Condition>),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Comparison {
    pub(crate) left: Term,
    pub(crate) comparator: Comparator,
    pub(crate) right: Term,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparator {
    Above,
    AtLeast,
    Below,
    AtMost,
    Equal,
    Unequal,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Term {
    Metric(String),
    /// Never negative: the language has a minus, but its numbers have no sign.
    Number(f64),
    Negate(Box<Term>),
    Arithmetic(Box<Term>, Operator, Box<Term>),
    Window(Function, String, Duration),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operator {
    Plus,
    Minus,
    Times,
    Over,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Function {
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
    pub(crate) const SIGNS: [(&'static str, Self); 6] = [
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
    pub(crate) const SIGNS: [(&'static str, Self); 4] =
        [("+", Self::Plus), ("-", Self::Minus), ("*", Self::Times), ("/", Self::Over)];
}

impl Function {
    /// Every function as it is written.
    pub(crate) const NAMES: [(&'static str, Self); 9] = [
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
pub(crate) fn word_of<T: PartialEq>(words: &[(&'static str, T)], wanted: &T) -> &'static str {
    words.iter().find(|(_, meaning)| meaning == wanted).map(|(word, _)| *word).expect("every meaning has a word")
}

impl Report {
    pub(crate) fn reading(&self, metric: &str) -> Option<f64> {
        self.metrics.iter().find(|(name, _)| name == metric).map(|(_, value)| *value)
    }
}

impl Condition {
    /// The comparisons in the order of the text.
    pub(crate) fn comparisons(&self) -> Vec<&Comparison> {
        match self {
            Self::Compare(comparison) => vec![comparison],
            Self::And(left, right) | Self::Or(left, right) => [left.comparisons(), right.comparisons()].concat(),
            Self::Not(inner) => inner.comparisons(),
        }
    }

    /// The window functions in the order of the text: function, metric, width.
    pub(crate) fn windows(&self) -> Vec<(Function, &str, Duration)> {
        self.comparisons().iter().flat_map(|c| [c.left.windows(), c.right.windows()].concat()).collect()
    }
}

impl Term {
    /// The metric that is named first.
    pub(crate) fn first_metric(&self) -> Option<&str> {
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
