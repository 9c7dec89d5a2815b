//! What a stream's instances report: random walks around the rules' thresholds, so that episodes of every length come
//! up, or a storm in which every other report begins one.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::{
    dice::Dice,
    ledger::{Contents, Sent},
    rules::METRICS,
};

/// How readings go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Shape {
    /// Up and down at random.
    Walk,
    /// Each instance violates `cpu-high`, then does not, then does.
    Storm,
}

/// The instances of one stream.
#[derive(Debug)]
pub struct Generator {
    shape: Shape,
    dice: Dice,
    epoch: u64,
    instances: Vec<Walker>,
}

#[derive(Clone, Debug, Default)]
struct Walker {
    sequence: u64,
    time: u64,
    values: [f64; METRICS.len()],
}

impl Generator {
    /// Goes on behind what the ledger says, in a numbering of its own.
    pub fn new(shape: Shape, n_instances: u32, seed: u64, before: &Contents) -> Self {
        let mut dice = Dice::of(seed, before.n_epochs);
        // The wire has no numbering 0: it means that the sender names none.
        let epoch = dice.throw().max(1);
        let mut instances: Vec<Walker> = (0..n_instances)
            .map(|_| Walker { values: std::array::from_fn(|_| dice.below(100) as f64), ..Walker::default() })
            .collect();
        for sent in &before.sent {
            if let Some(walker) = instances.get_mut(sent.instance as usize) {
                walker.time = sent.time;
                walker.values = std::array::from_fn(|place| sent.values[place].unwrap_or(walker.values[place]));
            }
        }
        Self { shape, dice, epoch, instances }
    }

    /// The numbering of what comes next.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// One report of each instance.
    pub fn batch(&mut self) -> Vec<Sent> {
        (0..self.instances.len()).map(|place| self.report(place)).collect()
    }

    fn report(&mut self, place: usize) -> Sent {
        let Self { dice, instances, shape, epoch } = self;
        let walker = &mut instances[place];
        walker.sequence += 1;
        // Rising, also where the clock is set back: two reports with one time could not be told apart in the history.
        walker.time = now_nanos().max(walker.time + 1_000);
        let mut values = [None; METRICS.len()];
        match shape {
            Shape::Walk => {
                for (at, value) in walker.values.iter_mut().enumerate() {
                    let step = dice.below(3_001) as f64 / 100.0 - 15.0;
                    // Back from the walls; hundredths, so that ledgers are short.
                    *value = ((*value + step).abs().min(200.0 - (*value + step).abs()) * 100.0).round() / 100.0;
                    // Load is small, so that it crosses its threshold as often.
                    let shown = if at == 2 { (*value * 10.0).round() / 100.0 } else { *value };
                    // Some reports lack a metric, which must change nothing.
                    values[at] = (!dice.one_in(10)).then_some(shown);
                }
            }
            Shape::Storm => {
                walker.values[0] = if walker.values[0] > 90.0 { 10.0 } else { 91.0 + dice.below(9) as f64 };
                values[0] = Some(walker.values[0]);
            }
        }
        Sent { instance: place as u32, epoch: *epoch, sequence: walker.sequence, time: walker.time, values }
    }
}

/// Now, in whole microseconds: what the database keeps of a time.
pub fn now_nanos() -> u64 {
    now_us() * 1_000
}

/// Now, microseconds since 1970.
pub fn now_us() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros()).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{expected::episodes, rules::RULES};

    fn ledger(shape: Shape, n_batches: u64) -> Contents {
        let mut contents = Contents { stream: "a".to_owned(), ..Contents::default() };
        let mut generator = Generator::new(shape, 20, 1, &contents);
        for n in 0..n_batches {
            // As far apart as in a run, whatever the clock says.
            let batch = generator.batch().into_iter();
            contents.sent.extend(batch.map(|sent| Sent { time: (n + 1) * 40_000_000, ..sent }));
        }
        contents
    }

    #[test]
    fn a_walk_begins_and_ends_episodes_of_every_rule() {
        let ledger = ledger(Shape::Walk, 500);
        assert!(ledger.sent.iter().flat_map(|sent| sent.values).flatten().all(|value| (0.0..=100.0).contains(&value)));
        let episodes = episodes(&[ledger]);
        for rule in RULES {
            let of_rule: Vec<_> = episodes.iter().filter(|(key, _)| key.rule == rule.name).collect();
            let n_open = of_rule.iter().filter(|(_, episode)| episode.resolved_at.is_none()).count();
            assert!(of_rule.len() > 50 && n_open > 0, "{}: {} episodes, {n_open} open", rule.name, of_rule.len());
        }
    }

    #[test]
    fn every_other_report_of_a_storm_violates() {
        assert_eq!(episodes(&[ledger(Shape::Storm, 100)]).len(), 1_000);
    }

    #[test]
    fn a_generator_goes_on_behind_the_ledger_in_a_numbering_of_its_own() {
        let before = Contents { n_epochs: 1, ..ledger(Shape::Walk, 3) };
        let first = Generator::new(Shape::Walk, 20, 1, &Contents::default()).epoch();
        let mut generator = Generator::new(Shape::Walk, 20, 1, &before);
        assert_ne!(generator.epoch(), first);
        let report = generator.batch().remove(0);
        assert!(report.sequence == 1 && report.time > before.sent[59].time);
    }
}
