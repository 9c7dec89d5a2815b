//! The language of conditions: text to [`Condition`], or where it went wrong and what was expected there.
//!
//! ```text
//! condition  = absent | comparison
//! absent     = "absent" "(" [ duration ] ")"
//! comparison = term ( ">" | ">=" | "<" | "<=" | "==" | "!=" ) term      -- at least one side is a metric
//! term       = metric | number
//! metric     = [A-Za-z_][A-Za-z0-9_]*  |  "`" any name "`"
//! ```

use std::time::Duration;

use gopherwatch_proto::is_valid_name;
use winnow::{
    ModalResult, Parser,
    ascii::{float, multispace0},
    combinator::{alt, cut_err, delimited, eof, fail, opt, preceded, terminated},
    error::{ContextError, StrContext, StrContextValue},
    token::{one_of, take_till, take_while},
};

use super::condition::{Comparator, Condition, Term};
use crate::units::parse_duration;

/// Words of the language, which are no bare metric names.
const KEYWORDS: [&str; 4] = ["and", "or", "not", "absent"];

/// A condition that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SyntaxError {
    /// Where, in bytes from the condition's first.
    pub(super) offset: usize,
    /// What was expected there.
    pub(super) message: String,
}

/// Reads a whole condition.
pub(super) fn parse_condition(text: &str) -> Result<Condition, SyntaxError> {
    let whole = delimited(multispace0, condition, (multispace0, eof.context(expected("the end of the condition"))));
    let parsed = { whole }
        .parse(text)
        .map_err(|err| SyntaxError { offset: err.offset(), message: describe(err.inner(), &text[err.offset()..]) })?;
    match parsed {
        Condition::Compare { left: Term::Number(_), right: Term::Number(_), .. } => {
            Err(SyntaxError { offset: 0, message: "compares two numbers: name a metric on one side".to_owned() })
        }
        parsed => Ok(parsed),
    }
}

fn describe(error: &ContextError, rest: &str) -> String {
    let wanted: Vec<String> = error
        .context()
        .filter_map(|context| match context {
            StrContext::Expected(StrContextValue::Description(what)) => Some((*what).to_owned()),
            _ => None,
        })
        .collect();
    let found = match rest.split_whitespace().next() {
        Some(word) => format!("found `{}`", word.chars().take(40).collect::<String>()),
        None => "found the end".to_owned(),
    };
    match wanted.first() {
        Some(what) => format!("expected {what}, {found}"),
        None => format!("expected a condition such as `cpu_percent > 90`, {found}"),
    }
}

fn expected(what: &'static str) -> StrContext {
    StrContext::Expected(StrContextValue::Description(what))
}

fn condition(input: &mut &str) -> ModalResult<Condition> {
    alt((absent, comparison)).parse_next(input)
}

fn absent(input: &mut &str) -> ModalResult<Condition> {
    let open = ("absent", multispace0, '(', multispace0);
    let close = (multispace0, ')').context(expected("a duration such as `30s`, or `)`"));
    preceded(open, terminated(opt(duration), cut_err(close))).map(|after| Condition::Absent { after }).parse_next(input)
}

fn comparison(input: &mut &str) -> ModalResult<Condition> {
    let left = term.parse_next(input)?;
    multispace0.parse_next(input)?;
    let comparator = comparator.context(expected("one of > >= < <= == !=")).parse_next(input)?;
    multispace0.parse_next(input)?;
    let right = term.parse_next(input)?;
    Ok(Condition::Compare { left, comparator, right })
}

fn comparator(input: &mut &str) -> ModalResult<Comparator> {
    for (sign, comparator) in Comparator::SIGNS {
        if let Some(rest) = input.strip_prefix(sign) {
            *input = rest;
            return Ok(comparator);
        }
    }
    fail.parse_next(input)
}

fn term(input: &mut &str) -> ModalResult<Term> {
    alt((number.map(Term::Number), quoted, bare)).context(expected("a metric's name or a number")).parse_next(input)
}

fn number(input: &mut &str) -> ModalResult<f64> {
    // winnow's float would also take `inf` and `nan`, which no reading can have.
    let starts = |input: &&str| input.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c));
    if !starts(input) {
        return fail.parse_next(input);
    }
    float.verify(|number: &f64| number.is_finite()).parse_next(input)
}

fn bare(input: &mut &str) -> ModalResult<Term> {
    let head = one_of(('A'..='Z', 'a'..='z', '_'));
    let tail = take_while(0.., ('A'..='Z', 'a'..='z', '0'..='9', '_'));
    (head, tail)
        .take()
        .verify(|name: &str| !KEYWORDS.contains(&name))
        .map(|name: &str| Term::Metric(name.into()))
        .parse_next(input)
}

fn quoted(input: &mut &str) -> ModalResult<Term> {
    let name = take_till(1.., '`').verify(|name: &str| is_valid_name(name));
    delimited('`', cut_err(name.context(expected("a metric's name in backquotes"))), cut_err('`'))
        .map(|name: &str| Term::Metric(name.into()))
        .parse_next(input)
}

fn duration(input: &mut &str) -> ModalResult<Duration> {
    let word = take_while(1.., |c: char| c.is_ascii_alphanumeric());
    word.verify_map(|word: &str| parse_duration(word).ok().filter(|after| !after.is_zero())).parse_next(input)
}
