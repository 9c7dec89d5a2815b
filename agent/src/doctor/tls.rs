//! Whether what is sent can be read on the way, and how long it will be so.

use std::time::{Duration, SystemTime};

use gopherwatch_client::address;
use gopherwatch_client::tls::{Secured, TlsError};
use jiff::Timestamp;

use super::Finding;
use super::server::readable;
use crate::agent::Options;

/// Whoever renews certificates by hand should have the time for it; what renews them by itself has done so before.
const SOON: Duration = Duration::from_secs(14 * 86_400);

/// Why there is no connection.
pub(super) fn broken(err: &TlsError) -> Finding {
    Finding::broken("tls", err.to_string(), err.advice())
}

/// Of a connection that there is.
pub(super) fn look(options: &Options, secured: Option<Secured>) -> Vec<Finding> {
    let Some(secured) = secured else { return vec![in_the_clear(options)] };
    let mut findings = vec![certificate(options, &secured)];
    findings.push(match (options.tls.key(), secured.asked_for_certificate) {
        (None, false) => Finding::fine("tls", "the server asks for no client certificate"),
        (None, true) => Finding::fine("tls", "the server asks for a client certificate, and does without"),
        (Some(_), true) => Finding::fine("tls", "the server asks for a client certificate, and takes that of --cert"),
        (Some(_), false) => {
            Finding::fine("tls", "the server asks for no client certificate: --cert and --key are not used")
        }
    });
    findings.extend(options.tls.key().and_then(|key| readable("tls", key)));
    findings
}

fn in_the_clear(options: &Options) -> Finding {
    if !address::is_exposed(&options.server) {
        return Finding::fine("tls", "not encrypted: nothing leaves this host");
    }
    let what = if options.token.is_some() { "reports and the token" } else { "reports" };
    let says = format!("not encrypted: {what} can be read and changed on the way");
    Finding::doubtful("tls", says, "give the server a certificate, and say https:// in --server")
}

fn certificate(options: &Options, secured: &Secured) -> Finding {
    let host = options.server.host().unwrap_or_default();
    let by = options.tls.ca().map_or_else(|| "this host's authorities".to_owned(), |ca| ca.display().to_string());
    let says = format!("{}; the certificate is for {host} and trusted by {by}", secured.version);
    let Some(until) = secured.valid_until else {
        return Finding::fine("tls", says);
    };
    let date = Timestamp::try_from(until).map_or_else(|_| "9999".to_owned(), |time| time.to_string());
    let left = until.duration_since(SystemTime::now()).unwrap_or_default();
    if left >= SOON {
        return Finding::fine("tls", format!("{says}, until {date}"));
    }
    let says = format!("{says}, but only until {date}, for {} days more", left.as_secs() / 86_400);
    Finding::doubtful("tls", says, "renew the server's certificate before: from then on agents do not connect")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{self, Task};
    use crate::doctor::Verdict;

    #[test]
    fn http_is_doubtful_where_it_leaves_this_host() {
        let found =
            |line: &str| match args::parse(format!("gopherwatch-agent doctor {line}").split(' ').map(Into::into)) {
                Ok(Task::Doctor(options)) => look(&options, None).remove(0),
                other => panic!("{line}: {other:?}"),
            };
        for here in ["--server 127.0.0.1", "--server [::1]:4000", "--server http://localhost"] {
            assert_eq!(found(here).verdict, Verdict::Fine, "{here}");
        }
        for elsewhere in ["--server 10.0.0.1", "--server http://watch.example"] {
            let finding = found(elsewhere);
            assert_eq!(finding.verdict, Verdict::Doubtful, "{elsewhere}");
            assert!(finding.says.contains("reports can be read") && finding.advice.contains("https://"), "{finding:?}");
        }
    }
}
