//! The text of a condition back to its tree: a plain reader, without a word on errors.
//!
//! It lets tests say conditions in the rule language, and shows that what a case writes means what the case is.

use std::time::Duration;

use super::language::{Comparator, Comparison, Condition, Function, Operator, Term};

/// Reads a whole condition; panics where it is none.
pub(super) fn condition(text: &str) -> Condition {
    let mut reader = Reader { tokens: tokens(text), at: 0 };
    let read = reader.either();
    assert_eq!(reader.at, reader.tokens.len(), "{text} goes on after its end");
    read.unwrap_or_else(|| panic!("{text} is no condition"))
}

/// Reads a whole number and a unit.
pub(super) fn duration(text: &str) -> Duration {
    let (number, unit) = text.split_at(text.find(|c: char| c.is_alphabetic()).expect("a unit"));
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => panic!("{text} is no duration"),
    };
    Duration::from_millis(number.parse::<u64>().expect("a whole number") * millis)
}

fn tokens(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = if first == '`' {
            rest[1..].find('`').expect("a second backquote") + 2
        } else if first.is_ascii_digit() || first == '.' {
            number_length(rest)
        } else if first.is_ascii_alphabetic() || first == '_' {
            rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len())
        } else if [">=", "<=", "==", "!="].iter().any(|sign| rest.starts_with(sign)) {
            2
        } else {
            1
        };
        tokens.push(rest[..length].to_owned());
        rest = rest[length..].trim_start();
    }
    tokens
}

/// Of a number or a duration, whose unit is taken with it. A minus belongs to it only after an `e`.
fn number_length(text: &str) -> usize {
    let mut before = ' ';
    for (at, c) in text.char_indices() {
        let exponent = c == '-' && before.eq_ignore_ascii_case(&'e');
        if !(c.is_ascii_alphanumeric() || c == '.' || exponent) {
            return at;
        }
        before = c;
    }
    text.len()
}

struct Reader {
    tokens: Vec<String>,
    at: usize,
}

impl Reader {
    fn either(&mut self) -> Option<Condition> {
        let mut left = self.both()?;
        while self.takes("or") {
            left = Condition::Or(Box::new(left), Box::new(self.both()?));
        }
        Some(left)
    }

    fn both(&mut self) -> Option<Condition> {
        let mut left = self.negated()?;
        while self.takes("and") {
            left = Condition::And(Box::new(left), Box::new(self.negated()?));
        }
        Some(left)
    }

    fn negated(&mut self) -> Option<Condition> {
        if self.takes("not") {
            return Some(Condition::Not(Box::new(self.negated()?)));
        }
        let start = self.at;
        if let Some(comparison) = self.comparison() {
            return Some(Condition::Compare(comparison));
        }
        // The parenthesis did not open a term, so it opens a condition.
        self.at = start;
        let inner = if self.takes("(") { self.either() } else { None };
        inner.filter(|_| self.takes(")"))
    }

    fn comparison(&mut self) -> Option<Comparison> {
        let left = self.sum()?;
        let comparator = self.one_of(&Comparator::SIGNS)?;
        let right = self.sum()?;
        Some(Comparison { left, comparator, right })
    }

    fn sum(&mut self) -> Option<Term> {
        let mut left = self.product()?;
        while let Some(operator) = self.one_of(&Operator::SIGNS[..2]) {
            left = Term::Arithmetic(Box::new(left), operator, Box::new(self.product()?));
        }
        Some(left)
    }

    fn product(&mut self) -> Option<Term> {
        let mut left = self.atom()?;
        while let Some(operator) = self.one_of(&Operator::SIGNS[2..]) {
            left = Term::Arithmetic(Box::new(left), operator, Box::new(self.atom()?));
        }
        Some(left)
    }

    fn atom(&mut self) -> Option<Term> {
        if self.takes("-") {
            return Some(Term::Negate(Box::new(self.atom()?)));
        }
        if self.takes("(") {
            let inner = self.sum();
            return inner.filter(|_| self.takes(")"));
        }
        if let Some(function) = self.one_of(&Function::NAMES) {
            let open = self.takes("(");
            let metric = name(&self.next()?)?;
            let comma = self.takes(",");
            let width = duration(&self.next()?);
            return (open && comma && self.takes(")")).then_some(Term::Window(function, metric, width));
        }
        let token = self.next()?;
        name(&token).map(Term::Metric).or_else(|| token.parse().ok().map(Term::Number))
    }

    fn next(&mut self) -> Option<String> {
        let token = self.tokens.get(self.at)?;
        self.at += 1;
        Some(token.clone())
    }

    fn takes(&mut self, wanted: &str) -> bool {
        let found = self.tokens.get(self.at).is_some_and(|token| token == wanted);
        self.at += usize::from(found);
        found
    }

    fn one_of<T: Copy>(&mut self, words: &[(&str, T)]) -> Option<T> {
        words.iter().find(|(word, _)| self.takes(word)).map(|(_, meaning)| *meaning)
    }
}

fn name(token: &str) -> Option<String> {
    let bare = token.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let keyword = ["and", "or", "not"].contains(&token);
    let quoted = token.strip_prefix('`').and_then(|rest| rest.strip_suffix('`'));
    quoted.or(if bare && !keyword { Some(token) } else { None }).map(str::to_owned)
}

#[test]
fn the_order_of_precedence_is_or_and_not_comparison_sum_product_minus() {
    let same = |text: &str, spelled_out: &str| assert_eq!(condition(text), condition(spelled_out), "{text}");
    same("a > 1 or b > 1 and c > 1", "(a > 1) or ((b > 1) and (c > 1))");
    same("not a > 1 and b > 1", "(not (a > 1)) and (b > 1)");
    same("a + b * c > 1 - 2 - 3", "(a + (b * c)) > ((1 - 2) - 3)");
    same("-a * b < 1 / 2 / 3", "((-a) * b) < ((1 / 2) / 3)");
    same("a--5>.5", "(a - (-(5))) > 5e-1");
}

#[test]
#[should_panic(expected = "goes on after its end")]
fn comparisons_do_not_chain() {
    condition("a < b < c");
}
