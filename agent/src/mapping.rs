//! What figures of others are called here: the mapping file, which renames, keeps and drops.
//!
//! It speaks of names as services send them (a histogram's without `_bucket`), before the well-known names and the ends
//! (`_count`, `_rate`, `_p95`) of [`gopherwatch_client::mapping`] are put to them.

mod file;
mod glob;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use file::{Error, read};
use glob::Glob;

/// A mapping file; the default maps nothing.
#[derive(Debug, Clone, Default)]
pub struct Mapping {
    sections: Vec<Arc<Section>>,
    path: Option<PathBuf>,
}

/// One `[[mapping]]`.
#[derive(Debug, PartialEq)]
struct Section {
    /// Empty: all.
    services: Vec<Glob>,
    keep: Vec<Glob>,
    drop: Vec<Glob>,
    rename: BTreeMap<String, String>,
    take: Vec<Take>,
}

/// A figure made of those label sets of a scraped metric that fit.
#[derive(Debug, PartialEq)]
pub(crate) struct Take {
    from: String,
    labels: Vec<(String, Glob)>,
    /// What it is called, as if its service called it so.
    pub(crate) name: String,
    pub(crate) combine: Combine,
}

/// What a gauge with several label sets comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Combine {
    #[default]
    Sum,
    Max,
    Min,
}

/// What the file says of one service.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Names {
    sections: Vec<Arc<Section>>,
}

impl Mapping {
    /// The file that it was read from.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// What it says of this service.
    pub(crate) fn of(&self, service: &str) -> Names {
        let is_for = |section: &&Arc<Section>| is_any(&section.services, service) || section.services.is_empty();
        Names { sections: self.sections.iter().filter(is_for).cloned().collect() }
    }
}

impl Names {
    /// What a figure is called from here on; none, if it is not wanted. `drop` wins over `keep`, and the first section
    /// to rename it over later ones.
    pub(crate) fn name<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        if self.sections.iter().any(|section| is_any(&section.drop, name)) {
            return None;
        }
        let mut keepers = self.sections.iter().filter(|section| !section.keep.is_empty()).peekable();
        if keepers.peek().is_some() && !keepers.any(|section| is_any(&section.keep, name)) {
            return None;
        }
        let renamed = self.sections.iter().find_map(|section| section.rename.get(name));
        Some(renamed.map_or(name, String::as_str))
    }

    /// What else is made of a metric: wanted by name, so `keep` and `drop` do not apply.
    pub(crate) fn takes<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Take> {
        self.sections.iter().flat_map(|section| &section.take).filter(move |take| take.from == name)
    }
}

impl Take {
    /// Whether a label set has what is asked for; `value_of` says what a label's value is.
    pub(crate) fn fits(&self, value_of: impl Fn(&str) -> Option<String>) -> bool {
        // A label that is not there is the same as an empty one, as it is to Prometheus.
        self.labels.iter().all(|(label, glob)| glob.matches(&value_of(label).unwrap_or_default()))
    }
}

fn is_any(globs: &[Glob], text: &str) -> bool {
    globs.iter().any(|glob| glob.matches(text))
}
