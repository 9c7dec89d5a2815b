//! File descriptors: asks for as many as a large fleet needs, and says how many connections of agents they are enough for.
//!
//! The usual soft limit of 1,024 is for programs that number their descriptors in bit sets; a thousand agents are more than
//! it has room for. It is raised as far as we may and need. Where nothing is to be raised agents wait to be accepted.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// For REST, the database, the journal and the log.
const OTHERS: u64 = 400;
const MOST_CONNECTIONS: u64 = 16_384;

/// Raises the limit and says how many connections of agents there may be.
pub fn connections() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.unwrap_or(u64::MAX).min(MOST_CONNECTIONS + OTHERS);
    let mut soft = current.unwrap_or(u64::MAX);
    if soft < wanted && setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }).is_ok() {
        soft = wanted;
    }
    connections_of(soft)
}

/// The connections that so many descriptors are enough for: most of them, and if they are very few a quarter.
fn connections_of(descriptors: u64) -> usize {
    let connections = descriptors.saturating_sub(OTHERS).max(descriptors / 4).min(MOST_CONNECTIONS);
    usize::try_from(connections).expect("16,384 at most")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where a process may have a million descriptors, as in many containers, the server used to panic at its start.
    #[test]
    fn others_keep_theirs_and_many_are_not_too_many() {
        let limits = [100, 1_024, 20_000, 1_048_576, u64::MAX];
        assert_eq!(limits.map(connections_of), [25, 624, 16_384, 16_384, 16_384]);
    }
}
