//! What an alert says: a sentence with placeholders, filled in when it is raised.

use std::fmt::Write as _;

use super::Rule;
use crate::model::InstanceKey;

const PLACEHOLDERS: [&str; 7] = ["service", "instance", "metric", "value", "threshold", "rule", "severity"];

/// A rule's summary, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    text: String,
}

impl Summary {
    /// Checks that every `{placeholder}` is one that we know; else says which is not.
    pub(super) fn new(text: String) -> Result<Self, String> {
        for name in text.split('{').skip(1).filter_map(|rest| rest.split_once('}')).map(|(name, _)| name) {
            if !PLACEHOLDERS.contains(&name) {
                return Err(format!("unknown placeholder `{{{name}}}`: use one of {}", PLACEHOLDERS.join(", ")));
            }
        }
        Ok(Self { text })
    }

    /// The sentence as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The sentence about one alert.
    pub(super) fn fill(
        &self,
        key: &InstanceKey,
        rule: &Rule,
        metric: &str,
        value: f64,
        threshold: Option<f64>,
    ) -> String {
        let mut out = String::with_capacity(self.text.len() + 32);
        let mut rest = self.text.as_str();
        while let Some((before, after)) = rest.split_once('{') {
            out.push_str(before);
            let Some((name, tail)) = after.split_once('}') else {
                out.push('{');
                rest = after;
                continue;
            };
            match name {
                "service" => out.push_str(key.service()),
                "instance" => out.push_str(key.instance()),
                "metric" => out.push_str(metric),
                "value" => push_number(&mut out, value),
                "threshold" => threshold.iter().for_each(|number| push_number(&mut out, *number)),
                "rule" => out.push_str(&rule.name),
                _ => out.push_str(rule.severity.as_str()),
            }
            rest = tail;
        }
        out.push_str(rest);
        out
    }
}

/// A number as people read it: at most four decimals, none when it is whole, no sign when it is zero.
fn push_number(out: &mut String, number: f64) {
    // Turns -0 into 0. The journal does not tell them apart, and a restart is not to change what an alert says.
    let number = number + 0.0;
    let tiny = number != 0.0 && number.abs() < 1e-3;
    let shown = if tiny { format!("{number:e}") } else { format!("{number:.4}") };
    let trimmed = if tiny { &shown } else { shown.trim_end_matches('0').trim_end_matches('.') };
    // Writing into a String cannot fail.
    let _ = out.write_str(trimmed);
}
