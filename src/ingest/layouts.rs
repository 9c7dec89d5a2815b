//! Which metrics the reports of one stream have: each combination is a layout, told the lanes once.
//!
//! Agents send the same metrics in the same order again and again, or go round a few combinations of them. So each
//! report is held against the layout that came next the last time, and looked up only where it is another one.

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};

use gopherwatch_proto::{is_valid_name, wire};
use indexmap::{Equivalent, IndexMap, IndexSet};

use crate::{
    dispatch::Packer,
    model::{Layout, Name, Rejection},
};

/// Metric names remembered for a stream.
pub(super) const MAX_NAMES: usize = 16_384;
/// Layouts remembered for a stream.
const MAX_LAYOUTS: usize = 8_192;
/// Metrics of all layouts remembered for a stream. The last report may go past this and what is above.
const MAX_METRICS_OF_ALL: usize = 65_536;

/// Random, so that no sender can know which names collide.
type Seed = foldhash::fast::RandomState;

/// The layouts of one stream.
#[derive(Debug, Default)]
pub(super) struct Layouts {
    all: IndexMap<Sequence, Expected, Seed>,
    names: IndexSet<Name, Seed>,
    n_metrics: usize,
}

/// The metrics of a report as they stand on the wire.
#[derive(Debug)]
struct Sequence {
    /// Each once.
    layout: Arc<Layout>,
    /// Where one comes twice: the place in the layout of each one on the wire.
    places: Option<Box<[u16]>>,
}

/// What is known of a layout beforehand.
#[derive(Debug)]
struct Expected {
    /// How its metrics stand on the wire as a rule.
    template: Option<wire::Template>,
    /// The number of the layout that the instance's next report had, the last time.
    next: u32,
}

impl Sequence {
    fn new(names: &[Name]) -> Self {
        let layout = Arc::new(Layout::new(names.iter().cloned()));
        let places = || names.iter().map(|name| layout.place(name).and_then(|place| u16::try_from(place).ok()));
        let places = (layout.len() < names.len())
            .then(|| places().map(|place| place.expect("a report has 256 metrics at most")).collect());
        Self { layout, places }
    }

    fn len(&self) -> usize {
        self.places.as_ref().map_or(self.layout.len(), |places| places.len())
    }

    fn names(&self) -> impl Iterator<Item = &[u8]> {
        let place = |n: usize| self.places.as_ref().map_or(n, |places| usize::from(places[n]));
        (0..self.len()).filter_map(move |n| self.layout.name(place(n)).map(|name| name.as_bytes()))
    }
}

impl Hash for Sequence {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.names().for_each(|name| name.hash(state));
    }
}

impl PartialEq for Sequence {
    fn eq(&self, other: &Self) -> bool {
        self.names().eq(other.names())
    }
}

impl Eq for Sequence {}

/// The metrics of a report that has been read.
struct Read<'a>(&'a wire::Report, &'a [u8]);

impl Hash for Read<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.metrics(self.1).for_each(|(name, _)| name.hash(state));
    }
}

impl Equivalent<Sequence> for Read<'_> {
    fn equivalent(&self, sequence: &Sequence) -> bool {
        self.0.metrics(self.1).map(|(name, _)| name).eq(sequence.names())
    }
}

impl Layouts {
    /// The number of the layout of a report whose metrics are all in `rest`, with its values, if it is the one that is
    /// expected behind this one.
    pub(super) fn expected(&self, before: u32, rest: &[u8], values: &mut Vec<f64>) -> Option<u32> {
        let (_, before) = self.all.get_index(before as usize)?;
        let (_, expected) = self.all.get_index(before.next as usize)?;
        let fits = expected.template.as_ref().is_some_and(|template| template.read(rest, values));
        fits.then_some(before.next)
    }

    /// The number of the layout of a report that has been read; its values as they stand there.
    pub(super) fn of(
        &mut self,
        report: &wire::Report,
        message: &[u8],
        values: &mut Vec<f64>,
        packer: &mut Packer,
    ) -> Result<u32, Rejection> {
        values.clear();
        values.extend(report.metrics(message).map(|(_, value)| value));
        let known = self.all.get_index_of(&Read(report, message));
        known.map_or_else(|| self.add(report, message, packer), |known| Ok(number(known)))
    }

    fn add(&mut self, report: &wire::Report, message: &[u8], packer: &mut Packer) -> Result<u32, Rejection> {
        // What is refused leaves nothing behind.
        for (name, value) in report.metrics(message) {
            if !value.is_finite() {
                return Err(Rejection::NotFinite);
            }
            if !text(name).is_some_and(is_valid_name) {
                return Err(Rejection::BadName);
            }
        }
        let names: Vec<Name> = report.metrics(message).filter_map(|(name, _)| Some(self.name(text(name)?))).collect();
        let sequence = Sequence::new(&names);
        self.n_metrics += sequence.len();
        let expected = Expected { template: wire::Template::new(sequence.names()), next: number(self.all.len()) };
        let layout = packer.add_layout(sequence.layout.clone());
        self.all.insert(sequence, expected);
        Ok(layout)
    }

    fn name(&mut self, name: &str) -> Name {
        if let Some(known) = self.names.get(name) {
            return known.clone();
        }
        let name = Name::from(name);
        self.names.insert(name.clone());
        name
    }

    /// Takes note of the layout that an instance's report had, and the one before. A metric that comes twice counts once:
    /// the last value, where the first one was.
    pub(super) fn settle(&mut self, before: u32, now: u32, values: &mut Vec<f64>) {
        if let Some((_, before)) = self.all.get_index_mut(before as usize) {
            before.next = now;
        }
        let Some((Sequence { layout, places: Some(places) }, _)) = self.all.get_index(now as usize) else { return };
        let mut once = vec![0.0; layout.len()];
        places.iter().zip(&*values).for_each(|(place, value)| once[usize::from(*place)] = *value);
        *values = once;
    }

    /// How many names are remembered.
    #[cfg(test)]
    pub(super) fn n_names(&self) -> usize {
        self.names.len()
    }

    /// Whether they are to be forgotten before more reports come.
    pub(super) fn is_full(&self) -> bool {
        self.names.len() > MAX_NAMES || self.all.len() > MAX_LAYOUTS || self.n_metrics > MAX_METRICS_OF_ALL
    }
}

fn text(name: &[u8]) -> Option<&str> {
    std::str::from_utf8(name).ok()
}

fn number(place: usize) -> u32 {
    u32::try_from(place).expect("a stream has far fewer layouts")
}
