//! The metadata of a stream: whether it may open, who is calling, which numbering, what its clock says.

use std::{net::SocketAddr, sync::Arc};

use gopherwatch_proto::{AGENT_EPOCH, AGENT_TIME, SERVICE_ID, is_valid_name};
use slog::{Logger, debug, info};
use tonic::{Request, Status, metadata::MetadataValue, service::Interceptor};

use super::accept::Caller;
use crate::{
    doors::{Doors, Refused},
    model::Timestamp,
};

/// What the metadata says, as the interceptor leaves it for the handler.
#[derive(Clone, Debug, Default)]
pub(super) struct Identity {
    /// The service of reports that name none.
    pub(super) service_id: Option<String>,
    /// The numbering.
    pub(super) epoch: u64,
    /// By how much the agent's clock is ahead of ours, in nanoseconds.
    pub(super) skew_nanos: Option<i64>,
}

/// Reads the metadata of each stream before anything else, and logs who is calling.
#[derive(Clone)]
pub(super) struct Identify {
    pub(super) doors: Arc<Doors>,
    pub(super) log: Logger,
}

impl Interceptor for Identify {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let caller = request.extensions().get::<Caller>();
        // First, so that a stranger does not even hear what is wrong with the rest.
        self.admit(&request, caller.map(|caller| caller.peer))?;
        let identity = identity(&request)?;
        let (peer, new) = match (caller, &identity.service_id) {
            (Some(caller), Some(service_id)) => (Some(caller.peer), caller.is_new(service_id)),
            (caller, _) => (caller.map(|caller| caller.peer), false),
        };
        let keys = slog::o!("service-id" => identity.service_id.clone(), "peer" => peer.map(|peer| peer.to_string()));
        // Agents open a stream every few seconds: only the first of a connection is news.
        if new {
            info!(self.log, "an agent calls"; keys);
        } else {
            debug!(self.log, "a stream opens"; keys);
        }
        request.extensions_mut().insert(identity);
        Ok(request)
    }
}

impl Identify {
    fn admit(&self, request: &Request<()>, peer: Option<SocketAddr>) -> Result<(), Status> {
        let given = request.metadata().get_all("authorization");
        let admitted = self.doors.admit_agent(given.iter().map(MetadataValue::as_encoded_bytes), peer);
        admitted.map_err(|why| {
            Status::unauthenticated(match why {
                Refused::NoToken => {
                    "this server asks its agents for a token, and there is none: send the metadata \
                     `authorization: Bearer TOKEN`; the agent takes it from --token-file"
                }
                Refused::WrongToken | Refused::LesserToken => {
                    "this token is none of the server's agent tokens: the metadata `authorization` must be `Bearer TOKEN` \
                     with one of those in GOPHERWATCH_AGENT_TOKEN or its file"
                }
            })
        })
    }
}

fn identity(request: &Request<()>) -> Result<Identity, Status> {
    let text = |key: &'static str| match request.metadata().get(key).map(|value| value.to_str()) {
        None => Ok(None),
        Some(Ok(text)) => Ok(Some(text)),
        Some(Err(_)) => Err(Status::invalid_argument(format!("metadata `{key}` is not ASCII text"))),
    };
    let service_id = match text(SERVICE_ID)? {
        Some(name) if !is_valid_name(name) => {
            return Err(Status::invalid_argument(format!(
                "metadata `{SERVICE_ID}` is no name: use 1 to 128 of A-Z a-z 0-9 _ . : / -, beginning with a letter or digit"
            )));
        }
        name => name.map(str::to_owned),
    };
    let epoch = match text(AGENT_EPOCH)? {
        None => 0,
        Some(number) => number
            .parse()
            .map_err(|_| Status::invalid_argument(format!("metadata `{AGENT_EPOCH}` is not a u64 in decimal")))?,
    };
    let skew_nanos = match text(AGENT_TIME)? {
        None => None,
        Some(number) => {
            let theirs: i64 = number.parse().map_err(|_| {
                Status::invalid_argument(format!("metadata `{AGENT_TIME}` is not a number of nanoseconds since 1970"))
            })?;
            Some(theirs.saturating_sub(Timestamp::now().as_nanos()))
        }
    };
    Ok(Identity { service_id, epoch, skew_nanos })
}
