//! Telling somebody: what there is to tell, and how it went. One file per kind of receiver.
//!
//! A notifier sends one notification and says how that went; it waits for an answer within its own bounds, keeps nothing
//! and tries nothing again. When, in which order and how often is the sink's to say (`deliver/receiver.rs`).

mod addresses;
mod labels;
mod webhook;

use std::{sync::Arc, time::Duration};

use crate::{
    model::{Alert, EventKind, Name},
    rule_file::Receiver,
    rules::Way,
};
use webhook::Webhook;

/// Most alerts that one notification spells out; a digest may be about more.
pub const MAX_ALERTS: usize = 1_000;

/// What somebody is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// An alert began to fire.
    Raise,
    /// It stopped.
    Resolve,
    /// It still fires.
    Repeat,
    /// Alerts came late and were over by then, so that nobody was told as they began.
    Digest,
}

impl Occasion {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Raise => "raise",
            Self::Resolve => "resolve",
            Self::Repeat => "repeat",
            Self::Digest => "digest",
        }
    }

    /// What an event is the occasion for; `None`: nobody is told of such.
    pub const fn of(kind: EventKind) -> Option<Self> {
        match kind {
            EventKind::Raise => Some(Self::Raise),
            EventKind::Resolve => Some(Self::Resolve),
            EventKind::Repeat => Some(Self::Repeat),
            EventKind::Update | EventKind::Record | EventKind::Restate => None,
        }
    }
}

/// One thing to tell.
#[derive(Clone, Debug)]
pub struct Notification {
    /// Why.
    pub occasion: Occasion,
    /// Of what: one alert, but for a digest, which has at most [`MAX_ALERTS`].
    pub alerts: Vec<Arc<Alert>>,
    /// How many more a digest is about.
    pub n_more: usize,
    /// The same whenever this is told again, and another one for everything else.
    pub key: String,
}

/// How telling went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The receiver has it.
    Done,
    /// Not now: it may have it, and is to be told again.
    Retry {
        /// How long the receiver asks to be left alone.
        after: Option<Duration>,
        /// What happened.
        why: String,
    },
    /// It does not want it, and would not at another time.
    Refused {
        /// What it said.
        why: String,
    },
}

/// The way to one receiver, shared by all who tell it.
#[derive(Debug)]
pub enum Notifier {
    /// By Alertmanager's webhook.
    Webhook(Webhook),
}

impl Notifier {
    /// The way to this receiver. `origin`: where this server's REST answers, such as `http://127.0.0.1:8080`.
    pub fn new(receiver: &Receiver, origin: &str) -> Self {
        let name: Name = receiver.config.name.clone();
        match &receiver.config.way {
            Way::Webhook(config) => Self::Webhook(Webhook::new(name, config, receiver.secret.as_ref(), origin)),
        }
    }

    /// Tells it, and waits for the answer.
    pub fn send(&self, notification: &Notification) -> Outcome {
        match self {
            Self::Webhook(webhook) => webhook.send(notification),
        }
    }
}
