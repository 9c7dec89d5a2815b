//! The last known value of each of an instance's metrics.
//!
//! Instances whose reports are all of one layout share it, and keep no more of their own than a number for each metric.

use std::sync::Arc;

use super::Layouts;
use crate::model::{Layout, Name, Readings};

/// Values in the order of a layout, and which of them the last report had.
#[derive(Clone, Debug)]
pub struct Latest {
    layout: Arc<Layout>,
    values: Vec<f64>,
    /// Places of the metrics that the last report had; `None`: it had them all.
    had: Option<Vec<u16>>,
}

impl Default for Latest {
    fn default() -> Self {
        Self { layout: Layout::nothing(), values: Vec::new(), had: None }
    }
}

impl Latest {
    /// As the journal remembers it: each metric with its value, and whether it was in the last report.
    pub fn restored(metrics: &[(Name, f64, bool)], layouts: &mut Layouts) -> Self {
        let layout = layouts.share(&Layout::new(metrics.iter().map(|(name, ..)| name.clone())));
        let mut values = vec![0.0; layout.len()];
        let mut had = Vec::new();
        for (name, value, was_had) in metrics {
            let place = layout.place(name).expect("each of them is in it");
            values[place] = *value;
            if *was_had {
                had.push(number(place));
            }
        }
        let had = (had.len() < layout.len()).then_some(had);
        Self { layout, values, had }
    }

    /// How many metrics there are.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Every metric with its last known value.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Name, f64)> {
        self.layout.names().zip(self.values.iter().copied())
    }

    /// Every metric with its last known value, and whether the last report had it.
    pub fn iter_marked(&self) -> impl Iterator<Item = (&Name, f64, bool)> {
        let had = |place: usize| self.had.as_ref().is_none_or(|had| had.contains(&number(place)));
        self.iter().enumerate().map(move |(place, (name, value))| (name, value, had(place)))
    }

    /// The metrics that the last report had.
    pub fn of_last_report(&self) -> impl Iterator<Item = (&Name, f64)> {
        self.iter_marked().filter(|(.., had)| *had).map(|(name, value, _)| (name, value))
    }

    /// Whether this metric was ever in a report.
    pub fn has(&self, name: &str) -> bool {
        self.layout.place(name).is_some()
    }

    /// How many metrics there would be with those of a report.
    pub fn n_with(&self, readings: Readings<'_>) -> usize {
        if self.has_layout_of(readings) {
            return self.len();
        }
        self.len() + readings.iter().filter(|(name, _)| !self.has(name)).count()
    }

    /// Takes over the readings of a report.
    pub fn take(&mut self, readings: Readings<'_>) {
        if self.has_layout_of(readings) {
            self.values.copy_from_slice(readings.values());
            self.had = None;
        } else if let Some(layout) = readings.layout().filter(|layout| self.is_within(layout)) {
            self.layout = layout.clone();
            self.values = readings.values().into();
            self.had = None;
        } else {
            self.merge(readings);
        }
    }

    /// The layout is the lane's own, so that a pointer tells.
    fn has_layout_of(&self, readings: Readings<'_>) -> bool {
        readings.layout().is_some_and(|theirs| Arc::ptr_eq(&self.layout, theirs))
    }

    /// Whether a layout has all of our metrics and more, or the same in the same order: then it can be ours. One that only
    /// has them in another order cannot, or they would change places with each report.
    fn is_within(&self, theirs: &Layout) -> bool {
        match theirs.len().cmp(&self.len()) {
            std::cmp::Ordering::Less => false,
            std::cmp::Ordering::Equal => *theirs == *self.layout,
            std::cmp::Ordering::Greater => self.layout.names().all(|name| theirs.place(name).is_some()),
        }
    }

    fn merge(&mut self, readings: Readings<'_>) {
        let mut had = self.had.take().unwrap_or_default();
        // Metrics that take turns are most likely to go on behind the last ones.
        let next = had.last().map_or(0, |last| usize::from(*last) + 1);
        had.clear();
        for (name, value) in readings.iter() {
            let behind = had.last().map_or(0, |last| usize::from(*last) + 1);
            let guess = [behind, next].into_iter().find(|place| self.layout.is_at(*place, name));
            let place = match guess.or_else(|| self.layout.place(name)) {
                Some(place) => {
                    self.values[place] = value;
                    place
                }
                None => {
                    // Copied if others share it; from then on it is this instance's own.
                    Arc::make_mut(&mut self.layout).push(Name::clone(name));
                    self.values.push(value);
                    self.values.len() - 1
                }
            };
            had.push(number(place));
        }
        self.had = (had.len() < self.len()).then_some(had);
    }
}

