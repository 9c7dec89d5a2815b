//! `[[receivers]]`: who is told of alerts, and how they are reached, as the file says it.
//!
//! What stands in other files, such as a secret, is read where the rule file is (`rule_file.rs`): rules do no I/O (I6).

use std::{collections::BTreeSet, fmt, net::IpAddr, sync::Arc};

use http::Uri;
use serde::Deserialize;
use toml::Spanned;

use super::{
    fault::{FileError, Location},
    file::Reader,
    suggest::nearest,
};
use crate::model::{Name, is_internal};

/// Each receiver has threads of its own, which are not for a crowd: who wants to tell many sends to what forwards.
pub const MAX_RECEIVERS: usize = 16;

/// Somebody who is told of alerts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiverConfig {
    /// Unique among the receivers.
    pub name: Name,
    /// How it is reached.
    pub way: Way,
    /// Whether it is told of resolves.
    pub send_resolved: bool,
}

/// How a receiver is reached: one variant per kind of receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// An HTTP request in the form of Alertmanager's webhook.
    Webhook(WebhookConfig),
}

impl Way {
    /// The word in the file.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Webhook(_) => "webhook",
        }
    }
}

/// A webhook as the file says it.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookConfig {
    /// Where to.
    pub url: String,
    /// The file with the key of its signatures, as it was written, and where that stands.
    pub secret_file: Option<(String, Location)>,
    /// Whether addresses of this host and its networks are allowed.
    pub allow_private: bool,
}

impl WebhookConfig {
    /// Scheme, host and port. The rest of a webhook's URL is often what admits to it, and is shown nowhere.
    pub fn shown(&self) -> &str {
        let host = self.url.find("://").map_or(0, |at| at + 3);
        let end = self.url[host..].find(['/', '?']).map_or(self.url.len(), |at| host + at);
        &self.url[..end]
    }
}

impl fmt::Debug for WebhookConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebhookConfig").field("url", &self.shown()).field("secret_file", &self.secret_file).finish()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawReceiver {
    name: Option<Spanned<String>>,
    r#type: Option<Spanned<String>>,
    url: Option<Spanned<String>>,
    secret_file: Option<Spanned<String>>,
    #[serde(default = "yes")]
    send_resolved: bool,
    #[serde(default)]
    allow_private: bool,
}

const fn yes() -> bool {
    true
}

impl Reader<'_> {
    /// The receivers of the file.
    pub(super) fn receivers(&self, raw: Vec<Spanned<RawReceiver>>) -> Result<Vec<ReceiverConfig>, FileError> {
        if let Some(more) = raw.get(MAX_RECEIVERS) {
            return Err(self.error(&more.span(), &format!("receivers: use {MAX_RECEIVERS} at most")));
        }
        let mut receivers = Vec::with_capacity(raw.len());
        let mut names = BTreeSet::new();
        for raw in raw {
            let span = raw.get_ref().name.as_ref().map_or(raw.span(), Spanned::span);
            let receiver = self.receiver(raw)?;
            if !names.insert(receiver.name.clone()) {
                return Err(self.error(&span, &format!("name: another receiver is called `{}`", receiver.name)));
            }
            receivers.push(receiver);
        }
        Ok(receivers)
    }

    fn receiver(&self, spanned: Spanned<RawReceiver>) -> Result<ReceiverConfig, FileError> {
        let whole = spanned.span();
        let raw = spanned.into_inner();
        let missing =
            |field, example| self.error(&whole, &format!("{field}: a receiver needs one, such as {field} = {example}"));
        let name = self.name(raw.name.as_ref().ok_or_else(|| missing("name", "\"ops\""))?)?;
        let kind = raw.r#type.as_ref().ok_or_else(|| missing("type", "\"webhook\""))?;
        if kind.get_ref() != "webhook" {
            return Err(self.error(&kind.span(), "type: use \"webhook\", the one kind that there is"));
        }
        let url = raw.url.as_ref().ok_or_else(|| missing("url", "\"https://example.com/hook\""))?;
        check_url(url.get_ref(), raw.allow_private).map_err(|why| self.error(&url.span(), &format!("url: {why}")))?;
        let secret_file = raw.secret_file.map(|path| {
            let location = self.lines.location(path.span().start);
            (path.into_inner(), location)
        });
        let webhook = WebhookConfig { url: url.get_ref().clone(), secret_file, allow_private: raw.allow_private };
        Ok(ReceiverConfig { name, way: Way::Webhook(webhook), send_resolved: raw.send_resolved })
    }

    /// The names of a field `receivers`, each of which has to be a receiver's.
    pub(super) fn told(
        &self,
        names: Option<&Vec<Spanned<String>>>,
        receivers: &[ReceiverConfig],
    ) -> Result<Option<Arc<[Name]>>, FileError> {
        let Some(names) = names else { return Ok(None) };
        let mut told: Vec<Name> = Vec::with_capacity(names.len());
        for name in names {
            let known = || receivers.iter().map(|receiver| &receiver.name);
            match known().find(|known| ***known == **name.get_ref()) {
                Some(known) if told.contains(known) => {}
                Some(known) => told.push(known.clone()),
                None => {
                    let hint = match nearest(name.get_ref(), known().map(|name| &**name)) {
                        Some(near) => format!(": did you mean `{near}`?"),
                        None if receivers.is_empty() => ": this file has none".to_owned(),
                        None => {
                            let known: Vec<_> = known().map(|name| format!("`{name}`")).collect();
                            format!(": there is {}", known.join(", "))
                        }
                    };
                    let message = format!("receivers: no [[receivers]] is called `{}`{hint}", name.get_ref());
                    return Err(self.error(&name.span(), &message));
                }
            }
        }
        Ok(Some(told.into()))
    }
}

/// What is wrong with a webhook's URL.
fn check_url(url: &str, allow_private: bool) -> Result<(), String> {
    let uri: Uri = url.parse().map_err(|err| format!("{err}: use one such as https://example.com/hook"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err("use one that begins with https:// or http://".to_owned());
    }
    let authority = uri.authority().ok_or("it names no host: use one such as https://example.com/hook")?;
    if authority.as_str().contains('@') {
        return Err("leave user and password out of it: whoever reads this file would have them".to_owned());
    }
    if url.contains('#') {
        return Err("leave out `#` and what follows: it is not sent".to_owned());
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() {
        return Err("it names no host: use one such as https://example.com/hook".to_owned());
    }
    // Names are looked up when a connection is made, and held to the same then.
    if host.parse::<IpAddr>().is_ok_and(is_internal) && !allow_private {
        return Err(format!(
            "{host} is an address of this host or its networks: say allow_private = true if you mean it"
        ));
    }
    Ok(())
}
