//! The language of conditions: text to [`When`], or where it went wrong and what was expected there.
//!
//! ```text
//! when       = absent | condition
//! absent     = "absent" "(" [ duration | metric "," duration ] ")"
//! condition  = all { "or" all }
//! all        = not { "and" not }
//! not        = "not" not | comparison
//! comparison = sum [ ( ">" | ">=" | "<" | "<=" | "==" | "!=" ) sum ]     -- at least one side names a metric
//! sum        = product { ( "+" | "-" ) product }
//! product    = factor { ( "*" | "/" ) factor }
//! factor     = "-" factor | number | call | metric | "(" condition ")"
//! call       = function "(" metric "," duration ")"
//! metric     = [A-Za-z_][A-Za-z0-9_]*, no keyword  |  "`" any name "`"
//! ```
//!
//! One look ahead decides everywhere, and nothing is read twice, so that the time is that of the text's length.
//! Parentheses hold conditions as well as terms: which of them it was is known once they are read.

use std::time::Duration;

use gopherwatch_proto::is_valid_name;
use winnow::{
    LocatingSlice, Parser, Stateful,
    ascii::{float, multispace0},
    error::{ErrMode, ParserError},
    stream::{Location, Stream},
    token::{take_till, take_while},
};

use super::{
    condition::{Comparator, Comparison, Condition, Operator, Term, When, Window},
    suggest::nearest,
    window::Function,
};
use crate::units::parse_duration;

/// Longest window (CONTRACT §3).
const MAX_WINDOW: Duration = Duration::from_secs(86_400);
/// Deepest nesting of parentheses, `not` and `-`. Each level takes some stack; people get by with three.
const MAX_DEPTH: usize = 32;
/// Words that are no bare metric names, besides the functions.
const KEYWORDS: [&str; 4] = ["and", "or", "not", "absent"];
const ABSENT_ALONE: &str = "absent() stands alone: give what is beside it a rule of its own";
/// Words that people have for our functions.
const ALIASES: [(&str, &str); 9] = [
    ("average", "avg"),
    ("mean", "avg"),
    ("minimum", "min"),
    ("maximum", "max"),
    ("total", "sum"),
    ("number", "count"),
    ("deviation", "stddev"),
    ("irate", "rate"),
    ("nodata", "absent"),
];
/// What other languages write, and what is written here.
const FOREIGN: [(&str, &str); 9] = [
    ("=>", ">="),
    ("=<", "<="),
    ("<>", "!="),
    ("===", "=="),
    ("=", "=="),
    ("&&", "and"),
    ("||", "or"),
    ("!", "not"),
    ("%", "the number alone: percentages have no sign"),
];

/// A condition that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SyntaxError {
    /// Where, in bytes from the condition's first.
    pub(super) offset: usize,
    /// What was expected there.
    pub(super) message: String,
}

/// A metric's name, and where in the text it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mention {
    pub(super) offset: usize,
    pub(super) metric: String,
}

/// What the text says, and the metrics that it names.
type Read<T> = Result<(T, Vec<Mention>), SyntaxError>;

/// Reads `when`.
pub(super) fn parse_when(text: &str) -> Read<When> {
    whole(
        text,
        |input| {
            if next_word(input) == Some("absent") { absent(input) } else { condition(input).map(When::Report) }
        },
    )
}

/// Reads `clear`: a condition on reports.
pub(super) fn parse_clear(text: &str) -> Read<Condition> {
    whole(text, condition)
}

/// Whether a metric's name can stand without backquotes.
pub(super) fn is_bare(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !is_keyword(name)
}

fn is_keyword(word: &str) -> bool {
    KEYWORDS.contains(&word) || function(word).is_some()
}

fn function(word: &str) -> Option<Function> {
    Function::NAMES.into_iter().find(|(name, _)| *name == word).map(|(_, function)| function)
}

/// What is known beside the text that is left.
#[derive(Clone, Debug, Default)]
struct Beside {
    depth: usize,
    mentions: Vec<Mention>,
}

