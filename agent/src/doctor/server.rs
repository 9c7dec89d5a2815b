//! The way to the server: its name, its port, whether it is one of ours, whether it lets this agent in, and its clock.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use gopherwatch_client::connection::{NoConnection, connect};
use gopherwatch_client::{clock, error::chain, send};
use gopherwatch_proto::v1::Summary;
use jiff::fmt::rfc2822::DateTimeParser;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tonic::{Code, Response, Status};

use super::{Finding, tls};
use crate::agent::Options;

/// For each step.
const WAIT: Duration = Duration::from_secs(5);
/// The server's date has no fractions of a second.
const MAX_SKEW: Duration = Duration::from_secs(2);

pub(super) async fn look(options: &Options) -> Vec<Finding> {
    let (host, port) = (options.server.host().unwrap_or_default(), options.server.port_u16().unwrap_or_default());
    let host = host.trim_matches(['[', ']']);
    let mut findings = Vec::new();
    let addrs: Vec<SocketAddr> = match timeout(WAIT, lookup_host((host, port))).await {
        Ok(Ok(addrs)) => addrs.collect(),
        Ok(Err(err)) => {
            let advice =
                format!("is the name in --server right? `getent hosts {host}` says what this host knows of it");
            findings.push(Finding::broken("address", format!("{host} has no address: {err}"), advice));
            return findings;
        }
        Err(_) => {
            let says = format!("no answer for {host} within {WAIT:?}");
            findings.push(Finding::broken(
                "address",
                says,
                "this host's name server does not answer: see /etc/resolv.conf",
            ));
            return findings;
        }
    };
    let shown: Vec<_> = addrs.iter().map(|addr| addr.ip().to_string()).collect();
    findings.push(Finding::fine("address", format!("{host} is {}", shown.join(", "))));
    let (unreachable, is_reachable) = ports(&addrs).await;
    findings.extend(unreachable);
    if is_reachable {
        findings.extend(talk(options).await);
    }
    findings
}

/// The addresses where nothing listens, and whether something does at one of them: that is enough for the agent, too.
async fn ports(addrs: &[SocketAddr]) -> (Vec<Finding>, bool) {
    let mut unreachable = Vec::new();
    for addr in addrs {
        unreachable.extend(reach(*addr).await.err());
    }
    let is_reachable = unreachable.len() < addrs.len();
    if is_reachable {
        for finding in &mut unreachable {
            let says = format!("{}; the agent goes on to the next address", finding.says);
            *finding = Finding::doubtful("port", says, "fine, unless gopherwatch-server should listen there too");
        }
    }
    (unreachable, is_reachable)
}

/// Whether anything listens there.
async fn reach(addr: SocketAddr) -> Result<(), Finding> {
    let broken = |says, advice: &str| Err(Finding::broken("port", says, advice));
    match timeout(WAIT, TcpStream::connect(addr)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(err)) => broken(
            format!("{addr}: {err}"),
            "is gopherwatch-server running there, with a --grpc-addr that this host can reach?",
        ),
        Err(_) => broken(
            format!("{addr} does not answer within {WAIT:?}"),
            "a firewall may be between: it must let this port through",
        ),
    }
}

/// A stream without reports: the receipt counts nothing, and says all that there is to know.
async fn talk(options: &Options) -> Vec<Finding> {
    let began = Instant::now();
    let connection = match timeout(WAIT, connect(&options.server, &options.tls)).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(NoConnection::Tls(err))) => return vec![tls::broken(&err)],
        Ok(Err(err)) => return vec![not_ours(&chain(&err))],
        Err(_) => return vec![not_ours(&format!("no answer within {WAIT:?}"))],
    };
    let service_id = "doctor".parse().expect("printable ASCII");
    let request = match send::request(tokio_stream::empty(), service_id, 0, clock::unix_nanos(), options.token.as_ref())
    {
        Ok(request) => request,
        Err(err) => return vec![Finding::broken("token", chain(&err), "put the server's agent token there")],
    };
    let mut findings = tls::look(options, connection.secured());
    match timeout(WAIT, send::call(&connection, request)).await {
        Ok(Ok(answer)) => {
            let says = format!("{} gives receipts, in {:.1} ms", options.server, began.elapsed().as_secs_f64() * 1e3);
            findings.push(Finding::fine("server", says));
            findings.extend(tokens(options));
            findings.push(clock(&answer));
        }
        // What was found of the connection was said too soon.
        Ok(Err(send::Refusal::Tls(err))) => return vec![tls::broken(&err)],
        Ok(Err(send::Refusal::Status(status))) => findings.push(refusal(&status, options)),
        Err(_) => findings.push(Finding::broken(
            "server",
            format!("it gives no receipt within {WAIT:?}"),
            "it may be stuck, or its disk full: its /readyz and its log say why",
        )),
    }
    findings
}

