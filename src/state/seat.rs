//! Where the state keeps an instance, for a lane that asks for it again and again.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use super::{InstanceState, Shard};
use crate::model::InstanceKey;

/// Where the state keeps an instance. Others come and go, so that its place is a guess.
#[derive(Debug)]
pub struct Seat {
    /// Whose it is: the state's own key if it had the instance, so that as a rule a pointer tells whether the guess is right.
    pub key: Arc<InstanceKey>,
    /// Its shard among those of the lane.
    pub shard: usize,
    /// Its place in the shard.
    place: AtomicU32,
}

impl Seat {
    /// A seat; without a place for an instance that the state does not have.
    pub fn new(key: Arc<InstanceKey>, shard: usize, place: Option<usize>) -> Self {
        let seat = Self { key, shard, place: AtomicU32::new(u32::MAX) };
        place.into_iter().for_each(|place| seat.note(place));
        seat
    }

    /// The instance, if the state has it.
    pub fn find<'a>(&self, shard: &'a mut Shard) -> Option<&'a mut InstanceState> {
        let mut place = self.place.load(Ordering::Relaxed) as usize;
        // Equal keys are the same one as a rule, so that the guess costs no look at the names.
        if shard.get_index(place).is_none_or(|(key, _)| *key != self.key) {
            place = shard.get_index_of(&self.key)?;
            self.note(place);
        }
        shard.get_index_mut(place).map(|(_, instance)| instance)
    }

    /// Reads a little of the instance, if it is where it was: whoever looks at several of them so, before the first is
    /// worked on, waits once for the memory of all.
    pub fn touch(&self, shard: &Shard) {
        if let Some((_, instance)) = shard.get_index(self.place.load(Ordering::Relaxed) as usize) {
            instance.touch();
        }
    }

    /// Notes where it is now.
    pub fn note(&self, place: usize) {
        self.place.store(u32::try_from(place).unwrap_or(u32::MAX), Ordering::Relaxed);
    }
}

impl Clone for Seat {
    fn clone(&self) -> Self {
        Self::new(self.key.clone(), self.shard, Some(self.place.load(Ordering::Relaxed) as usize))
    }
}
