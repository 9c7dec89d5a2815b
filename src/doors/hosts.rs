//! Under which names REST answers.
//!
//! A page of the web can have its own name lead to an address that only its reader can reach, this server's among them, and
//! then reads as that reader (DNS rebinding). The browser still says the page's name as the host; addresses written as such
//! cannot be made to lead elsewhere.

use std::net::IpAddr;

use http::uri::Authority;

/// The names under which REST answers.
#[derive(Clone, Debug)]
pub struct Hosts {
    names: Vec<String>,
    /// Whether other hosts can reach REST.
    is_wide: bool,
}

impl Default for Hosts {
    /// On loopback, and no name but its own.
    fn default() -> Self {
        Self { names: Vec::new(), is_wide: false }
    }
}

impl Hosts {
    /// REST listens at `addr` and may be called by these names and addresses.
    ///
    /// # Errors
    /// The name that is none.
    pub fn new(addr: IpAddr, names: &[String]) -> Result<Self, String> {
        let mut known = Vec::new();
        for name in names.iter().map(|name| name.trim()).filter(|name| !name.is_empty()) {
            let bare = name.trim_start_matches('[').trim_end_matches(']');
            let is_ip = bare.parse::<IpAddr>().is_ok();
            let is_name = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
            if !is_ip && !is_name {
                return Err(name.to_owned());
            }
            known.push(bare.to_ascii_lowercase());
        }
        Ok(Self { names: known, is_wide: !addr.is_loopback() })
    }

    /// Whether REST answers to what a request says as its host, with or without a port.
    pub fn admit(&self, host: &str) -> bool {
        let Ok(authority) = host.parse::<Authority>() else { return false };
        if authority.as_str().contains('@') {
            return false;
        }
        let name = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let ip = name.parse::<IpAddr>().ok();
        name == "localhost"
            || ip.is_some_and(|ip| ip.is_loopback())
            || self.names.contains(&name)
            // Other hosts call it by one of many addresses, unless the operator has said by which.
            || self.is_wide && self.names.is_empty() && ip.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(addr: &str, names: &[&str], admitted: &[&str], refused: &[&str]) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let hosts = Hosts::new(addr.parse().unwrap(), &names).unwrap();
        for host in
            ["localhost", "LOCALHOST:8080", "127.0.0.1", "127.0.0.1:1", "[::1]", "[::1]:8080"].iter().chain(admitted)
        {
            assert!(hosts.admit(host), "{addr} {names:?}: {host}");
        }
        let never = [
            "",
            ":8080",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "evil.example:8080",
            "user@localhost",
            "a b",
        ];
        for host in never.iter().chain(refused) {
            assert!(!hosts.admit(host), "{addr} {names:?}: {host}");
        }
    }

    #[test]
    fn on_loopback_it_answers_to_loopback_and_to_names_that_were_allowed() {
        for addr in ["127.0.0.1", "::1"] {
            check(addr, &[], &[], &["monitor.example", "192.0.2.7", "0.0.0.0"]);
            let names = ["Monitor.example", "192.0.2.7", "[2001:db8::7]"];
            let admitted = ["monitor.example", "MONITOR.example:8080", "192.0.2.7:80", "[2001:db8::7]:8080"];
            check(addr, &names, &admitted, &["192.0.2.8", "other.example", "x.monitor.example"]);
        }
    }

    #[test]
    fn reached_by_others_it_answers_to_addresses_until_names_are_said() {
        check("0.0.0.0", &[], &["192.0.2.7:8080", "[2001:db8::7]"], &["monitor.example"]);
        check("192.0.2.7", &["monitor.example"], &["monitor.example:8080"], &["192.0.2.7:8080", "[2001:db8::7]"]);
    }

    #[test]
    fn what_is_no_name_is_said() {
        for wrong in ["https://monitor.example", "monitor.example:8080", "*.example", "a b"] {
            assert_eq!(Hosts::new(IpAddr::from([127, 0, 0, 1]), &[wrong.to_owned()]).unwrap_err(), wrong);
        }
        assert!(Hosts::new(IpAddr::from([127, 0, 0, 1]), &[String::new()]).is_ok(), "an empty variable says nothing");
    }
}