type Input<'a> = Stateful<LocatingSlice<&'a str>, Beside>;
type Parsed<T> = Result<T, ErrMode<SyntaxError>>;

impl ParserError<Input<'_>> for SyntaxError {
    type Inner = Self;

    fn from_input(input: &Input<'_>) -> Self {
        Self { offset: input.current_token_start(), message: String::new() }
    }

    fn into_inner(self) -> Result<Self::Inner, Self> {
        Ok(self)
    }
}

/// What a piece of text turned out to be, where it began, and what is left behind it.
struct Piece<'a> {
    offset: usize,
    what: What,
    rest: (usize, &'a str),
}

enum What {
    Truth(Condition),
    Value(Term),
}

impl Piece<'_> {
    fn truth(self) -> Parsed<Condition> {
        let (offset, rest) = self.rest;
        match self.what {
            What::Truth(condition) => Ok(condition),
            What::Value(_) => fault(offset, told(rest, "one of > >= < <= == !=")),
        }
    }

    fn value(self) -> Parsed<Term> {
        match self.what {
            What::Value(term) => Ok(term),
            What::Truth(condition) => {
                let condition = condition.to_string();
                fault(
                    self.offset,
                    format!("expected a metric or a number, found the condition `{}`", shown(&condition)),
                )
            }
        }
    }
}

/// A piece that began at `offset` and ends here.
fn piece<'a>(input: &mut Input<'a>, offset: usize, what: What) -> Piece<'a> {
    // Blanks are always there to be skipped.
    let _ = blanks(input);
    Piece { offset, what, rest: (input.current_token_start(), input.input.as_ref()) }
}

fn whole<T>(text: &str, read: impl FnOnce(&mut Input<'_>) -> Parsed<T>) -> Read<T> {
    let mut input = Stateful { input: LocatingSlice::new(text), state: Beside::default() };
    let result = read(&mut input).and_then(|read| {
        blanks(&mut input)?;
        if input.input.is_empty() { Ok(read) } else { expected(&input, "`and`, `or` or the end") }
    });
    match result {
        Ok(read) => Ok((read, input.state.mentions)),
        Err(ErrMode::Cut(err) | ErrMode::Backtrack(err)) => Err(err),
        // Only streams that are read in parts are ever incomplete.
        Err(ErrMode::Incomplete(_)) => Err(SyntaxError { offset: text.len(), message: "incomplete".to_owned() }),
    }
}

fn absent(input: &mut Input<'_>) -> Parsed<When> {
    word(input)?;
    symbol(input, "(", "`(`")?;
    blanks(input)?;
    let when = if input.input.starts_with(')') {
        When::Silent { after: None }
    } else if input.input.starts_with(|c: char| c.is_ascii_digit()) {
        When::Silent { after: Some(duration(input)?) }
    } else if input.input.starts_with(|c: char| c.is_ascii_alphabetic() || "_`".contains(c)) {
        let metric = metric(input)?;
        symbol(input, ",", "`,` and a duration such as `30s`")?;
        When::Lacking { metric: metric.as_str().into(), after: duration(input)? }
    } else {
        return expected(input, "a duration such as `30s`, a metric, or `)`");
    };
    symbol(input, ")", "`)`")?;
    if matches!(next_word(input), Some("and" | "or")) {
        return fault(input.current_token_start(), ABSENT_ALONE);
    }
    Ok(when)
}

fn condition(input: &mut Input<'_>) -> Parsed<Condition> {
    any(input)?.truth()
}

fn any<'a>(input: &mut Input<'a>) -> Parsed<Piece<'a>> {
    list(input, "or", all, Condition::Any)
}

fn all<'a>(input: &mut Input<'a>) -> Parsed<Piece<'a>> {
    list(input, "and", not, Condition::All)
}

