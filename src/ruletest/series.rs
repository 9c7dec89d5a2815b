//! A series of readings in a few words, as `promtool test rules` writes it.
//!
//! `5` is a reading; `5x3` is 5 and three more of it; `5+2x3` is 5 and three more, each 2 above the one before (`5-2x3`:
//! below); `_` is a reading that is missing, `_x3` three of these.

/// Most readings of a series.
pub(super) const MAX_READINGS: usize = 1_000_000;

/// The readings; `None`: a missing one.
pub(super) fn parse_series(text: &str) -> Result<Vec<Option<f64>>, String> {
    let mut readings = Vec::new();
    for word in text.split_whitespace() {
        let (first, step, count) = run(word).ok_or_else(|| {
            format!("`{word}` is no part of a series: write 5, 5x3 (5 and 3 more), 5+2x3, 5-2x3, _ (missing) or _x3")
        })?;
        if readings.len().saturating_add(count) > MAX_READINGS {
            return Err(format!("more than {MAX_READINGS} readings"));
        }
        readings.extend((0..count).map(|n| first.map(|first| first + step * n as f64)));
    }
    Ok(readings)
}

/// First reading, step and number of readings of a word.
fn run(word: &str) -> Option<(Option<f64>, f64, usize)> {
    let (value, more) = match word.split_once('x') {
        Some((value, more)) => (value, Some(more.parse::<usize>().ok()?)),
        None => (word, None),
    };
    if value == "_" {
        return Some((None, 0.0, more.unwrap_or(1)));
    }
    let count = more.unwrap_or(0).checked_add(1)?;
    if let Some(first) = number(value) {
        return Some((Some(first), 0.0, count));
    }
    // The sign of the step is the last one that makes numbers of what is on both of its sides: 1e-3-2 is 1e-3 less 2.
    let signs = value.char_indices().filter(|(at, c)| *at > 0 && "+-".contains(*c)).map(|(at, _)| at);
    let split =
        |at: usize| Some((number(&value[..at])?, number(value[at..].strip_prefix('+').unwrap_or(&value[at..]))?));
    let (first, step) = signs.rev().find_map(split)?;
    more.map(|_| (Some(first), step, count))
}

fn number(text: &str) -> Option<f64> {
    let is_plain = text.chars().all(|c| c.is_ascii_digit() || ".+-eE".contains(c));
    text.parse().ok().filter(|number: &f64| is_plain && number.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_promtools_notation() {
        let read = |text: &str| parse_series(text).unwrap_or_else(|err| panic!("{err}"));
        let all = |values: &[f64]| values.iter().copied().map(Some).collect::<Vec<_>>();
        assert_eq!(read(""), []);
        assert_eq!(read("1 -2.5 1e3"), all(&[1.0, -2.5, 1000.0]));
        assert_eq!(read("95x2"), all(&[95.0, 95.0, 95.0]));
        assert_eq!(read("10+5x2"), all(&[10.0, 15.0, 20.0]));
        assert_eq!(read("-10-5x2"), all(&[-10.0, -15.0, -20.0]));
        assert_eq!(read("1e-3-2x1"), all(&[0.001, 0.001 - 2.0]));
        assert_eq!(read("1 _ 2 _x2"), [Some(1.0), None, Some(2.0), None, None]);
        assert_eq!(read("7x0"), all(&[7.0]));
    }

    #[test]
    fn what_is_no_series_is_refused() {
        for bad in ["a", "5x", "x5", "5+x3", "5+2", "5*3", "5x-1", "5x1.5", "inf", "nanx3", "__", "1,2", "5+-2x3+"] {
            assert!(parse_series(bad).is_err(), "{bad}");
        }
        assert!(parse_series("1x999999999999").is_err());
        assert!(parse_series("1x18446744073709551615").is_err());
    }
}
