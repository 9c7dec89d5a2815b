//! The other sinks: the log, which gets every event, and a receiver that may be made to give some up.

use std::collections::BTreeMap;

use crate::{
    journal::{DeadLetter, Reader, SinkCursor},
    model::Event,
};

/// What each sink has had, over all lives of the server.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) log: BTreeMap<u64, Event>,
    pub(super) receiver: BTreeMap<u64, Event>,
}

/// A sink and its place.
pub(super) struct Sink {
    reader: Reader,
    pub(super) cursor: SinkCursor,
}

impl Sink {
    pub(super) fn new(reader: Reader, cursor: SinkCursor) -> Self {
        Self { reader, cursor }
    }

    /// Takes some events, and gives up those that it is asked to.
    pub(super) fn take(&self, ledger: &mut BTreeMap<u64, Event>, limit: usize) {
        let give_up_to = self.cursor.give_up_to();
        while self.cursor.position() < give_up_to {
            let seq = self.cursor.position() + 1;
            self.cursor.bury(DeadLetter { seq, reason: "no room".to_owned() });
            self.cursor.advance(seq);
        }
        let position = self.cursor.position();
        for (recorded, expected) in self.reader.read(position, limit).expect("readable").iter().zip(position + 1..) {
            assert_eq!(recorded.seq, expected, "numbers have no gaps");
            let event = recorded.event.as_ref().expect("no event is damaged or missing");
            let known = ledger.entry(recorded.seq).or_insert_with(|| event.clone());
            assert_eq!(known, event, "event {} is what it was: numbers are never used again", recorded.seq);
            self.cursor.deliver(recorded.seq, 1);
        }
        // What it hears beside the journal it hears again.
        self.cursor.direct().try_iter().for_each(drop);
        self.cursor.doorbell().try_iter().for_each(drop);
    }
}
