//! Those who are not let in: every one is counted, few are logged.
//!
//! Whoever guesses tokens must neither fill the log's disk nor go unseen: the first of each kind has a line at once, and
//! those behind it one a minute, with how many they were.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use slog::{Logger, debug, warn};

use crate::stats::Stats;

/// Time between two lines of one kind.
const QUIET: Duration = Duration::from_secs(60);

/// Where somebody was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Port {
    /// Agents' port.
    Grpc,
    /// REST's.
    Rest,
}

impl Port {
    /// As labels and log lines have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Rest => "rest",
        }
    }
}

/// Why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// A token is asked for.
    NoToken,
    /// The token is nobody's.
    WrongToken,
    /// The token's scope is a lesser one.
    LesserToken,
    /// The request is for a host that is not us.
    ForeignHost,
    /// A page of another origin asked for a change.
    ForeignOrigin,
    /// TLS is asked for.
    NoTls,
    /// TLS was not opened in time.
    TlsLate,
    /// TLS could not be opened: no agreement, or no certificate, or the peer trusts ours not.
    TlsFailed,
}

impl Reason {
    /// As labels and log lines have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoToken => "no_token",
            Self::WrongToken => "wrong_token",
            Self::LesserToken => "lesser_token",
            Self::ForeignHost => "foreign_host",
            Self::ForeignOrigin => "foreign_origin",
            Self::NoTls => "no_tls",
            Self::TlsLate => "tls_late",
            Self::TlsFailed => "tls_failed",
        }
    }
}

#[derive(Debug)]
pub(super) struct Refusals {
    stats: Arc<Stats>,
    /// Of each kind: when it had its last line, and how many came since.
    kinds: Mutex<BTreeMap<(Port, Reason), (Instant, u64)>>,
    log: Logger,
}

impl Refusals {
    pub(super) fn new(stats: Arc<Stats>, log: Logger) -> Self {
        Self { stats, kinds: Mutex::default(), log }
    }

    /// A connection that never came to a request. There is a line for each, for those who look into it.
    pub(super) fn note_connection(&self, port: Port, reason: Reason, peer: SocketAddr, why: &str) {
        debug!(self.log, "a connection did not open TLS"; "port" => port.as_str(), "reason" => reason.as_str(),
            "peer" => %peer, "why" => why);
        self.say(port, reason, Some(peer), Some(why));
    }

    pub(super) fn note(&self, port: Port, reason: Reason, peer: Option<SocketAddr>) {
        self.say(port, reason, peer, None);
    }

    fn say(&self, port: Port, reason: Reason, peer: Option<SocketAddr>, why: Option<&str>) {
        self.stats.door_refusals(port.as_str(), reason.as_str()).inc();
        if let Some(n_unsaid) = self.is_due(port, reason, Instant::now()) {
            warn!(self.log, "not let in"; "port" => port.as_str(), "reason" => reason.as_str(),
                "peer" => peer.map(|peer| peer.to_string()), "why" => why, "more_since_the_last_line" => n_unsaid);
        }
    }

    /// Whether this one has a line, and then how many had none before it.
    fn is_due(&self, port: Port, reason: Reason, now: Instant) -> Option<u64> {
        let mut kinds = self.kinds.lock();
        let Some((said_at, n_unsaid)) = kinds.get_mut(&(port, reason)) else {
            kinds.insert((port, reason), (now, 0));
            return Some(0);
        };
        if now.saturating_duration_since(*said_at) < QUIET {
            *n_unsaid += 1;
            return None;
        }
        *said_at = now;
        Some(std::mem::take(n_unsaid))
    }
}

#[cfg(test)]
mod tests {
    use slog::{Discard, o};

    use super::*;

    #[test]
    fn the_first_of_a_kind_is_said_and_those_behind_it_once_a_minute() {
        let stats = Arc::new(Stats::new());
        let it = Refusals::new(stats.clone(), Logger::root(Discard, o!()));
        let now = Instant::now();
        let at = |seconds| it.is_due(Port::Rest, Reason::WrongToken, now + Duration::from_secs(seconds));
        assert_eq!([at(0), at(1), at(59), at(60), at(61), at(200)], [Some(0), None, None, Some(2), None, Some(1)]);
        assert_eq!(it.is_due(Port::Grpc, Reason::WrongToken, now), Some(0), "another port is another kind");
        assert_eq!(it.is_due(Port::Rest, Reason::NoToken, now), Some(0), "and so is another reason");
        for _ in 0..3 {
            it.note(Port::Rest, Reason::WrongToken, None);
        }
        assert_eq!(stats.door_refusals("rest", "wrong_token").get(), 3, "each one is counted");
    }
}
