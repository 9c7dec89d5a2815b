//! How far each numbering of an instance's reports has come: what tells a resent report from a new one.

use smallvec::SmallVec;

/// Numberings of one instance that are remembered.
const MAX_EPOCHS: usize = 8;

/// How far one numbering has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The agent's epoch.
    pub epoch: u64,
    /// The highest number accepted.
    pub sequence: u64,
    /// The reading's time of that report, as it stood on the wire.
    pub wire_time: u64,
}

/// The marks of one instance, the latest used last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks(SmallVec<[Mark; 1]>);

/// What a report's number says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbering {
    /// Not numbered: it cannot be told from one sent before.
    Without,
    /// Not seen before.
    New,
    /// A plain client without epochs began at 1 again, with a later reading.
    Anew,
    /// Accepted before.
    Duplicate,
}

impl Marks {
    /// From what the journal remembers, the latest used last.
    pub fn restored(marks: impl IntoIterator<Item = Mark>) -> Self {
        Self(marks.into_iter().collect())
    }

    /// The marks, the latest used last.
    pub fn iter(&self) -> impl Iterator<Item = &Mark> {
        self.0.iter()
    }

    /// The mark of an epoch; 0 if there is none.
    pub fn of(&self, epoch: u64) -> u64 {
        self.find(epoch).map_or(0, |mark| mark.sequence)
    }

    /// What `sequence` of `epoch` says about its report.
    pub fn judge(&self, epoch: u64, sequence: u64, wire_time: u64) -> Numbering {
        match self.find(epoch) {
            _ if sequence == 0 => Numbering::Without,
            Some(mark) if sequence > mark.sequence => Numbering::New,
            Some(mark) if epoch == 0 && sequence == 1 && wire_time > mark.wire_time => Numbering::Anew,
            Some(_) => Numbering::Duplicate,
            None => Numbering::New,
        }
    }

    /// Moves the mark of `epoch` to an accepted report; whether another numbering has been in use since the last one.
    pub fn advance(&mut self, epoch: u64, sequence: u64, wire_time: u64) -> bool {
        let mark = Mark { epoch, sequence, wire_time };
        let place = self.0.iter().position(|m| m.epoch == epoch);
        match place {
            Some(last) if last + 1 == self.0.len() => {
                self.0[last] = mark;
                return false;
            }
            Some(place) => {
                self.0.remove(place);
                self.0.push(mark);
            }
            None => {
                if self.0.len() == MAX_EPOCHS {
                    self.0.remove(0);
                }
                self.0.push(mark);
            }
        }
        place.is_some()
    }

    fn find(&self, epoch: u64) -> Option<&Mark> {
        self.0.iter().rev().find(|mark| mark.epoch == epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_not_above_the_mark_is_a_duplicate_and_gaps_are_allowed() {
        let mut marks = Marks::default();
        assert_eq!(marks.judge(7, 1, 10), Numbering::New);
        marks.advance(7, 5, 10);
        assert_eq!(marks.judge(7, 5, 99), Numbering::Duplicate);
        assert_eq!(marks.judge(7, 1, 99), Numbering::Duplicate);
        assert_eq!(marks.judge(7, 9, 5), Numbering::New);
        assert_eq!(marks.judge(8, 1, 5), Numbering::New);
        assert_eq!(marks.judge(7, 0, 5), Numbering::Without);
    }

    #[test]
    fn a_client_without_epochs_may_begin_at_1_again_with_a_later_reading() {
        let mut marks = Marks::default();
        marks.advance(0, 500, 10);
        assert_eq!(marks.judge(0, 1, 11), Numbering::Anew);
        assert_eq!(marks.judge(0, 1, 10), Numbering::Duplicate);
        assert_eq!(marks.judge(0, 2, 11), Numbering::Duplicate);
        marks.advance(0, 1, 11);
        assert_eq!(marks.judge(0, 2, 12), Numbering::New);
    }

    #[test]
    fn going_back_to_an_earlier_numbering_is_told() {
        let mut marks = Marks::default();
        let turns = [(7, 1), (7, 2), (8, 1), (8, 2), (7, 3), (7, 4), (9, 1), (8, 3)];
        let told = turns.map(|(epoch, sequence)| marks.advance(epoch, sequence, 0));
        assert_eq!(told, [false, false, false, false, true, false, false, true]);
    }

    #[test]
    fn the_last_eight_numberings_are_remembered_by_use() {
        let mut marks = Marks::default();
        (1..=8).for_each(|epoch| assert!(!marks.advance(epoch, 100, 0)));
        marks.advance(1, 101, 0);
        marks.advance(9, 1, 0);
        assert_eq!(marks.judge(1, 101, 0), Numbering::Duplicate);
        assert_eq!(marks.judge(2, 100, 0), Numbering::New, "the one unused for longest made room");
        assert_eq!(marks.iter().count(), MAX_EPOCHS);
    }
}
