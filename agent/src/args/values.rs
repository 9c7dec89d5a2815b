//! Single values of the command line: what each may be, and what to say of one that is none.

use std::path::PathBuf;
use std::time::Duration;

use gopherwatch_proto::v1::Metric;
use gopherwatch_proto::{MAX_NAME_BYTES, is_valid_name};

pub(super) fn name(text: &str) -> Result<String, String> {
    if is_valid_name(text) {
        return Ok(text.to_owned());
    }
    Err(format!("a name is 1 to {MAX_NAME_BYTES} of A-Z a-z 0-9 _ . : / - and begins with a letter or digit"))
}

pub(super) fn metric(text: &str) -> Result<Metric, String> {
    let (metric, value) = text.split_once('=').ok_or("write it as metric=value, such as cpu_percent=97")?;
    let value: f64 = value.trim().parse().map_err(|_| format!("{value:?} is not a number"))?;
    if !value.is_finite() {
        return Err("the value must be finite".into());
    }
    Ok(Metric { name: name(metric.trim())?, value })
}

pub(super) fn speed(text: &str) -> Result<f64, String> {
    let speed: f64 = text.parse().map_err(|_| "not a number")?;
    if !(0.01..=86_400.0).contains(&speed) {
        return Err("takes 0.01 to 86400".into());
    }
    Ok(speed)
}

pub(super) fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration(text)?;
    // Faster than this measures the agent rather than the host; slower than this and `absent()` means little.
    if !(Duration::from_millis(10)..=Duration::from_secs(3600)).contains(&interval) {
        return Err("takes 10ms to 1h".into());
    }
    Ok(interval)
}

pub(super) fn directory(text: &str) -> Result<PathBuf, String> {
    // Of an empty variable in the environment: the working directory is hardly what was meant.
    if text.is_empty() { Err("takes a directory".into()) } else { Ok(text.into()) }
}

pub(super) fn buffer_size(text: &str) -> Result<usize, String> {
    let shape = "write a size as 64MiB or 1GiB";
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (count, unit) = text.split_at(split);
    let unit: u64 = match unit {
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(shape.into()),
    };
    let count: u64 = count.parse().map_err(|_| shape)?;
    // Less holds not even a few rounds of a simulated fleet; more is looked through for minutes at a start.
    match count.checked_mul(unit) {
        Some(bytes @ 0x10_0000..=0x10_0000_0000) => {
            usize::try_from(bytes).map_err(|_| "too much for this machine".into())
        }
        _ => Err("takes 1MiB to 64GiB".into()),
    }
}

pub(super) fn buffer_age(text: &str) -> Result<Duration, String> {
    let age = duration(text)?;
    // Less than a restart of the server takes would drop everything each time.
    if !(Duration::from_secs(10)..=Duration::from_secs(30 * 86_400)).contains(&age) {
        return Err("takes 10s to 30d".into());
    }
    Ok(age)
}

fn duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (count, unit) = text.split_at(split);
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err("write a duration as 500ms, 1s, 5m or 1h".into()),
    };
    let count: u64 = count.parse().map_err(|_| "write a duration as 500ms, 1s, 5m or 1h")?;
    count.checked_mul(millis).map(Duration::from_millis).ok_or_else(|| "too long".into())
}

/// The nearest valid name to `text`, if anything is left of it.
pub(super) fn as_name(text: &str) -> Option<String> {
    let name: String = text
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "_.:/-".contains(c) { c } else { '-' })
        .skip_while(|c| !c.is_ascii_alphanumeric())
        .take(MAX_NAME_BYTES)
        .collect();
    is_valid_name(&name).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        for (text, millis) in [("500ms", 500), ("1s", 1_000), ("5m", 300_000), ("1h", 3_600_000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for bad in ["", "1", "s", "-1s", "1.5s", "1 s", "99999999999999999999s", "9999999999999999h", "1w"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_host_name_is_made_a_valid_name() {
        assert_eq!(as_name("Müller's-PC.local").as_deref(), Some("M-ller-s-PC.local"));
        assert_eq!(as_name("-_x1").as_deref(), Some("x1"));
        assert_eq!(as_name("日本"), None);
        assert_eq!(as_name(&"x".repeat(300)).map(|name| name.len()), Some(MAX_NAME_BYTES));
    }
}
