//! Which metrics the reports of one stream have: each combination is a layout, told the lanes once.
//!
//! Agents send the same metrics in the same order again and again, or go round a few combinations of them. So each
//! report is held against the layout that came next the last time, and looked up only where it is another one. Of a
//! stream with very many combinations the first ones have layouts; other reports are loose: a number for each metric.

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};

use gopherwatch_proto::{is_valid_name, wire};
use indexmap::{Equivalent, IndexMap};
use smallvec::SmallVec;

use crate::{
    dispatch::{Packer, Which},
    model::{Layout, Name, Rejection},
};

/// Metric names remembered for a stream. The last report may go past it.
pub(super) const MAX_NAMES: usize = 16_384;
/// Layouts of a stream, and metrics of all of them: what they take is a fraction of what names may.
const MAX_LAYOUTS: usize = 256;
const MAX_METRICS_OF_ALL: usize = 4_096;
/// Loose reports after which a stream begins anew: the layouts that it had may be those of long ago.
const MAX_LOOSE: u32 = 1 << 20;

/// Random, so that no sender can know which names collide.
type Seed = foldhash::fast::RandomState;

/// The layouts of one stream.
#[derive(Debug, Default)]
pub(super) struct Layouts {
    all: IndexMap<Sequence, Expected, Seed>,
    n_metrics: usize,
    /// Every metric, and the number of the one that came behind it in loose reports, the last time: in the same one, or in
    /// the instance's next one behind what both have in common.
    names: IndexMap<Name, u32, Seed>,
    /// The numbers of the metrics of the last loose report.
    loose: Vec<u32>,
    n_loose: u32,
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

    /// The number of the layout of a report that has been read, `None` if it is loose; its values as they stand there. `last`
    /// is the number of the last metric of the instance's last loose report.
    pub(super) fn of(
        &mut self,
        report: &wire::Report,
        message: &[u8],
        values: &mut Vec<f64>,
        packer: &mut Packer,
        last: Option<u32>,
    ) -> Result<Option<u32>, Rejection> {
        values.clear();
        values.extend(report.metrics(message).map(|(_, value)| value));
        // What is refused leaves nothing behind.
        if !values.iter().all(|value| value.is_finite()) {
            check(report, message)?;
        }
        if let Some(known) = self.all.get_index_of(&Read(report, message)) {
            return Ok(Some(number(known)));
        }
        self.find_names(report, message, packer, last)?;
        if self.all.len() == MAX_LAYOUTS || self.n_metrics + self.loose.len() > MAX_METRICS_OF_ALL {
            self.n_loose += 1;
            return Ok(None);
        }
        let name = |number: &u32| self.names.get_index(*number as usize).map(|(name, _)| name.clone());
        let sequence = Sequence::new(&self.loose.iter().filter_map(name).collect::<Vec<_>>());
        self.n_metrics += sequence.len();
        let expected = Expected { template: wire::Template::new(sequence.names()), next: number(self.all.len()) };
        let layout = packer.add_layout(sequence.layout.clone());
        self.all.insert(sequence, expected);
        Ok(Some(layout))
    }

    /// Notes the numbers of the report's metrics. One that is refused leaves no name behind.
    fn find_names(
        &mut self,
        report: &wire::Report,
        message: &[u8],
        packer: &mut Packer,
        mut last: Option<u32>,
    ) -> Result<(), Rejection> {
        self.loose.clear();
        let mut is_checked = false;
        for (text, _) in report.metrics(message) {
            let before = self.loose.last().copied();
            let behind = self.behind(before, text);
            let known = behind.or_else(|| {
                // Here the report goes on where the last one ended, or nowhere.
                let last = before.and_then(|_| last.take());
                let known = self.behind(last, text).or_else(|| self.find_name(text))?;
                self.follow(last, known);
                Some(known)
            });
            let number = match known {
                Some(known) => known,
                None => {
                    if !std::mem::replace(&mut is_checked, true) {
                        check(report, message)?;
                    }
                    let name = Name::from(std::str::from_utf8(text).map_err(|_| Rejection::BadName)?);
                    self.names.insert(name.clone(), 0);
                    packer.add_name(name)
                }
            };
            self.loose.push(number);
        }
        Ok(())
    }

