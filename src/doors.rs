//! The server's doors: who may come in by gRPC and by REST.
//!
//! Both ports ask here, so that one rule holds for both and a refusal is counted and logged in one way. What is asked for
//! a token is decided before anything of a request is read but its head. Nothing here waits or blocks but
//! [`Doors::reload`], which reads files and is control's to call.

mod hosts;
mod refusals;
mod secret_file;
mod tls;
mod tokens;

use std::{net::SocketAddr, sync::Arc};

use parking_lot::RwLock;
use slog::{Logger, error, info, warn};
use tokio::{net::TcpStream, time::Instant};

pub use hosts::Hosts;
pub use refusals::{Port, Reason};
pub use secret_file::SecretFileError;
pub use tls::{NotOpened, TlsError, TlsFiles, TlsMaterial, Wire};
pub use tokens::{Keys, Scope, TokenError, TokenSources};

use crate::{log::chain, stats::Stats};
use refusals::Refusals;
use tls::{Failure, Tls};

/// What the doors begin with. As it is by default everybody may come in.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Where the tokens come from.
    pub sources: TokenSources,
    /// The tokens that were found there.
    pub keys: Keys,
    /// Where the parts of TLS are, and what they are.
    pub tls: Option<(TlsFiles, TlsMaterial)>,
    /// The names under which REST answers.
    pub hosts: Hosts,
}

impl Settings {
    /// Reads what is named.
    ///
    /// # Errors
    /// Something named there cannot be used.
    pub fn read(sources: TokenSources, tls: Option<TlsFiles>, hosts: Hosts) -> Result<Self, DoorsError> {
        let keys = sources.read()?;
        let tls = tls.map(|files| files.read().map(|material| (files, material))).transpose()?;
        Ok(Self { sources, keys, tls, hosts })
    }
}

/// What the doors are made of cannot be used: says what is wrong and what to do.
#[derive(Debug, thiserror::Error)]
pub enum DoorsError {
    /// A token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// What a request must be allowed to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// See what there is.
    Read,
    /// Change something.
    Admin,
}

/// As whom somebody was let in: by the widest scope of the token given, `None` where no token is asked for.
pub type Holder = Option<Scope>;

/// Why somebody is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// A token is asked for, and there is none.
    NoToken,
    /// There is one, and it is nobody's.
    WrongToken,
    /// It is somebody's who may not do this.
    LesserToken,
}

impl Refused {
    const fn reason(self) -> Reason {
        match self {
            Self::NoToken => Reason::NoToken,
            Self::WrongToken => Reason::WrongToken,
            Self::LesserToken => Reason::LesserToken,
        }
    }
}

/// The doors. Shared by both ports.
#[derive(Debug)]
pub struct Doors {
    sources: TokenSources,
    keys: RwLock<Arc<Keys>>,
    tls: Option<Tls>,
    hosts: Hosts,
    stats: Arc<Stats>,
    refusals: Refusals,
    log: Logger,
}

impl Doors {
    /// Doors with these settings, which count in `stats` and say in `log` whom they refuse.
    pub fn new(settings: Settings, stats: Arc<Stats>, log: &Logger) -> Self {
        let Settings { sources, keys, tls, hosts } = settings;
        let tls = tls.map(|(files, material)| {
            shown(&material, &stats, log);
            Tls::new(files, material)
        });
        Self {
            sources,
            keys: RwLock::new(Arc::new(keys)),
            tls,
            hosts,
            refusals: Refusals::new(stats.clone(), log.clone()),
            stats,
            log: log.clone(),
        }
    }

    /// Says in the log what is asked of whom.
    pub fn describe(&self) {
        let keys = self.keys.read().clone();
        let token = |asked| if asked { "token" } else { "open" };
        info!(self.log, "doors"; "tls" => match &self.tls {
            None => "off",
            Some(tls) if tls.asks_for_certificates() => "on, and agents show a certificate",
            Some(_) => "on",
        }, "agents" => token(keys.guard_agents()), "reading" => token(keys.guard_rest()),
            "changes" => token(keys.guard_rest()));
    }

    /// Whether connections have TLS.
    pub const fn has_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Opens TLS on a new connection where the server has it, until `deadline`.
    ///
    /// # Errors
    /// TLS was not opened; that is counted.
    pub async fn open(
        &self,
        port: Port,
        tcp: TcpStream,
        peer: SocketAddr,
        deadline: Instant,
    ) -> Result<Wire, NotOpened> {
        let Some(tls) = &self.tls else { return Ok(Wire::plain(tcp)) };
        tls.open(port, tcp, deadline).await.map_err(|(what, failure)| {
            if let Some(Failure { reason, why }) = failure {
                self.refusals.note_connection(port, reason, peer, &why);
            }
            what
        })
    }

