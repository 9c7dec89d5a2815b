//! The journal's records: protobuf messages, so that fields can be added and old files stay readable.

mod alert;
mod instance;
mod windows;
mod write;

use std::sync::Arc;

pub use instance::RestoredInstance;

pub(super) use alert::{decode_event, kind_of};
pub(super) use instance::decode_instance;
pub(super) use windows::{WindowsChange, decode_windows};
pub(super) use write::encode_event;

use prost::Message;

use super::seal::seal;
use crate::{model::InstanceKey, state::InstanceState};

/// How far a sink has come.
#[derive(Clone, PartialEq, Message)]
pub(super) struct CursorRecord {
    #[prost(uint64, tag = "1")]
    pub(super) seq: u64,
    #[prost(uint64, tag = "2")]
    pub(super) delivered: u64,
    #[prost(string, optional, tag = "3")]
    pub(super) identity: Option<String>,
    /// `None`: as many as there are letters.
    #[prost(uint64, optional, tag = "4")]
    pub(super) dead: Option<u64>,
    /// Up to here it is done with all but `open`.
    #[prost(uint64, tag = "5")]
    pub(super) ahead_to: u64,
    #[prost(uint64, repeated, tag = "6")]
    pub(super) open: Vec<u64>,
}

/// A rule in force, under its name.
#[derive(Clone, PartialEq, Message)]
pub(super) struct RuleMessage {
    #[prost(string, tag = "1")]
    pub(super) question: String,
    #[prost(uint64, tag = "2")]
    pub(super) generation: u64,
}

/// An instance as the journal is to remember it, encoded by the lane that owns it.
#[derive(Debug)]
pub struct Snapshot {
    pub(crate) key: Arc<InstanceKey>,
    /// `None`: it is to be forgotten altogether.
    pub(super) body: Option<Vec<u8>>,
    pub(super) windows: WindowsChange,
}

/// A record that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// It is not what was written.
    #[error("its checksum does not fit")]
    Checksum,
    /// It is not there.
    #[error("it is missing")]
    Missing,
    /// It is no message.
    #[error("decoding the message")]
    Decode(#[source] prost::DecodeError),
    /// A field holds what it cannot.
    #[error("field {0} holds what it cannot")]
    Field(&'static str),
}

impl Snapshot {
    /// The instance as it is now, which is noted in it as saved: what is taken must reach the journal.
    pub fn of(instance: &mut InstanceState) -> Self {
        instance.unsaved = false;
        instance.journaled = true;
        instance.progress.moved = false;
        let windows = WindowsChange::of(instance);
        let key = instance.key.clone();
        let body = seal(&[key.service().as_bytes(), key.instance().as_bytes()], instance::encode(instance));
        Self { key, body: Some(body), windows }
    }

    /// Nothing of the instance is to be remembered.
    pub fn none(key: &Arc<InstanceKey>) -> Self {
        Self { key: key.clone(), body: None, windows: WindowsChange::Replace(None) }
    }
}
