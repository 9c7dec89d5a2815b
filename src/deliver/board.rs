//! How the receivers are doing, all in one line of `/readyz`.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;

use crate::{
    health::{self, Health},
    model::Name,
};

/// The name on `/readyz`.
const CHECK: &str = "receivers";

/// How one receiver is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    /// It takes what it is told, or there was nothing to tell.
    Fine,
    /// It does not, and is told again.
    Failing(String),
    /// The last of what it was to be told was given up.
    GaveUp(String),
}

/// The conditions of all. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub(super) struct Board {
    health: Health,
    conditions: Arc<Mutex<BTreeMap<Name, Condition>>>,
}

impl Board {
    pub(super) fn new(health: Health) -> Self {
        let board = Self { health, conditions: Arc::default() };
        board.show(&board.conditions.lock());
        board
    }

    /// Notes how a receiver is doing.
    pub(super) fn set(&self, name: &Name, condition: Condition) {
        let mut conditions = self.conditions.lock();
        if conditions.get(name) != Some(&condition) {
            conditions.insert(name.clone(), condition);
            self.show(&conditions);
        }
    }

    /// The receiver is no longer there.
    pub(super) fn remove(&self, name: &Name) {
        let mut conditions = self.conditions.lock();
        conditions.remove(name);
        self.show(&conditions);
    }

    /// Under the lock: what is shown last is what is so.
    fn show(&self, conditions: &BTreeMap<Name, Condition>) {
        let troubled = conditions.iter().filter_map(|(name, condition)| match condition {
            Condition::Fine => None,
            Condition::Failing(why) => {
                Some(format!("{name} does not take what it is told: {why}; it is told again for 24 h"))
            }
            Condition::GaveUp(why) => Some(format!("{name} was not told, and will not be: {why}")),
        });
        let troubled: Vec<_> = troubled.collect();
        let names: Vec<&str> = conditions.keys().map(|name| &**name).collect();
        let (condition, detail) = if names.is_empty() {
            // The server does all that it was told to. But whoever looks should know.
            let none = "none: nobody is told of alerts; [[receivers]] in the rule file says who is to be";
            (health::Condition::Ok, none.to_owned())
        } else if troubled.is_empty() {
            (health::Condition::Ok, names.join(", "))
        } else {
            (health::Condition::Degraded, troubled.join("; "))
        };
        self.health.set(CHECK, condition, detail);
    }
}