fn list<'a>(
    input: &mut Input<'a>,
    separator: &str,
    part: fn(&mut Input<'a>) -> Parsed<Piece<'a>>,
    join: fn(Vec<Condition>) -> Condition,
) -> Parsed<Piece<'a>> {
    let first = part(input)?;
    if next_word(input) != Some(separator) {
        return Ok(first);
    }
    let offset = first.offset;
    let mut conditions = vec![first.truth()?];
    while next_word(input) == Some(separator) {
        word(input)?;
        conditions.push(part(input)?.truth()?);
    }
    Ok(piece(input, offset, What::Truth(join(conditions))))
}

fn not<'a>(input: &mut Input<'a>) -> Parsed<Piece<'a>> {
    if next_word(input) != Some("not") {
        return comparison(input);
    }
    let offset = input.current_token_start();
    word(input)?;
    let inner = deeper(input, not)?.truth()?;
    Ok(piece(input, offset, What::Truth(Condition::Not(Box::new(inner)))))
}

fn comparison<'a>(input: &mut Input<'a>) -> Parsed<Piece<'a>> {
    let left = sum(input)?;
    blanks(input)?;
    let Some(comparator) = comparator(input) else { return Ok(left) };
    let offset = left.offset;
    let left = left.value()?;
    let right = sum(input)?;
    let comparison = Comparison { left, comparator, right: right.value()? };
    if comparison.sides().0.first_metric().is_none() {
        return fault(offset, "compares two numbers: name a metric on one side");
    }
    blanks(input)?;
    if input.input.starts_with(['<', '>', '=']) {
        return expected(input, "`and`, `or` or the end: a comparison has two sides");
    }
    Ok(piece(input, offset, What::Truth(Condition::Compare(comparison))))
}

fn comparator(input: &mut Input<'_>) -> Option<Comparator> {
    let (sign, comparator) = Comparator::SIGNS.into_iter().find(|(sign, _)| input.input.starts_with(sign))?;
    let after = &input.input[sign.len()..];
    // `===`, `<>` and `=<` are none of ours: they are told below, where a term was expected.
    if matches!(sign, "==") && after.starts_with('=') || sign == "<" && after.starts_with('>') {
        return None;
    }
    input.next_slice(sign.len());
    Some(comparator)
}

fn sum<'a>(input: &mut Input<'a>) -> Parsed<Piece<'a>> {
    arithmetic(input, &[('+', Operator::Add), ('-', Operator::Subtract)], product)
}

fn product<'a>(input: &mut Input<'a>) -> Parsed<Piece<'a>> {
    arithmetic(input, &[('*', Operator::Multiply), ('/', Operator::Divide)], factor)
}

fn arithmetic<'a>(
    input: &mut Input<'a>,
    operators: &[(char, Operator)],
    part: fn(&mut Input<'a>) -> Parsed<Piece<'a>>,
) -> Parsed<Piece<'a>> {
    let first = part(input)?;
    let offset = first.offset;
    let mut first = Some(first);
    let mut operands: Option<(Term, Vec<(Operator, Term)>)> = None;
    loop {
        blanks(input)?;
        let next = input.input.chars().next();
        let Some((_, operator)) = operators.iter().find(|(sign, _)| next == Some(*sign)) else { break };
        if let Some(first) = first.take() {
            operands = Some((first.value()?, Vec::new()));
        }
        input.next_slice(1);
        let operand = part(input)?.value()?;
        if let Some((_, rest)) = &mut operands {
            rest.push((*operator, operand));
        }
    }
    match (first, operands) {
        (Some(first), _) => Ok(first),
        (None, Some((first, rest))) => {
            Ok(piece(input, offset, What::Value(Term::Arithmetic { first: Box::new(first), rest })))
        }
        (None, None) => unreachable!("the first operand was taken only to begin the list of operands"),
    }
}

