//! Which rules look at an instance, and what they need remembered of it.
//!
//! Instances that the same rules look at could share a plan; those that every rule looks at do.

use std::{sync::Arc, time::Duration};

use super::{Rule, condition::When, sieve::must_be_asked};
use crate::model::Name;

/// The windows that rules of one generation read of one metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowsOf {
    /// The metric.
    pub metric: Name,
    /// The generation.
    pub generation: u64,
    /// How long the windows are, each length once.
    pub spans: Vec<Duration>,
}

/// The rules that look at an instance.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// In the order in which they are evaluated.
    pub rules: Box<[Arc<Rule>]>,
    /// Places of those that the sieve does not know: they are asked about every report.
    pub(super) asked: Box<[usize]>,
    /// The windows that they read.
    pub windows: Box<[WindowsOf]>,
    /// Metrics whose absence they watch.
    pub watched: Box<[Name]>,
    /// Whether there is a rule that time alone can raise or repeat.
    pub is_timed: bool,
    /// Whether they look at every instance there is.
    pub(super) is_for_all: bool,
}

impl Plan {
    /// The plan of an instance that these rules look at.
    pub fn new(rules: Vec<Arc<Rule>>) -> Self {
        let mut windows: Vec<WindowsOf> = Vec::new();
        let mut watched = Vec::new();
        for rule in &rules {
            for window in rule.windows() {
                let same = |w: &&mut WindowsOf| w.generation == rule.generation && w.metric == window.metric;
                match windows.iter_mut().find(same) {
                    Some(of) if of.spans.contains(&window.span) => {}
                    Some(of) => of.spans.push(window.span),
                    None => windows.push(WindowsOf {
                        metric: window.metric.clone(),
                        generation: rule.generation,
                        spans: vec![window.span],
                    }),
                }
            }
            if let When::Lacking { metric, .. } = &rule.when
                && !watched.contains(metric)
            {
                watched.push(metric.clone());
            }
        }
        let is_timed = rules.iter().any(|rule| rule.when.condition().is_none() || rule.repeat.is_some());
        let is_for_all = rules.iter().all(|rule| rule.applies_to_all());
        let asked = rules.iter().enumerate().filter(|(_, rule)| must_be_asked(rule)).map(|(place, _)| place).collect();
        Self { rules: rules.into(), asked, windows: windows.into(), watched: watched.into(), is_timed, is_for_all }
    }

    /// The place of the rule of this name.
    pub fn place(&self, name: &str) -> Option<usize> {
        self.rules.iter().position(|rule| &*rule.name == name)
    }
}
