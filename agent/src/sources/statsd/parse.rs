//! StatsD's lines: `name:value|type`, then `|@rate` and DogStatsD's `|#key:value,...`, in any order, and its several
//! values in one line, `name:1:2:3|ms`.
//!
//! Format: Etsy's `docs/metric_types.md`, DogStatsD's datagram format up to v1.3. Whatever arrives, this gives a line or
//! says that it is malformed.

/// One line.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Line<'a> {
    pub(crate) name: &'a str,
    pub(crate) kind: Kind,
    /// Separated by colons; those of [`Kind::Set`] may be any text.
    values: &'a str,
    /// How often each value stands for one that was not sent: 1 / rate.
    pub(crate) weight: f64,
    pub(crate) service: Option<&'a str>,
    pub(crate) instance: Option<&'a str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    /// `ms`, `h` and `d`: spread over a tick, in whatever unit.
    Timer,
    Set,
}

/// What a line is.
#[derive(Debug, PartialEq)]
pub(crate) enum Parsed<'a> {
    Figures(Line<'a>),
    /// DogStatsD's events and service checks, which are no figures, and empty lines.
    Nothing,
    Malformed,
}

/// A gauge's new value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Change {
    To(f64),
    /// `+3` or `-3`: from what it was.
    By(f64),
}

pub(crate) fn parse(line: &[u8]) -> Parsed<'_> {
    let Ok(line) = std::str::from_utf8(line) else { return Parsed::Malformed };
    let line = line.trim_ascii();
    if line.is_empty() || line.starts_with("_e{") || line.starts_with("_sc|") {
        return Parsed::Nothing;
    }
    figures(line).map_or(Parsed::Malformed, Parsed::Figures)
}

fn figures(line: &str) -> Option<Line<'_>> {
    let (name, rest) = line.split_once(':')?;
    let mut parts = rest.split('|');
    let values = parts.next().filter(|values| !values.is_empty())?;
    let kind = match parts.next()? {
        "c" => Kind::Counter,
        "g" => Kind::Gauge,
        "ms" | "h" | "d" => Kind::Timer,
        "s" => Kind::Set,
        _ => return None,
    };
    let mut line = Line {
        name: Some(name).filter(|name| !name.is_empty())?,
        kind,
        values,
        weight: 1.0,
        service: None,
        instance: None,
    };
    for part in parts {
        if let Some(rate) = part.strip_prefix('@') {
            let rate = rate.parse().ok().filter(|rate: &f64| *rate > 0.0 && *rate <= 1.0)?;
            line.weight = 1.0 / rate;
        } else if let Some(tags) = part.strip_prefix('#') {
            // Blanks are no part of a name, and people put one behind a comma.
            for (key, value) in tags.split(',').filter_map(|tag| tag.split_once(':')) {
                let value = value.trim_ascii();
                match key.trim_ascii() {
                    "service" => line.service = Some(value),
                    "instance" => line.instance = Some(value),
                    _ => {}
                }
            }
        }
        // Container ids, timestamps and what later versions may add do not change the figure.
    }
    let is_sound = match kind {
        Kind::Set => true,
        Kind::Gauge => line.changes().all(|change| change.is_some()),
        Kind::Counter | Kind::Timer => line.all_numbers().all(|number| number.is_some()),
    };
    (is_sound && line.weight.is_finite()).then_some(line)
}

impl<'a> Line<'a> {
    /// The values of a counter or timer.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = f64> {
        self.all_numbers().flatten()
    }

    /// The values of a gauge, one after the other.
    pub(crate) fn gauge_changes(&self) -> impl Iterator<Item = Change> {
        self.changes().flatten()
    }

    /// The members of a set: a colon may be part of one.
    pub(crate) fn member(&self) -> &'a str {
        self.values
    }

    fn all_numbers(&self) -> impl Iterator<Item = Option<f64>> {
        self.values.split(':').map(number)
    }

    fn changes(&self) -> impl Iterator<Item = Option<Change>> {
        self.values.split(':').map(|value| {
            let change = if value.starts_with(['+', '-']) { Change::By } else { Change::To };
            number(value).map(change)
        })
    }
}

fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    fn line(text: &str) -> Line<'_> {
        match parse(text.as_bytes()) {
            Parsed::Figures(line) => line,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn each_type_has_its_letters() {
        for (text, kind) in [
            ("a:1|c", Kind::Counter),
            ("a:1|g", Kind::Gauge),
            ("a:1|ms", Kind::Timer),
            ("a:1|h", Kind::Timer),
            ("a:1|d", Kind::Timer),
            ("a:x|s", Kind::Set),
        ] {
            assert_eq!(line(text).kind, kind, "{text}");
        }
    }

    #[test]
    fn a_line_may_have_a_rate_and_tags_in_any_order() {
        for text in [
            "a.b:3|c|@0.1|#service:web,instance:w1,env:x",
            "a.b:3|c|#env,service:web,instance:w1|@0.1|c:id|T1",
            "a.b:3|c|@0.1|#service:web, instance:w1 ",
        ] {
            let line = line(text);
            assert_eq!((line.name, line.weight), ("a.b", 10.0), "{text}");
            assert_eq!((line.service, line.instance), (Some("web"), Some("w1")), "{text}");
            assert_eq!(line.numbers().collect::<Vec<_>>(), [3.0]);
        }
        assert_eq!(line("a:1|c|#service:host:8080").service, Some("host:8080"), "a value may have a colon");
    }

    #[test]
    fn a_line_may_have_several_values() {
        assert_eq!(line("a:1:2.5:-3|ms").numbers().collect::<Vec<_>>(), [1.0, 2.5, -3.0]);
        assert_eq!(line("a:x:y|s").member(), "x:y");
    }

    #[test]
    fn a_sign_makes_a_gauge_relative() {
        use Change::{By, To};
        assert_eq!(line("a:1:+2:-3|g").gauge_changes().collect::<Vec<_>>(), [To(1.0), By(2.0), By(-3.0)]);
    }

    #[test]
    fn what_is_no_figure_is_passed_over() {
        for text in ["", "  ", "_e{1,1}:a|b", "_sc|a|0"] {
            assert_eq!(parse(text.as_bytes()), Parsed::Nothing, "{text}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_malformed() {
        for text in [
            "a",
            "a:",
            "a:1",
            "a:|c",
            ":1|c",
            "a:1|",
            "a:1|x",
            "a:x|c",
            "a:1:x|ms",
            "a:NaN|g",
            "a:inf|c",
            "a:-inf|g",
            "a:1e999|c",
            "a:1|c|@0",
            "a:1|c|@2",
            "a:1|c|@x",
            "a:1|c|@NaN",
            "a:1|c|@-1",
            "a:1|c|@1e-320",
            "a:+|g",
        ] {
            assert_eq!(parse(text.as_bytes()), Parsed::Malformed, "{text}");
        }
        assert_eq!(parse(b"\xff\xfe:1|c"), Parsed::Malformed);
    }

    /// Bytes at random, and good lines with a few bytes changed.
    #[test]
    fn whatever_arrives_nothing_panics_and_every_number_is_finite() {
        const SIGNS: &[u8] = b":|@#,+-.0123456789eEinfNa_ cgmshd\n\xff\xc3";
        let mut rng = StdRng::seed_from_u64(7);
        for _ in 0..200_000 {
            let mut bytes: Vec<u8> = if rng.random_bool(0.5) {
                b"name:1:+2|ms|@0.5|#service:a,instance:b".to_vec()
            } else {
                (0..rng.random_range(0..40)).map(|_| SIGNS[rng.random_range(0..SIGNS.len())]).collect()
            };
            for _ in 0..rng.random_range(0..4) {
                if !bytes.is_empty() {
                    let at = rng.random_range(0..bytes.len());
                    bytes[at] =
                        if rng.random_bool(0.5) { SIGNS[rng.random_range(0..SIGNS.len())] } else { rng.random() };
                }
            }
            if let Parsed::Figures(line) = parse(&bytes) {
                assert!(line.numbers().all(f64::is_finite) && line.weight >= 1.0, "{line:?}");
            }
        }
    }
}