fn factor<'a>(input: &mut Input<'a>) -> Parsed<Piece<'a>> {
    blanks(input)?;
    let offset = input.current_token_start();
    let term = match input.input.chars().next() {
        Some('-') => {
            input.next_slice(1);
            match deeper(input, factor)?.value()? {
                Term::Number(number) => Term::Number(-number),
                term => Term::Negated(Box::new(term)),
            }
        }
        Some('(') => {
            input.next_slice(1);
            let inner = deeper(input, any)?;
            symbol(input, ")", "`)`")?;
            return Ok(piece(input, offset, inner.what));
        }
        Some(c) if c.is_ascii_digit() || c == '.' => Term::Number(number(input)?),
        Some('`') => Term::Metric(metric(input)?.as_str().into()),
        Some(c) if c.is_ascii_alphabetic() || c == '_' => {
            let name = next_word(input).unwrap_or_default();
            match function(name) {
                Some(function) => Term::Window(call(input, function)?),
                None if name == "absent" && calls(input, name) => return fault(offset, ABSENT_ALONE),
                None if !is_keyword(name) && calls(input, name) => return unknown_function(offset, name),
                None => Term::Metric(metric(input)?.as_str().into()),
            }
        }
        _ => return expected(input, "a metric's name or a number"),
    };
    Ok(piece(input, offset, What::Value(term)))
}

/// Whether a parenthesis follows the word.
fn calls(input: &Input<'_>, name: &str) -> bool {
    input.input[name.len()..].trim_start().starts_with('(')
}

fn unknown_function<T>(offset: usize, name: &str) -> Parsed<T> {
    let known = Function::NAMES.map(|(name, _)| name);
    // Prometheus's names end so.
    let word = name.strip_suffix("_over_time").unwrap_or(name);
    let words = known.into_iter().chain(["absent", "not"]).map(|word| (word, word)).chain(ALIASES);
    let is_one = words.clone().map(|(known, _)| known).find(|known| *known == word);
    let meant = is_one.or_else(|| nearest(word, words.clone().map(|(known, _)| known)));
    let meant = meant.and_then(|word| words.clone().find(|(known, _)| *known == word));
    let hint = match meant {
        Some((_, near)) => format!("did you mean `{near}`?"),
        None => format!("there are {}", known.join(", ")),
    };
    fault(offset, format!("unknown function `{}`: {hint}", shown(name)))
}

fn call(input: &mut Input<'_>, function: Function) -> Parsed<Window> {
    let offset = input.current_token_start();
    let name = word(input)?;
    blanks(input)?;
    if !input.input.starts_with('(') {
        return fault(
            offset,
            format!("`{name}` is a function: write {name}(metric, 5m), or `{name}` in backquotes if it is a metric"),
        );
    }
    input.next_slice(1);
    blanks(input)?;
    let metric = metric(input)?.as_str().into();
    symbol(input, ",", "`,` and a window such as `5m`")?;
    blanks(input)?;
    let offset = input.current_token_start();
    let span = duration(input)?;
    if span > MAX_WINDOW {
        return fault(offset, "a window is at most 24h");
    }
    symbol(input, ")", "`)`")?;
    Ok(Window { function, metric, span })
}

fn number(input: &mut Input<'_>) -> Parsed<f64> {
    let offset = input.current_token_start();
    let number: Result<f64, ErrMode<SyntaxError>> = float.parse_next(input);
    let Some(number) = number.ok().filter(|number| number.is_finite()) else {
        return fault(offset, "expected a number such as 90, 0.5 or 1e9");
    };
    if input.input.starts_with(|c: char| c.is_ascii_alphanumeric() || "_.".contains(c)) {
        return fault(
            offset,
            "expected a number such as 90, 0.5 or 1e9: numbers have no unit, and a metric whose name begins with a digit \
             stands in backquotes",
        );
    }
    Ok(number)
}

/// A metric's name, bare or in backquotes.
fn metric(input: &mut Input<'_>) -> Parsed<String> {
    blanks(input)?;
    let offset = input.current_token_start();
    let metric = if input.input.starts_with('`') {
        input.next_slice(1);
        let name: &str = take_till(0.., '`').parse_next(input)?;
        if !is_valid_name(name) {
            return fault(
                offset,
                "expected a metric's name in backquotes: 1 to 128 of A-Z a-z 0-9 _ . : / -, the first a letter or digit",
            );
        }
        symbol(input, "`", "a closing backquote")?;
        name.to_owned()
    } else {
        match next_word(input) {
            Some(name) if is_keyword(name) => {
                return fault(
                    offset,
                    format!(
                        "expected a metric's name or a number, found the keyword `{name}`: a metric of that name stands in backquotes"
                    ),
                );
            }
            Some(name) => {
                input.next_slice(name.len());
                name.to_owned()
            }
            None => return expected(input, "a metric's name"),
        }
    };
    input.state.mentions.push(Mention { offset, metric: metric.clone() });
    Ok(metric)
}