fn number(place: usize) -> u16 {
    u16::try_from(place).expect("an instance has 256 metrics at most")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Row;

    fn row(text: &str) -> Row {
        let reading = |text: &str| {
            let (name, value) = text.split_once('=').expect("name=value");
            (name.into(), value.parse().expect("a number"))
        };
        Row::new(&text.split_whitespace().map(reading).collect::<Vec<_>>())
    }

    /// What is known after these reports; what the last one had with a `*`.
    fn after(reports: &[&str]) -> String {
        let mut latest = Latest::default();
        reports.iter().for_each(|report| latest.take(row(report).readings()));
        shown(&latest)
    }

    fn shown(latest: &Latest) -> String {
        let mark = |had| if had { "*" } else { "" };
        let known: Vec<_> =
            latest.iter_marked().map(|(name, value, had)| format!("{name}={value}{}", mark(had))).collect();
        known.join(" ")
    }

    #[test]
    fn each_metric_keeps_its_last_value_and_its_place() {
        assert_eq!(after(&[]), "");
        assert_eq!(after(&["a=1 b=2"]), "a=1* b=2*");
        assert_eq!(after(&["a=1 b=2", "a=3 b=4"]), "a=3* b=4*");
        assert_eq!(after(&["a=1 b=2", "b=4 a=3"]), "a=3* b=4*", "in another order");
        assert_eq!(after(&["a=1 b=2", "b=4"]), "a=1 b=4*", "one of them");
        assert_eq!(after(&["a=1 b=2", "b=4 c=5"]), "a=1 b=4* c=5*", "one of them and another one");
        assert_eq!(after(&["a=1 b=2", "c=5 b=4 a=3"]), "c=5* b=4* a=3*", "all of them and another one");
        assert_eq!(after(&["a=1", "b=4", ""]), "a=1 b=4", "none");
        assert_eq!(after(&["a=1", "b=4", "", "b=5 a=6"]), "a=6* b=5*", "and then all");
    }

    #[test]
    fn readings_that_are_like_no_other_are_taken_over_one_by_one() {
        let names: [Name; 3] = ["a", "b", "c"].map(Into::into);
        let mut latest = Latest::default();
        latest.take(row("a=1 b=2").readings());
        let shared = latest.clone();
        latest.take(Readings::loose(&[&names[2], &names[0]], &[3.0, 4.0]));
        assert_eq!(shown(&latest), "a=4* b=2 c=3*");
        assert_eq!(latest.n_with(Readings::loose(&[&"d".into(), &names[0]], &[5.0, 6.0])), 4);
        assert_eq!(shown(&shared), "a=1* b=2*", "who shared its layout has it as it was");
    }

    #[test]
    fn instances_of_one_layout_share_it() {
        let (first, second) = (row("a=1 b=2"), row("a=1"));
        let mut latest = Latest::restored(&[("a".into(), 7.0, true)], &mut Layouts::default());
        latest.take(second.readings());
        assert!(Arc::ptr_eq(&latest.layout, second.layout()), "of the same names");
        latest.take(first.readings());
        assert!(Arc::ptr_eq(&latest.layout, first.layout()), "of more names");
        latest.take(second.readings());
        assert!(Arc::ptr_eq(&latest.layout, first.layout()), "a shorter report changes nothing");
    }

    #[test]
    fn how_many_there_would_be_is_known_beforehand() {
        let mut latest = Latest::default();
        let reports = ["a=1 b=2", "b=1 a=2", "c=1 a=2", "a=1 b=2 c=3 d=4"];
        for (report, n_with) in reports.into_iter().zip([2, 2, 3, 4]) {
            let row = row(report);
            assert_eq!(latest.n_with(row.readings()), n_with, "{report}");
            latest.take(row.readings());
            assert_eq!((latest.len(), latest.n_with(row.readings())), (n_with, n_with), "{report}");
        }
    }

    #[test]
    fn it_is_restored_as_it_was() {
        for reports in [&["a=1 b=2"][..], &["a=1 b=2", "b=3"], &["a=1", ""], &[]] {
            let mut latest = Latest::default();
            reports.iter().for_each(|report| latest.take(row(report).readings()));
            let saved: Vec<_> = latest.iter_marked().map(|(name, value, had)| (name.clone(), value, had)).collect();
            assert_eq!(shown(&Latest::restored(&saved, &mut Layouts::default())), shown(&latest), "{reports:?}");
        }
    }
}
