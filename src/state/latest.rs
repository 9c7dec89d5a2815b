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
    values: Box<[f64]>,
    /// Places of the metrics that the last report had; `None`: it had them all.
    had: Option<Box<[u16]>>,
}

impl Default for Latest {
    fn default() -> Self {
        Self { layout: Layout::nothing(), values: Box::default(), had: None }
    }
}

impl Latest {
    /// As the journal remembers it: each metric with its value, and whether it was in the last report.
    pub fn restored(metrics: &[(Name, f64, bool)], layouts: &mut Layouts) -> Self {
        let layout = layouts.share(Arc::new(Layout::new(metrics.iter().map(|(name, ..)| name.clone()))));
        let mut values = vec![0.0; layout.len()].into_boxed_slice();
        let mut had = Vec::new();
        for (name, value, was_had) in metrics {
            let place = layout.place(name).expect("each of them is in it");
            values[place] = *value;
            if *was_had {
                had.push(number(place));
            }
        }
        let had = (had.len() < layout.len()).then(|| had.into());
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
        } else if self.is_within(readings) {
            self.layout = readings.layout().clone();
            self.values = readings.values().into();
            self.had = None;
        } else {
            self.merge(readings);
        }
    }

    /// The layout is the lane's own, so that a pointer tells.
    fn has_layout_of(&self, readings: Readings<'_>) -> bool {
        Arc::ptr_eq(&self.layout, readings.layout())
    }

    /// Whether a report has all of our metrics and more, or the same in the same order: then its layout can be ours. One
    /// that only has them in another order cannot, or they would change places with each report.
    fn is_within(&self, readings: Readings<'_>) -> bool {
        let theirs = readings.layout();
        match theirs.len().cmp(&self.len()) {
            std::cmp::Ordering::Less => false,
            std::cmp::Ordering::Equal => **theirs == *self.layout,
            std::cmp::Ordering::Greater => self.layout.names().all(|name| theirs.place(name).is_some()),
        }
    }

    fn merge(&mut self, readings: Readings<'_>) {
        let mut had = self.had.take().map(Vec::from).unwrap_or_default();
        had.clear();
        let mut more = Vec::new();
        for (name, value) in readings.iter() {
            match self.layout.place(name) {
                Some(place) => {
                    self.values[place] = value;
                    had.push(number(place));
                }
                None => more.push((name, value)),
            }
        }
        if !more.is_empty() {
            had.extend((self.len()..self.len() + more.len()).map(number));
            let names = self.layout.names().cloned().chain(more.iter().map(|(name, _)| Name::clone(name)));
            self.layout = Arc::new(Layout::new(names));
            self.values = self.values.iter().copied().chain(more.iter().map(|(_, value)| *value)).collect();
        }
        self.had = (had.len() < self.len()).then(|| had.into());
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
    fn instances_of_one_layout_share_it() {
        let (first, second) = (row("a=1 b=2"), row("a=1"));
        let mut latest = Latest::restored(&[("a".into(), 7.0, true)], &mut Layouts::default());
        latest.take(second.readings());
        assert!(Arc::ptr_eq(&latest.layout, second.readings().layout()), "of the same names");
        latest.take(first.readings());
        assert!(Arc::ptr_eq(&latest.layout, first.readings().layout()), "of more names");
        latest.take(second.readings());
        assert!(Arc::ptr_eq(&latest.layout, first.readings().layout()), "a shorter report changes nothing");
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
