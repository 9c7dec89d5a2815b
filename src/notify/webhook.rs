//! Alertmanager's webhook, version 4: one POST per notification, signed, and never sent on.
//!
//! What comes back decides by its status alone. Redirects are not followed, so that the receiver that was named is the one
//! that hears; no proxy is taken from the environment, for the address is checked where the connection is made.

mod body;

use std::{
    io::Read,
    sync::Arc,
    time::{Duration, SystemTime},
};

use ring::hmac;
use ureq::{
    Agent, Body,
    http::{HeaderMap, Response, header::RETRY_AFTER},
    tls::{Certificate, RootCerts, TlsConfig, TlsProvider},
    unversioned::{resolver::DefaultResolver, transport::DefaultConnector},
};

use super::{Notification, Outcome, addresses::Addresses};
use crate::{log::chain, model::Name, rule_file::Secret, rules::WebhookConfig};

/// How long a connection may take, TLS included, and how long all of it.
const CONNECT_WAIT: Duration = Duration::from_secs(3);
const TOTAL_WAIT: Duration = Duration::from_secs(10);
/// Nothing hangs on the answer's body but a reason for people.
const BODY_WAIT: Duration = Duration::from_secs(2);
/// Most of an answer that is read; a connection with more to say is not used again.
const MAX_ANSWER_BYTES: u64 = 64 << 10;
/// Most of an answer that is shown.
const SHOWN_CHARS: usize = 200;
/// Below the time after which common servers close what is idle.
const IDLE_WAIT: Duration = Duration::from_secs(4);
/// No more than the sink has under way.
const MAX_IDLE: usize = 8;
/// Longest time for which a receiver's wish to be left alone is heeded.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3_600);

/// The way to one webhook.
#[derive(Debug)]
pub struct Webhook {
    receiver: Name,
    url: String,
    key: Option<hmac::Key>,
    /// Parts of the URL that admit to it.
    secrets: Vec<String>,
    origin: String,
    agent: Agent,
}

impl Webhook {
    pub(super) fn new(receiver: Name, config: &WebhookConfig, secret: Option<&Secret>, origin: &str) -> Self {
        let tls = TlsConfig::builder().provider(TlsProvider::Rustls).root_certs(roots(config)).build();
        let options = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .user_agent(concat!("gopherwatch/", env!("CARGO_PKG_VERSION")))
            .accept("*/*")
            .timeout_resolve(Some(CONNECT_WAIT))
            .timeout_connect(Some(CONNECT_WAIT))
            .timeout_recv_body(Some(BODY_WAIT))
            .timeout_global(Some(TOTAL_WAIT))
            .max_idle_connections(MAX_IDLE)
            .max_idle_connections_per_host(MAX_IDLE)
            .max_idle_age(IDLE_WAIT)
            .tls_config(tls)
            .build();
        let addresses = Addresses { allow_private: config.allow_private, resolver: DefaultResolver::default() };
        Self {
            receiver,
            url: config.url.clone(),
            key: secret.map(|secret| hmac::Key::new(hmac::HMAC_SHA256, secret.bytes())),
            secrets: secrets(&config.url),
            origin: origin.to_owned(),
            agent: Agent::with_parts(options, DefaultConnector::new(), addresses),
        }
    }

    pub(super) fn send(&self, notification: &Notification) -> Outcome {
        let body = body::body(&self.receiver, &self.origin, notification);
        let mut request = self
            .agent
            .post(&self.url)
            .header("Content-Type", "application/json")
            .header("Idempotency-Key", &notification.key);
        let signature = self.key.as_ref().map(|key| signature(key, &body));
        if let Some(signature) = &signature {
            request = request.header("X-GopherWatch-Signature", signature);
        }
        let hidden = |text: String| {
            let secrets = self.secrets.iter().chain(&signature);
            secrets.fold(text, |text, secret| text.replace(secret.trim_start_matches("sha256="), "[hidden]"))
        };
        match request.send(&body[..]) {
            Ok(answer) => judge(answer, hidden),
            Err(err) => Outcome::Retry { after: None, why: hidden(chain(&err)) },
        }
    }
}

/// The system's certificate authorities, as other programs here trust them; Mozilla's where the system has none.
fn roots(config: &WebhookConfig) -> RootCerts {
    if !config.url.starts_with("https:") {
        return RootCerts::WebPki;
    }
    let found = rustls_native_certs::load_native_certs().certs;
    if found.is_empty() {
        return RootCerts::WebPki;
    }
    RootCerts::Specific(Arc::new(found.iter().map(|der| Certificate::from_der(der).to_owned()).collect()))
}

fn signature(key: &hmac::Key, body: &[u8]) -> String {
    let tag = hmac::sign(key, body);
    tag.as_ref().iter().fold("sha256=".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

/// What of a URL nobody is to read on a page or in a log: its path and query, and long parts of these, longest first.
fn secrets(url: &str) -> Vec<String> {
    const SHORTEST: usize = 6;
    let host = url.find("://").map_or(0, |at| at + 3);
    let Some(begin) = url[host..].find(['/', '?']).map(|at| host + at) else { return Vec::new() };
    let whole = &url[begin..];
    let mut secrets: Vec<_> = whole.split(['/', '?', '&', '=']).chain([whole]).map(str::to_owned).collect();
    secrets.retain(|part| part.len() >= SHORTEST);
    secrets.sort_by_key(|part| std::cmp::Reverse(part.len()));
    secrets
}

/// What the answer means: 2xx is done, 408, 429 and 5xx may pass, everything else will not. Where a redirect leads to is
/// not told: that, too, may be what admits to it.
fn judge(answer: Response<Body>, hidden: impl Fn(String) -> String) -> Outcome {
    let status = answer.status();
    let after = retry_after(answer.headers(), SystemTime::now());
    let mut said = Vec::new();
    // Read to its end where that is near, so that the connection can be used again; how that goes changes nothing.
    let _ = answer.into_body().into_reader().take(MAX_ANSWER_BYTES).read_to_end(&mut said);
    if status.is_success() {
        return Outcome::Done;
    }
    let said = shown(&hidden(String::from_utf8_lossy(&said).into_owned()));
    let why = match (status.is_redirection(), said.is_empty()) {
        (true, _) => {
            format!("it answered {status}: redirects are not followed, put the URL that it leads to into the rule file")
        }
        (false, true) => format!("it answered {status}"),
        (false, false) => format!("it answered {status}: {said}"),
    };
    if status.is_server_error() || matches!(status.as_u16(), 408 | 429) {
        Outcome::Retry { after, why }
    } else {
        Outcome::Refused { why }
    }
}

fn shown(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(SHOWN_CHARS).collect();
    text.trim().to_owned()
}

/// How long to wait, in either of its forms: seconds, or the date until which.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let wait = match is_number {
        // More than a number holds is more than is heeded.
        true => Duration::from_secs(text.parse().unwrap_or(u64::MAX)),
        false => {
            let until = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
            SystemTime::from(until).duration_since(now).unwrap_or_default()
        }
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

#[cfg(test)]
pub(super) mod tests;