    /// The number of a metric if it is the one that came behind `before` the last time.
    fn behind(&self, before: Option<u32>, text: &[u8]) -> Option<u32> {
        let (_, &next) = self.names.get_index(before? as usize)?;
        let (name, _) = self.names.get_index(next as usize)?;
        (name.as_bytes() == text).then_some(next)
    }

    fn follow(&mut self, before: Option<u32>, next: u32) {
        if let Some((_, behind)) = before.and_then(|before| self.names.get_index_mut(before as usize)) {
            *behind = next;
        }
    }

    /// The number of a metric.
    fn find_name(&self, text: &[u8]) -> Option<u32> {
        self.names.get_index_of(std::str::from_utf8(text).ok()?).map(number)
    }

    /// The number of the last metric of the last loose report.
    pub(super) fn last_loose(&self) -> Option<u32> {
        self.loose.last().copied()
    }

    /// Which metrics a report has that is of this layout, or loose: then the last one.
    pub(super) fn which(&self, layout: Option<u32>) -> Which<'_> {
        layout.map_or(Which::Loose(&self.loose), Which::Layout)
    }

    /// Takes note of the layout that an instance's report had, and the one before.
    pub(super) fn follows(&mut self, before: u32, layout: Option<u32>) {
        match layout {
            Some(layout) => {
                if let Some((_, before)) = self.all.get_index_mut(before as usize) {
                    before.next = layout;
                }
            }
            None => {
                for two in self.loose.windows(2) {
                    if let Some((_, next)) = self.names.get_index_mut(two[0] as usize) {
                        *next = two[1];
                    }
                }
            }
        }
    }

    /// A metric that comes twice counts once: the last value, where the first one was.
    pub(super) fn keep_last(&mut self, layout: Option<u32>, values: &mut Vec<f64>) {
        match layout {
            Some(layout) => {
                let Some((Sequence { layout, places: Some(places) }, _)) = self.all.get_index(layout as usize) else {
                    return;
                };
                let mut once = vec![0.0; layout.len()];
                places.iter().zip(&*values).for_each(|(place, value)| once[usize::from(*place)] = *value);
                *values = once;
            }
            None if has_repeats(&self.loose) => {
                let all: IndexMap<u32, f64> = self.loose.drain(..).zip(values.drain(..)).collect();
                (self.loose, *values) = all.into_iter().unzip();
            }
            None => {}
        }
    }

    /// How many layouts are remembered.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// How many loose reports there were.
    #[cfg(test)]
    pub(super) fn n_loose(&self) -> u32 {
        self.n_loose
    }

    /// How many names are remembered.
    #[cfg(test)]
    pub(super) fn n_names(&self) -> usize {
        self.names.len()
    }

    /// Whether they are to be forgotten before more reports come.
    pub(super) fn is_full(&self) -> bool {
        self.names.len() > MAX_NAMES || self.n_loose >= MAX_LOOSE
    }
}

/// Whether each metric is one that we take.
fn check(report: &wire::Report, message: &[u8]) -> Result<(), Rejection> {
    for (name, value) in report.metrics(message) {
        if !value.is_finite() {
            return Err(Rejection::NotFinite);
        }
        if !std::str::from_utf8(name).is_ok_and(is_valid_name) {
            return Err(Rejection::BadName);
        }
    }
    Ok(())
}

fn has_repeats(numbers: &[u32]) -> bool {
    let mut sorted: SmallVec<[u32; 16]> = numbers.into();
    sorted.sort_unstable();
    sorted.windows(2).any(|two| two[0] == two[1])
}

fn number(place: usize) -> u32 {
    u32::try_from(place).expect("a stream has far fewer layouts")
}
