//! Lines of the Prometheus text format 0.0.4, and of OpenMetrics 1.0 as far as it is the same.
//!
//! A sample is `name{label="value",…} value [timestamp]`, followed in OpenMetrics by an exemplar. Timestamps, exemplars,
//! help and units are passed over. The crates for this format are built on a regular expression or grammar engine, which
//! costs more memory than the agent may have in all.

use std::borrow::Cow;

/// A line that matters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Line<'a> {
    Type { family: &'a str, kind: Kind },
    Sample(Sample<'a>),
}

/// What a metric is said to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    Histogram,
    Summary,
    Untyped,
    /// OpenMetrics' info and stateset, and gauge histograms.
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Sample<'a> {
    pub(crate) name: &'a str,
    pub(crate) labels: Labels<'a>,
    /// May be NaN or infinite.
    pub(crate) value: f64,
}

/// What stands between the braces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Labels<'a>(&'a str);

/// It is neither a sample nor a comment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// None for an empty line or another comment.
pub(crate) fn parse(line: &str) -> Result<Option<Line<'_>>, Malformed> {
    let line = line.trim_matches([' ', '\t', '\r']);
    if let Some(comment) = line.strip_prefix('#') {
        return Ok(type_of(comment));
    }
    if line.is_empty() {
        return Ok(None);
    }
    sample(line).map(|sample| Some(Line::Sample(sample))).ok_or(Malformed)
}

fn type_of(comment: &str) -> Option<Line<'_>> {
    let mut words = comment.split_ascii_whitespace();
    if words.next()? != "TYPE" {
        return None;
    }
    let family = words.next()?;
    let kind = match words.next()? {
        "counter" => Kind::Counter,
        "gauge" => Kind::Gauge,
        "histogram" => Kind::Histogram,
        "summary" => Kind::Summary,
        "untyped" | "unknown" => Kind::Untyped,
        _ => Kind::Other,
    };
    Some(Line::Type { family, kind })
}

fn sample(line: &str) -> Option<Sample<'_>> {
    let name_ends = line.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'))?;
    let (name, rest) = line.split_at(name_ends);
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let rest = rest.trim_start_matches([' ', '\t']);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(inside) => {
            let ends = closing_brace(inside)?;
            (&inside[..ends], &inside[ends + 1..])
        }
        None => ("", rest),
    };
    let labels = Labels(labels);
    if !labels.is_sound() {
        return None;
    }
    // Rust reads what Go writes: +Inf, -Inf, NaN in any case, 1e+06.
    let value = rest.split_ascii_whitespace().next()?.parse().ok()?;
    Some(Sample { name, labels, value })
}

/// Where the first brace outside of quotes stands.
fn closing_brace(text: &str) -> Option<usize> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_quoted => is_escaped = true,
            b'"' => is_quoted = !is_quoted,
            b'}' if !is_quoted => return Some(at),
            _ => {}
        }
    }
    None
}

impl<'a> Labels<'a> {
    /// The value of a label.
    pub(crate) fn get(self, label: &str) -> Option<Cow<'a, str>> {
        self.pairs().flatten().find_map(|(name, value)| (name == label).then(|| unescaped(value)))
    }

    /// The same text for the same series, as long as its target does not change the order of its labels.
    pub(crate) fn text(self) -> &'a str {
        self.0
    }

    fn is_sound(self) -> bool {
        self.pairs().all(|pair| pair.is_some())
    }

    /// Names and values, the latter as they are written. None once for what is no pair.
    fn pairs(self) -> impl Iterator<Item = Option<(&'a str, &'a str)>> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            rest = rest.trim_matches([' ', '\t']);
            if rest.is_empty() {
                return None;
            }
            let pair = pair(rest);
            // A comma may also stand behind the last pair.
            rest = pair.map_or("", |(_, _, after)| after.trim_start_matches([' ', '\t']));
            match rest.strip_prefix(',') {
                Some(after) => rest = after,
                None if rest.is_empty() => {}
                None => {
                    return Some({
                        rest = "";
                        None
                    });
                }
            }
            Some(pair.map(|(name, value, _)| (name, value)))
        })
    }
}

/// The first pair and what follows it.
fn pair(text: &str) -> Option<(&str, &str, &str)> {
    let (name, rest) = text.split_once('=')?;
    let value = rest.trim_start_matches([' ', '\t']).strip_prefix('"')?;
    let mut is_escaped = false;
    let ends = value.bytes().position(|byte| {
        let is_end = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        is_end
    })?;
    let name = name.trim_matches([' ', '\t']);
    (!name.is_empty()).then_some((name, &value[..ends], &value[ends + 1..]))
}

