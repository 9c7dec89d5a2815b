//! A case's rules as the text of a rule file, written as variously as people write.
//!
//! Spaces, parentheses that change nothing, backquotes, units, quotes and the order of fields come from the case's
//! style, so that the same case always gives the same text.

use std::time::Duration;

use super::{
    language::{Case, Comparator, Comparison, Condition, Function, Operator, RuleSpec, Term, word_of},
    read,
};

impl Case {
    /// The rule file.
    pub(crate) fn toml(&self) -> String {
        let mut whims = Whims(self.style);
        self.rules.iter().map(|rule| rule_text(rule, &mut whims)).collect()
    }
}

/// Small surprises, always the same for one style; none for style 0.
struct Whims(u64);

impl Whims {
    fn one_in(&mut self, n: u64) -> bool {
        // Marsaglia's xorshift64, which leaves 0 at 0.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 != 0 && (self.0 >> 32).is_multiple_of(n)
    }
}

fn rule_text(rule: &RuleSpec, whims: &mut Whims) -> String {
    let mut fields = vec![format!("name = \"{}\"", rule.name), field("when", &rule.when, whims)];
    for (name, duration) in [("for", rule.r#for), ("keep_firing_for", rule.keep_firing_for)] {
        // No waiting is the default, and may be written out.
        if !duration.is_zero() || whims.one_in(3) {
            fields.push(format!("{name} = \"{}\"", duration_text(duration, whims)));
        }
    }
    fields.extend(rule.clear.as_ref().map(|clear| field("clear", clear, whims)));
    match rule.record_every {
        true => fields.push("record = \"every\"".to_owned()),
        false if whims.one_in(3) => fields.push("record = 'episode'".to_owned()),
        false => {}
    }
    if whims.one_in(3) {
        fields.reverse();
    }
    format!("[[rules]]\n{}\n\n", fields.join("\n"))
}

fn field(name: &str, condition: &Condition, whims: &mut Whims) -> String {
    let mut writer = Writer { out: String::new(), joined: true, whims };
    writer.condition(condition, Level::Or);
    let text = writer.out;
    if whims.one_in(6) {
        let lines = text.replace(" and ", "\n    and ").replace(" or ", "\n    or ");
        return format!("{name} = \"\"\"\n    {lines}\n\"\"\"");
    }
    let quote = if whims.one_in(3) { '\'' } else { '"' };
    format!("{name} = {quote}{text}{quote}")
}

fn duration_text(duration: Duration, whims: &mut Whims) -> String {
    let millis = duration.as_millis();
    let fitting = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)].into_iter().filter(
        |(_, size)| {
            // 0d would be legal, but nobody writes it.
            millis.is_multiple_of(*size) && (millis >= *size || *size <= 1_000)
        },
    );
    let mut fitting = fitting.peekable();
    loop {
        let (unit, size) = fitting.next().expect("cases have whole milliseconds");
        // The largest unit, or now and then a smaller one: 60s for 1m.
        if fitting.peek().is_none() || !whims.one_in(3) {
            return format!("{}{unit}", millis / size);
        }
    }
}

fn number_text(number: f64, whims: &mut Whims) -> String {
    let plain = number.to_string();
    if plain.len() > 20 || whims.one_in(6) {
        let scientific = format!("{number:e}");
        return if whims.one_in(3) { scientific.to_uppercase() } else { scientific };
    }
    match plain.strip_prefix("0.") {
        Some(decimals) if whims.one_in(2) => format!(".{decimals}"),
        _ if !plain.contains('.') && whims.one_in(6) => format!("{plain}.0"),
        _ => plain,
    }
}

/// How tightly an expression holds together, the loosest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Or,
    And,
    Not,
    Comparison,
    Sum,
    Product,
    Minus,
    Atom,
}

struct Writer<'a> {
    out: String,
    /// Whether the next token follows without a space in a plain text.
    joined: bool,
    whims: &'a mut Whims,
}