fn duration(input: &mut Input<'_>) -> Parsed<Duration> {
    blanks(input)?;
    let offset = input.current_token_start();
    let text: &str = take_while(0.., |c: char| c.is_ascii_alphanumeric() || c == '.').parse_next(input)?;
    match parse_duration(text) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        Ok(_) => fault(offset, "expected a duration longer than 0"),
        Err(_) => {
            let found = found(&input.input[..], text);
            fault(offset, format!("expected a duration such as 500ms, 30s, 5m, 1h or 7d, {found}"))
        }
    }
}

/// Reads the parts of a nested condition, unless it is nested too deeply.
fn deeper<'a>(input: &mut Input<'a>, read: fn(&mut Input<'a>) -> Parsed<Piece<'a>>) -> Parsed<Piece<'a>> {
    if input.state.depth == MAX_DEPTH {
        return fault(input.current_token_start(), format!("nested more than {MAX_DEPTH} deep"));
    }
    input.state.depth += 1;
    let piece = read(input)?;
    input.state.depth -= 1;
    Ok(piece)
}

fn blanks(input: &mut Input<'_>) -> Parsed<()> {
    multispace0.void().parse_next(input)
}

/// The word that comes next, which stays where it is.
fn next_word<'a>(input: &mut Input<'a>) -> Option<&'a str> {
    // Blanks are always there to be skipped.
    let _ = blanks(input);
    let rest: &'a str = input.input.as_ref();
    let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
    Some(&rest[..end]).filter(|word| word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_'))
}

/// Takes the word that comes next.
fn word<'a>(input: &mut Input<'a>) -> Parsed<&'a str> {
    match next_word(input) {
        Some(word) => {
            input.next_slice(word.len());
            Ok(word)
        }
        None => expected(input, "a word"),
    }
}

fn symbol(input: &mut Input<'_>, sign: &str, what: &str) -> Parsed<()> {
    blanks(input)?;
    if input.input.starts_with(sign) {
        input.next_slice(sign.len());
        Ok(())
    } else {
        expected(input, what)
    }
}

fn fault<T>(offset: usize, message: impl Into<String>) -> Parsed<T> {
    Err(ErrMode::Cut(SyntaxError { offset, message: message.into() }))
}

fn expected<T>(input: &Input<'_>, what: &str) -> Parsed<T> {
    fault(input.current_token_start(), told(input.input.as_ref(), what))
}

/// What was expected where `rest` stands, and what was found, with what was probably meant.
fn told(rest: &str, what: &str) -> String {
    let foreign = FOREIGN.into_iter().find(|(sign, _)| rest.starts_with(sign));
    let word = rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or_default();
    let hint = match foreign {
        Some((_, ours)) => format!(": write {ours}"),
        None if word.chars().any(char::is_uppercase) && is_keyword(&word.to_lowercase()) => {
            format!(": words of the language are in lower case, `{}`", word.to_lowercase())
        }
        None => match nearest(word, KEYWORDS[..2].iter().copied()).filter(|_| what.contains("`and`")) {
            Some(near) => format!(": did you mean `{near}`?"),
            None => String::new(),
        },
    };
    format!("expected {what}, {}{hint}", found(rest, ""))
}

fn found(rest: &str, taken: &str) -> String {
    match (taken, rest.split_whitespace().next()) {
        ("", None) => "found the end".to_owned(),
        ("", Some(word)) => format!("found `{}`", shown(word)),
        (taken, _) => format!("found `{}`", shown(taken)),
    }
}

/// The beginning of the operator's own text.
fn shown(text: &str) -> String {
    text.chars().take(40).collect()
}