/// `\\`, `\"` and `\n`; other backslashes stand for themselves.
fn unescaped(value: &str) -> Cow<'_, str> {
    if !value.contains('\\') {
        return Cow::Borrowed(value);
    }
    let mut text = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match (c, c == '\\') {
            (_, true) => match chars.next() {
                Some('n') => text.push('\n'),
                Some(mark @ ('\\' | '"')) => text.push(mark),
                Some(other) => text.extend(['\\', other]),
                None => text.push('\\'),
            },
            (c, false) => text.push(c),
        }
    }
    Cow::Owned(text)
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    fn sample(line: &str) -> Sample<'_> {
        match parse(line) {
            Ok(Some(Line::Sample(sample))) => sample,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn a_sample_has_a_name_labels_and_a_value() {
        for (line, name, value) in [
            ("up 1", "up", 1.0),
            ("a:b_c  -1.5e+06 1395066363000", "a:b_c", -1.5e6),
            ("x{} 2", "x", 2.0),
            (r#"x{a="b"} 3"#, "x", 3.0),
            (r#"x {a="b", c = "}",} +4 "#, "x", 4.0),
            (r#"x_bucket{le="+Inf"} 5 # {trace_id="abc"} 0.67 1.2"#, "x_bucket", 5.0),
            ("x 6\r", "x", 6.0),
        ] {
            let sample = sample(line);
            assert_eq!((sample.name, sample.value), (name, value), "{line}");
        }
        assert_eq!(sample("x +Inf").value, f64::INFINITY);
        assert!(sample("x NaN").value.is_nan());
    }

    #[test]
    fn labels_are_found_and_unescaped() {
        let labels = sample(r#"x{path="C:\\dir\"q\"\n", le="0.5" ,empty=""} 1"#).labels;
        assert_eq!(labels.get("path").as_deref(), Some("C:\\dir\"q\"\n"));
        assert_eq!(labels.get("le").as_deref(), Some("0.5"));
        assert_eq!(labels.get("empty").as_deref(), Some(""));
        assert_eq!(labels.get("pat"), None);
    }

    #[test]
    fn of_comments_types_matter() {
        assert_eq!(parse("# TYPE a counter"), Ok(Some(Line::Type { family: "a", kind: Kind::Counter })));
        assert_eq!(parse("# TYPE a stateset"), Ok(Some(Line::Type { family: "a", kind: Kind::Other })));
        for line in ["", "  ", "#", "# HELP a b", "# EOF", "# TYPE a", "# anything"] {
            assert_eq!(parse(line), Ok(None), "{line}");
        }
    }

    #[test]
    fn what_is_neither_is_malformed() {
        for line in [
            "a",
            "a b",
            "{} 1",
            "1a 1",
            "a{ 1",
            "a{b} 1",
            "a{b=c} 1",
            "a{b=\"c} 1",
            "a{b=\"c\"d=\"e\"} 1",
            "a{=\"c\"} 1",
            "a{b=\"c\"}",
            "é 1",
            "<html>",
        ] {
            assert_eq!(parse(line), Err(Malformed), "{line}");
        }
    }

    #[test]
    fn whatever_a_target_says_nothing_panics() {
        const SIGNS: &[u8] = b"abc_:{}=\",\\ \t#0123456789.+-eINFnaTYPE\xc3\xa9";
        let mut rng = StdRng::seed_from_u64(7);
        for _ in 0..200_000 {
            let mut bytes = br#"x_bucket{le="0.5",path="a\"b"} 1e3 5 # {t="a"} 1"#.to_vec();
            if rng.random_bool(0.5) {
                bytes = (0..rng.random_range(0..40)).map(|_| SIGNS[rng.random_range(0..SIGNS.len())]).collect();
            }
            for _ in 0..rng.random_range(0..4) {
                if !bytes.is_empty() {
                    let at = rng.random_range(0..bytes.len());
                    bytes[at] = SIGNS[rng.random_range(0..SIGNS.len())];
                }
            }
            if let Ok(Some(Line::Sample(sample))) = parse(&String::from_utf8_lossy(&bytes)) {
                sample.labels.get("le");
            }
        }
    }
}
