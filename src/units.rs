//! Durations and sizes as people write them: `500ms`, `10s`, `5m`, `1h`, `7d`; `64MiB`, `4GiB`.

use std::time::Duration;

const DURATION_UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
const SIZE_UNITS: [(&str, u64); 4] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];

/// Reads one duration: a whole number and a unit of `ms s m h d`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let expected = || format!("`{text}` is not a duration: write a whole number and ms, s, m, h or d, such as 30s");
    let millis = parse(text, &DURATION_UNITS).ok_or_else(expected)?;
    Ok(Duration::from_millis(millis))
}

/// Reads one size in bytes: a whole number and a unit of `KiB MiB GiB TiB`.
pub fn parse_size(text: &str) -> Result<u64, String> {
    parse(text, &SIZE_UNITS)
        .ok_or_else(|| format!("`{text}` is not a size: write a whole number and KiB, MiB, GiB or TiB, such as 4GiB"))
}

/// A duration in the largest unit that divides it: `90s`, `2m`, `500ms`.
pub fn show_duration(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let (unit, size) =
        DURATION_UNITS.iter().rev().find(|(_, size)| millis >= *size && millis % size == 0).unwrap_or(&("s", 1_000));
    format!("{}{unit}", millis / size)
}

fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let (_, size) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_are_a_whole_number_and_a_unit() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("7d"), Ok(Duration::from_secs(7 * 86_400)));
        assert_eq!(parse_size("4GiB"), Ok(4 << 30));
        for bad in ["", "5", "s", "-5s", "1.5s", "5 s", "5S", "99999999999999999999s", "18446744073709551615d"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
        assert!(parse_size("4GB").is_err());
    }

    #[test]
    fn durations_print_as_they_would_be_written() {
        for text in ["500ms", "90s", "2m", "24h", "1d", "0s"] {
            let shown = show_duration(parse_duration(text).expect("valid"));
            assert_eq!(shown, if text == "24h" { "1d" } else { text });
        }
    }
}
