//! Pieces of JSON that several answers share, and the answer made of them.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};
use uuid::Uuid;
use warp::{
    Reply,
    http::{HeaderValue, header},
    reply::Response,
};

use super::problem::Problem;
use crate::{model::Timestamp, stats::Balance};

/// A time as REST shows it: RFC 3339, UTC, microseconds.
#[derive(Clone, Copy)]
pub(super) struct Time(pub(super) Timestamp);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// An alert's id as REST shows it: lower case, with hyphens.
#[derive(Clone, Copy)]
pub(super) struct Id(pub(super) Uuid);

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.hyphenated().encode_lower(&mut Uuid::encode_buffer()))
    }
}

/// The accounts (CONTRACT §7.8).
#[derive(Serialize)]
pub(super) struct BalanceView {
    received: u64,
    accepted: u64,
    rejected: u64,
    duplicates: u64,
    queued: u64,
    events: u64,
    stored: u64,
    pending: u64,
    dead_letter: u64,
}

impl From<Balance> for BalanceView {
    fn from(balance: Balance) -> Self {
        let Balance { received, accepted, rejected, duplicates, queued, events, stored, pending, dead_letter } =
            balance;
        Self { received, accepted, rejected, duplicates, queued, events, stored, pending, dead_letter }
    }
}

/// Labels as text, the form in which the database keeps them, as the JSON object that they are. A row without any, or
/// with text that is none of ours, has no labels.
pub(super) fn labels(text: Option<&str>) -> BTreeMap<String, serde_json::Value> {
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// 200 with `view` as its body.
pub(super) fn json(view: &impl Serialize) -> Result<Response, Problem> {
    json_of(view, 512)
}

/// The same, with room for `capacity` bytes from the start.
pub(super) fn json_of(view: &impl Serialize, capacity: usize) -> Result<Response, Problem> {
    let mut body = Vec::with_capacity(capacity);
    // Views have names for keys and nothing that could refuse to be written.
    serde_json::to_writer(&mut body, view).map_err(|_| Problem::internal())?;
    let mut response = body.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}