    /// Whether a stream of reports may open; `authorization`: all of its values.
    ///
    /// # Errors
    /// The server has agent tokens, and this is none of them.
    pub fn admit_agent<'a>(
        &self,
        authorization: impl Iterator<Item = &'a [u8]>,
        peer: Option<SocketAddr>,
    ) -> Result<(), Refused> {
        let keys = self.keys.read().clone();
        if !keys.guard_agents() {
            return Ok(());
        }
        let answer = match bearer(authorization) {
            Err(why) => Err(why),
            Ok(token) if keys.is_agents(token) => Ok(()),
            Ok(_) => Err(Refused::WrongToken),
        };
        answer.inspect_err(|why| self.note(Port::Grpc, why.reason(), peer))
    }

    /// Whether a request of REST may have this access; `authorization`: all of its values.
    ///
    /// # Errors
    /// The server has tokens for reading or for changes, and this is none that may.
    pub fn admit<'a>(
        &self,
        access: Access,
        authorization: impl Iterator<Item = &'a [u8]>,
        peer: Option<SocketAddr>,
    ) -> Result<Holder, Refused> {
        let keys = self.keys.read().clone();
        if !keys.guard_rest() {
            return Ok(None);
        }
        let answer = bearer(authorization).and_then(|token| {
            let scope = keys.scope_of(token).ok_or(Refused::WrongToken)?;
            if scope.allows(access) { Ok(Some(scope)) } else { Err(Refused::LesserToken) }
        });
        answer.inspect_err(|why| self.note(Port::Rest, why.reason(), peer))
    }

    /// Whether REST answers to this host; the reason that it does not is counted.
    pub fn admit_host(&self, host: &str, peer: Option<SocketAddr>) -> bool {
        let is_ours = self.hosts.admit(host);
        if !is_ours {
            self.note(Port::Rest, Reason::ForeignHost, peer);
        }
        is_ours
    }

    /// Counts somebody who was not let in, and says so in the log, but no more often than somebody reads.
    pub fn note(&self, port: Port, reason: Reason, peer: Option<SocketAddr>) {
        self.refusals.note(port, reason, peer);
    }

    /// Writes down that somebody changed something, or tried to. `outcome`: the status of the answer, `None` if there was
    /// nobody left to have one.
    pub fn audit(&self, holder: Holder, peer: Option<SocketAddr>, action: &str, outcome: Option<u16>) {
        info!(self.log, "audit"; "scope" => holder.map_or("anyone", Scope::as_str),
            "peer" => peer.map(|peer| peer.to_string()), "action" => action,
            "outcome" => match outcome {
                Some(200..300) => "done",
                Some(_) => "failed",
                None => "unknown",
            },
            "status" => outcome);
    }

    /// Whether there are files to read again.
    pub fn has_files(&self) -> bool {
        self.sources.has_files() || self.tls.is_some()
    }

    /// Reads all files again. Tokens and TLS are each taken whole or not at all: what cannot be used stays as it was. Blocks.
    ///
    /// # Errors
    /// What could not be used; it is in the log already.
    pub fn reload(&self) -> Result<(), String> {
        let tokens = if self.sources.has_files() { self.reload_tokens() } else { Ok(()) };
        let tls = self.tls.as_ref().map_or(Ok(()), |tls| self.reload_tls(tls));
        let faults: Vec<_> = [tokens, tls].into_iter().filter_map(Result::err).collect();
        if faults.is_empty() { Ok(()) } else { Err(faults.join("; ")) }
    }

    fn reload_tokens(&self) -> Result<(), String> {
        match self.sources.read() {
            Ok(keys) => {
                *self.keys.write() = Arc::new(keys);
                info!(self.log, "tokens read again");
                Ok(())
            }
            Err(err) => {
                error!(self.log, "the tokens were not read again: the old ones stay in force"; "error" => chain(&err));
                Err(chain(&err))
            }
        }
    }

    fn reload_tls(&self, tls: &Tls) -> Result<(), String> {
        match tls.reload() {
            Ok(material) => {
                info!(self.log, "certificates read again: new connections get them");
                shown(&material, &self.stats, &self.log);
                Ok(())
            }
            Err(err) => {
                error!(self.log, "the certificates were not read again: the old ones stay in force";
                    "error" => chain(&err));
                Err(chain(&err))
            }
        }
    }
}

/// Says until when a certificate is valid, where that is looked at.
fn shown(material: &TlsMaterial, stats: &Stats, log: &Logger) {
    stats.set_certificate_not_after(material.not_after);
    if let Some(warning) = &material.warning {
        warn!(log, "{}", warning);
    }
}

/// The token of `Bearer TOKEN` (RFC 6750, 2.1; the scheme's case says nothing). Two values are none.
fn bearer<'a>(mut authorization: impl Iterator<Item = &'a [u8]>) -> Result<&'a [u8], Refused> {
    const SCHEME: &[u8] = b"bearer ";
    let value = authorization.next().ok_or(Refused::NoToken)?;
    if authorization.next().is_some() {
        return Err(Refused::WrongToken);
    }
    match value.split_at_checked(SCHEME.len()) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(SCHEME) => Ok(token.trim_ascii()),
        _ => Err(Refused::WrongToken),
    }
}

