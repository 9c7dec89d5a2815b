//! Who reports, and what: the identity of an instance and the readings of one report.

use std::{
    fmt,
    hash::{BuildHasher, Hash, Hasher},
    sync::Arc,
};

/// A name that many places share.
pub type Name = Arc<str>;

/// One replica of one service: what state and order are kept by.
///
/// The hash is computed once, with a fixed seed: it chooses the lane and the shard, and looks the instance up.
#[derive(Clone, Debug)]
pub struct InstanceKey {
    hash: u64,
    /// The service's name, and the instance's behind it.
    names: Box<str>,
    service_len: usize,
}

impl InstanceKey {
    /// The key of `instance` of `service`.
    pub fn new(service: &str, instance: &str) -> Self {
        let hash = Self::hash_of(service.as_bytes(), instance.as_bytes());
        Self { hash, names: [service, instance].concat().into(), service_len: service.len() }
    }

    /// The hash of a key of these names.
    pub fn hash_of(service: &[u8], instance: &[u8]) -> u64 {
        // Seeded by a constant: names come from outside, but they are capped per stream and in all, and a lane's hot
        // spot harms only the sender of such names.
        foldhash::quality::FixedState::with_seed(0x60_70_68_65_72).hash_one((service, instance))
    }

    /// The service's name.
    pub fn service(&self) -> &str {
        &self.names[..self.service_len]
    }

    /// The instance's name.
    pub fn instance(&self) -> &str {
        &self.names[self.service_len..]
    }

    /// The hash of both names; equal keys have equal hashes in every process of one build.
    pub fn hash(&self) -> u64 {
        self.hash
    }
}

impl PartialEq for InstanceKey {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.service_len == other.service_len && self.names == other.names
    }
}

impl Eq for InstanceKey {}

impl Hash for InstanceKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl PartialOrd for InstanceKey {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for InstanceKey {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.service(), self.instance()).cmp(&(other.service(), other.instance()))
    }
}

/// `service/instance`.
impl fmt::Display for InstanceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.service(), self.instance())
    }
}
