//! Query parameters: each known, given once and well-formed, or refused by its name. A filter with a typing error
//! would otherwise answer another question than the one asked.

use percent_encoding::percent_decode_str;
use warp::http::StatusCode;

use super::problem::Problem;
use crate::model::Timestamp;

/// The query as it came: names and values, percent-decoded.
pub(super) type Pairs = Vec<(String, String)>;

/// Most characters of a client's own text that an error repeats.
const SHOWN: usize = 60;

/// The parameters of one request, all of them known.
#[derive(Debug)]
pub(super) struct Parameters(Pairs);

impl Parameters {
    /// Takes `pairs` if all of them are among `known`, none twice and none empty.
    pub(super) fn new(pairs: Pairs, known: &[&str]) -> Result<Self, Problem> {
        for (place, (name, value)) in pairs.iter().enumerate() {
            if !known.contains(&name.as_str()) {
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                let detail = format!("unknown parameter `{}`; there are: {known}", shown(name));
                return Err(Problem::new(StatusCode::BAD_REQUEST, detail));
            }
            if pairs[..place].iter().any(|(other, _)| other == name) {
                return Err(Problem::bad_parameter(name, "given twice"));
            }
            if value.is_empty() {
                return Err(Problem::bad_parameter(name, "empty; leave it out or give it a value"));
            }
        }
        Ok(Self(pairs))
    }

    /// The value as it is.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// The value as `parse` reads it; `expected` completes "expected …" when it cannot.
    pub(super) fn parsed<T>(
        &self,
        name: &str,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Problem> {
        let Some(value) = self.text(name) else { return Ok(None) };
        parse(value).map(Some).ok_or_else(|| malformed(name, expected, value))
    }

    /// A point in time, rounded up to the microsecond, the resolution of the history: so `since` and `until` cut
    /// between the same rows as they would have with all their digits.
    pub(super) fn time(&self, name: &str) -> Result<Option<Timestamp>, Problem> {
        self.parsed(name, "a time such as 2026-11-23T02:39:25Z", |text| {
            // An offset's `+` that was not percent-encoded arrives as a space.
            let time: jiff::Timestamp = text.parse().or_else(|_| text.replace(' ', "+").parse()).ok()?;
            let micros =
                time.as_nanosecond().div_euclid(1_000) + i128::from(time.as_nanosecond().rem_euclid(1_000) > 0);
            let bound = if micros < 0 { i64::MIN } else { i64::MAX };
            // Beyond what we can count, before or after everything is what was meant.
            Some(Timestamp::from_micros(i64::try_from(micros).unwrap_or(bound)))
        })
    }
}

/// The parameter `name` of a path as `parse` reads it; `segment` as it stood there.
pub(super) fn in_path<T>(
    name: &str,
    segment: &str,
    expected: &str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<T, Problem> {
    let value = percent_decode_str(segment).decode_utf8_lossy();
    parse(&value).ok_or_else(|| malformed(name, expected, &value))
}

fn malformed(name: &str, expected: &str, value: &str) -> Problem {
    Problem::bad_parameter(name, &format!("expected {expected}, not `{}`", shown(value)))
}

/// The beginning of a client's own text.
pub(super) fn shown(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Option<i64> {
        let pairs = vec![("since".to_owned(), text.to_owned())];
        Parameters::new(pairs, &["since"]).ok()?.time("since").ok()?.map(Timestamp::as_nanos)
    }

    #[test]
    fn times_are_rfc_3339_rounded_up_to_the_microsecond() {
        assert_eq!(time("1970-01-01T00:00:01Z"), Some(1_000_000_000));
        assert_eq!(time("1970-01-01T01:00:01+01:00"), Some(1_000_000_000));
        assert_eq!(time("1970-01-01T01:00:01 01:00"), Some(1_000_000_000), "a plus that was not encoded");
        assert_eq!(time("1970-01-01T00:00:00.000000001Z"), Some(1_000));
        assert_eq!(time("1969-12-31T23:59:59.9999999Z"), Some(0));
        assert_eq!(time("0001-01-01T00:00:00Z"), Some(i64::MIN), "before everything");
        assert_eq!(time("9999-01-01T00:00:00Z"), Some(i64::MAX), "after everything");
        for bad in ["yesterday", "2026-11-23", "2026-11-23T02:39:25", "1795401565"] {
            assert_eq!(time(bad), None, "{bad}");
        }
    }
}
