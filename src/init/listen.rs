//! Where a server listens, and by which names it is reached there.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket},
    str::FromStr,
};

/// Agents' port, unless another one is said.
const PORT: u16 = 50_051;
/// Addresses for documentation (RFC 5737, RFC 3849): they are everywhere and nowhere.
const AWAY: [(IpAddr, IpAddr); 2] = [
    (IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))),
    (IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))),
];

/// What was said of where to listen: `HOST`, `HOST:PORT` or `:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// A name or an address; `None`: every address.
    host: Option<String>,
    ip: IpAddr,
    port: u16,
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "use HOST, HOST:PORT or :PORT, such as 0.0.0.0:50051 or monitor.example".to_owned();
        let (host, port) = if let Ok(addr) = text.parse::<SocketAddr>() {
            (addr.ip().to_string(), addr.port())
        } else if let Ok(ip) = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            (ip.to_string(), PORT)
        } else {
            match text.split_once(':') {
                None => (text.to_owned(), PORT),
                Some((host, port)) => (host.to_owned(), port.parse().map_err(|_| wrong())?),
            }
        };
        if host.is_empty() && text.starts_with(':') {
            return Ok(Self { host: None, ip: Ipv4Addr::UNSPECIFIED.into(), port });
        }
        let ip = match host.parse::<IpAddr>() {
            Ok(ip) => ip,
            Err(_) if !is_name(&host) => return Err(wrong()),
            Err(_) if host.eq_ignore_ascii_case("localhost") => Ipv4Addr::LOCALHOST.into(),
            // By whichever address the name leads here.
            Err(_) => Ipv4Addr::UNSPECIFIED.into(),
        };
        let is_any = host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified());
        Ok(Self { host: (!is_any).then_some(host), ip, port })
    }
}

impl Listen {
    /// Where agents connect.
    pub const fn grpc(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.port)
    }

    /// Where REST answers.
    pub const fn http(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.ip, port)
    }

    /// The name or address that agents are told, as a URL has it.
    pub(super) fn reached_at(&self, hosts: &[String]) -> String {
        let host = self.host.clone().or_else(|| hosts.first().cloned()).unwrap_or_else(host_name);
        if host.parse::<Ipv6Addr>().is_ok() { format!("[{host}]") } else { host }
    }

    /// Every name and address by which the server may be reached, the one that agents are told first.
    pub(super) fn names(&self, hosts: &[String]) -> Vec<String> {
        let host_name = host_name();
        let looked_up = (host_name.as_str(), 0).to_socket_addrs().into_iter().flatten().map(|addr| addr.ip());
        let addresses: Vec<String> = looked_up.chain(own_addresses()).map(|ip| ip.to_string()).collect();
        let local = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        let all = self.host.iter().chain(hosts).cloned().chain([host_name]).chain(addresses).chain(local);
        let mut names: Vec<String> = Vec::new();
        for name in all {
            if !names.iter().any(|other| other.eq_ignore_ascii_case(&name)) {
                names.push(name);
            }
        }
        names
    }
}

/// The addresses that this host has for others: those from which it would call away. Nothing is sent.
fn own_addresses() -> impl Iterator<Item = IpAddr> {
    AWAY.into_iter().filter_map(|(from, away)| {
        let socket = UdpSocket::bind((from, 0)).ok()?;
        socket.connect((away, 9)).ok()?;
        Some(socket.local_addr().ok()?.ip())
    })
}

/// This host's name, or `localhost` if it has none that others could use.
fn host_name() -> String {
    let name = rustix::system::uname();
    name.nodename().to_str().ok().filter(|name| is_name(name)).unwrap_or("localhost").to_owned()
}

/// Whether this can stand in a certificate and a URL (RFC 1123, 2.1).
fn is_name(text: &str) -> bool {
    let is_label = |label: &str| {
        let fits = (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        fits && !label.starts_with('-') && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

/// Whether this is a name or an address alone, as `--host` takes it.
pub(super) fn is_host(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok() || is_name(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_in_all_the_ways_that_people_write_it() {
        for (text, grpc, reached_at) in [
            ("0.0.0.0:50051", "0.0.0.0:50051", "other.example"),
            ("0.0.0.0", "0.0.0.0:50051", "other.example"),
            (":9000", "0.0.0.0:9000", "other.example"),
            ("[::]:50052", "[::]:50052", "other.example"),
            ("::", "[::]:50051", "other.example"),
            ("192.0.2.7:1", "192.0.2.7:1", "192.0.2.7"),
            ("[2001:db8::7]", "[2001:db8::7]:50051", "[2001:db8::7]"),
            ("monitor.example", "0.0.0.0:50051", "monitor.example"),
            ("monitor.example:9000", "0.0.0.0:9000", "monitor.example"),
            ("localhost:9000", "127.0.0.1:9000", "localhost"),
        ] {
            let listen: Listen = text.parse().unwrap_or_else(|err| panic!("{text}: {err}"));
            assert_eq!(listen.grpc().to_string(), grpc, "{text}");
            assert_eq!(listen.reached_at(&["other.example".to_owned()]), reached_at, "{text}");
        }
        for wrong in
            ["", ":", ":port", "a b", "https://monitor", "monitor:99999", "-x", "a..b", "user@host", "1.2.3.4:"]
        {
            assert!(wrong.parse::<Listen>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_name_is_there_once_and_the_agents_first() {
        let listen: Listen = "monitor.example:1".parse().unwrap();
        let names = listen.names(&["LOCALHOST".to_owned(), "192.0.2.9".to_owned()]);
        assert_eq!(names[..3], ["monitor.example", "LOCALHOST", "192.0.2.9"]);
        for name in ["127.0.0.1", "::1", &host_name()] {
            assert!(names.iter().any(|found| found.eq_ignore_ascii_case(name)), "{name}: {names:?}");
        }
        assert_eq!(names.iter().filter(|name| name.eq_ignore_ascii_case("localhost")).count(), 1, "{names:?}");
    }
}