fn not_ours(why: &str) -> Finding {
    let advice = "is --server the address that agents connect to (--grpc-addr, port 50051), not that of REST (8080)?";
    Finding::broken("server", format!("what listens there does not speak gRPC: {why}"), advice)
}

fn refusal(status: &Status, options: &Options) -> Finding {
    let says = send::describe(status);
    match status.code() {
        Code::Unauthenticated | Code::PermissionDenied => {
            let advice = match options.token {
                Some(_) => "the server has other agent tokens than the one in --token-file",
                None => "the server asks for a token: give its agent token by --token-file",
            };
            Finding::broken("token", says, advice)
        }
        Code::ResourceExhausted => {
            Finding::doubtful("server", says, "it is overloaded now; reports would wait and be sent later")
        }
        Code::Unavailable => Finding::broken("server", says, "it is stopping or just starting: try again"),
        _ => not_ours(&says),
    }
}

fn tokens(options: &Options) -> Vec<Finding> {
    let Some(token) = &options.token else {
        return vec![Finding::fine("token", "none, and the server asks for none")];
    };
    let mut findings = vec![Finding::fine("token", "the server takes it, or asks for none")];
    findings.extend(readable("token", token.path()));
    findings
}

/// A secret that others can read.
pub(super) fn readable(subject: &'static str, path: &Path) -> Option<Finding> {
    let mode = fs::metadata(path).map(|about| about.permissions().mode()).unwrap_or_default();
    let says = || format!("others can read {}", path.display());
    (mode & 0o077 != 0).then(|| Finding::doubtful(subject, says(), "chmod 600 it, owned by the agent's user"))
}

/// By the date that every HTTP answer has.
fn clock(answer: &Response<Summary>) -> Finding {
    let date = answer.metadata().get("date").and_then(|value| value.to_str().ok());
    let Some(there) = date.and_then(|text| DateTimeParser::new().parse_timestamp(text).ok()) else {
        return Finding::doubtful("clock", "the server says no time", "compare the two hosts' clocks by hand");
    };
    let (there, here) = (SystemTime::from(there), SystemTime::now());
    // Its second may be nearly over.
    let (word, by) = match here.duration_since(there) {
        Ok(ahead) => ("ahead of", ahead.saturating_sub(Duration::from_secs(1))),
        Err(behind) => ("behind", behind.duration()),
    };
    if by <= MAX_SKEW {
        return Finding::fine("clock", "agrees with the server's");
    }
    let says = format!("{} s {word} the server's", by.as_secs());
    let advice = "the server reckons with it, but times in the history will look odd: let NTP set both clocks";
    Finding::doubtful("clock", says, advice)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::doctor::Verdict;

    #[tokio::test]
    async fn of_the_addresses_of_a_name_one_is_enough() {
        let open = TcpListener::bind("127.0.0.1:0").expect("a port");
        let closed = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
        let open_addr = open.local_addr().expect("an address");
        let verdicts = |findings: Vec<Finding>| findings.iter().map(|it| it.verdict).collect::<Vec<_>>();
        for addrs in [[closed, open_addr], [open_addr, closed]] {
            let (findings, is_reachable) = ports(&addrs).await;
            assert_eq!((verdicts(findings), is_reachable), (vec![Verdict::Doubtful], true));
        }
        let (findings, is_reachable) = ports(&[closed, closed]).await;
        assert_eq!((verdicts(findings), is_reachable), (vec![Verdict::Broken; 2], false));
    }
}