#[cfg(test)]
mod tests {
    use slog::{Discard, o};

    use super::*;

    const AGENT: &str = "agent-agent-agent";
    const READ: &str = "read-read-read-read";
    const ADMIN: &str = "admin-admin-admin";

    fn doors(with: &[(&str, &str)]) -> Doors {
        let sources =
            TokenSources::found(|name| with.iter().find(|(other, _)| *other == name).map(|(_, value)| (*value).into()));
        let settings = Settings::read(sources.expect("sources"), None, Hosts::default()).expect("tokens");
        Doors::new(settings, Arc::new(Stats::new()), &Logger::root(Discard, o!()))
    }

    fn said(token: &str) -> String {
        format!("Bearer {token}")
    }

    /// What the agent's door says to this `authorization`.
    fn agent(doors: &Doors, authorization: Option<&str>) -> Result<(), Refused> {
        doors.admit_agent(authorization.into_iter().map(str::as_bytes), None)
    }

    /// What REST's says to it, for reading and for changes.
    fn rest(doors: &Doors, authorization: Option<&str>) -> [Result<Holder, Refused>; 2] {
        [Access::Read, Access::Admin]
            .map(|access| doors.admit(access, authorization.into_iter().map(str::as_bytes), None))
    }

    #[test]
    fn without_tokens_everybody_comes_in() {
        let doors = doors(&[]);
        assert_eq!(agent(&doors, None), Ok(()));
        assert_eq!(agent(&doors, Some("Basic eDp5")), Ok(()));
        assert_eq!(rest(&doors, None), [Ok(None); 2]);
    }

    #[test]
    fn each_scope_opens_its_own_door() {
        let doors = doors(&[
            ("GOPHERWATCH_AGENT_TOKEN", AGENT),
            ("GOPHERWATCH_READ_TOKEN", READ),
            ("GOPHERWATCH_ADMIN_TOKEN", ADMIN),
        ]);
        for (token, at_grpc, at_rest) in [
            (AGENT, Ok(()), [Err(Refused::LesserToken); 2]),
            (READ, Err(Refused::WrongToken), [Ok(Some(Scope::Read)), Err(Refused::LesserToken)]),
            (ADMIN, Err(Refused::WrongToken), [Ok(Some(Scope::Admin)); 2]),
            ("nobody-nobody-nobody", Err(Refused::WrongToken), [Err(Refused::WrongToken); 2]),
        ] {
            assert_eq!(agent(&doors, Some(&said(token))), at_grpc, "{token}");
            assert_eq!(rest(&doors, Some(&said(token))), at_rest, "{token}");
        }
        assert_eq!(agent(&doors, None), Err(Refused::NoToken));
        assert_eq!(rest(&doors, None), [Err(Refused::NoToken); 2]);
    }

    #[test]
    fn a_part_of_a_token_and_another_scheme_are_no_token() {
        let doors = doors(&[("GOPHERWATCH_AGENT_TOKEN", AGENT)]);
        for wrong in [
            AGENT,
            "Bearer",
            "Bearer ",
            "Basic agent-agent-agent",
            "Bearer agent-agent-agen",
            "Bearer agent-agent-agents",
            "Bearer AGENT-AGENT-AGENT",
            "Token agent-agent-agent",
        ] {
            assert_eq!(agent(&doors, Some(wrong)), Err(Refused::WrongToken), "{wrong}");
        }
        for right in ["Bearer agent-agent-agent", "bearer agent-agent-agent", "BEARER  agent-agent-agent "] {
            assert_eq!(agent(&doors, Some(right)), Ok(()), "{right}");
        }
        let twice = [said(AGENT), said(AGENT)];
        assert_eq!(doors.admit_agent(twice.iter().map(String::as_bytes), None), Err(Refused::WrongToken));
    }

    #[test]
    fn a_token_for_changes_alone_closes_reading_too_and_one_for_reading_lets_nobody_change() {
        let admin = doors(&[("GOPHERWATCH_ADMIN_TOKEN", ADMIN)]);
        assert_eq!(rest(&admin, None), [Err(Refused::NoToken); 2]);
        assert_eq!(rest(&admin, Some(&said(ADMIN))), [Ok(Some(Scope::Admin)); 2]);
        assert_eq!(agent(&admin, None), Ok(()), "agents have no token");
        let read = doors(&[("GOPHERWATCH_READ_TOKEN", READ)]);
        assert_eq!(rest(&read, None), [Err(Refused::NoToken); 2]);
        assert_eq!(rest(&read, Some(&said(READ))), [Ok(Some(Scope::Read)), Err(Refused::LesserToken)]);
        let agents = doors(&[("GOPHERWATCH_AGENT_TOKEN", AGENT)]);
        assert_eq!(rest(&agents, None), [Ok(None); 2], "the agents' token is for their port alone");
    }
}