impl Writer<'_> {
    /// Writes it where nothing looser than `loosest` may stand bare.
    fn condition(&mut self, condition: &Condition, loosest: Level) {
        let level = match condition {
            Condition::Or(..) => Level::Or,
            Condition::And(..) => Level::And,
            Condition::Not(_) => Level::Not,
            Condition::Compare(_) => Level::Comparison,
        };
        let n_parentheses = self.open(level < loosest);
        match condition {
            // The right side of its own level stands in parentheses, so that the text says how the tree is built.
            Condition::Or(left, right) => {
                self.condition(left, Level::Or);
                self.token("or");
                self.condition(right, Level::And);
            }
            Condition::And(left, right) => {
                self.condition(left, Level::And);
                self.token("and");
                self.condition(right, Level::Not);
            }
            Condition::Not(inner) => {
                self.token("not");
                self.condition(inner, Level::Not);
            }
            Condition::Compare(Comparison { left, comparator, right }) => {
                self.term(left, Level::Sum);
                self.token(word_of(&Comparator::SIGNS, comparator));
                self.term(right, Level::Sum);
            }
        }
        self.close(n_parentheses);
    }

    fn term(&mut self, term: &Term, loosest: Level) {
        let level = match term {
            Term::Arithmetic(_, Operator::Plus | Operator::Minus, _) => Level::Sum,
            Term::Arithmetic(_, Operator::Times | Operator::Over, _) => Level::Product,
            Term::Negate(_) => Level::Minus,
            Term::Metric(_) | Term::Number(_) | Term::Window(..) => Level::Atom,
        };
        let n_parentheses = self.open(level < loosest);
        match term {
            Term::Metric(name) => self.name(name),
            Term::Number(number) => {
                let text = number_text(*number, self.whims);
                self.token(&text);
            }
            Term::Negate(inner) => {
                self.token("-");
                self.joined = true;
                self.term(inner, Level::Minus);
            }
            Term::Arithmetic(left, operator, right) => {
                let right_level = if level == Level::Sum { Level::Product } else { Level::Minus };
                self.term(left, level);
                self.token(word_of(&Operator::SIGNS, operator));
                self.term(right, right_level);
            }
            Term::Window(function, metric, width) => {
                self.token(word_of(&Function::NAMES, function));
                self.joined = true;
                self.token("(");
                self.name(metric);
                self.token(",");
                let width = duration_text(*width, self.whims);
                self.token(&width);
                self.token(")");
            }
        }
        self.close(n_parentheses);
    }

    fn open(&mut self, needed: bool) -> usize {
        let mut n_parentheses = usize::from(needed);
        while self.whims.one_in(10) {
            n_parentheses += 1;
        }
        (0..n_parentheses).for_each(|_| self.token("("));
        n_parentheses
    }

    fn close(&mut self, n_parentheses: usize) {
        (0..n_parentheses).for_each(|_| self.token(")"));
    }

    fn name(&mut self, name: &str) {
        let bare = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if bare && !self.whims.one_in(8) {
            self.token(name);
        } else {
            self.token(&format!("`{name}`"));
        }
    }

    fn token(&mut self, token: &str) {
        let in_word = |c: char| c.is_ascii_alphanumeric() || "_.`".contains(c);
        let would_merge = self.out.ends_with(in_word) && token.starts_with(in_word);
        let joined = self.joined || token == ")" || token == ",";
        let plain = if joined { "" } else { " " };
        let space = match self.whims.one_in(8) {
            false => plain,
            true if self.whims.one_in(2) => "\t  ",
            true if joined => " ",
            true if would_merge => "  ",
            true => "",
        };
        self.out.push_str(space);
        self.out.push_str(token);
        self.joined = token == "(";
    }
}

/// What the condition looks like in the file, when it is written plainly.
fn plain(condition: &str) -> String {
    field("when", &read::condition(condition), &mut Whims(0))
}

#[test]
fn a_plain_text_has_the_parentheses_it_needs_and_no_more() {
    for text in [
        "a > 90",
        "a + b * c - 1 > -5",
        "a - (b - c) > 1",
        "a / (b / c) > 1",
        "(a + b) * c > -(a + b)",
        "-a * b > 0.5",
        "a > 1 and b > 2 or c > 3",
        "a > 1 and (b > 2 or c > 3)",
        "a > 1 or (b > 2 or c > 3)",
        "not a > 1 and b > 2",
        "not (a > 1 and b > 2)",
        "not not a > 1",
        "avg(a, 5m) > stddev(`d/e`, 90s)",
        "a > 1e300",
    ] {
        assert_eq!(plain(text), format!("when = \"{text}\""));
    }
    assert_eq!(plain("((a)>(90))"), "when = \"a > 90\"");
    assert_eq!(plain("(a + b) + c > 1"), "when = \"a + b + c > 1\"");
}

#[test]
fn words_never_run_together_whatever_the_style() {
    let condition = read::condition("not a > 1e3 and `d/e` < 5 or rate(a, 60s) == 0.5");
    for style in 0..1_000 {
        let mut whims = Whims(style);
        let mut writer = Writer { out: String::new(), joined: true, whims: &mut whims };
        writer.condition(&condition, Level::Or);
        assert_eq!(read::condition(&writer.out), condition, "style {style}: {}", writer.out);
    }
}
