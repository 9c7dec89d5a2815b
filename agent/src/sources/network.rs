//! How many bytes the host's network interfaces have carried.
//!
//! On Linux from `/proc/net/dev`: one file a reading, where sysinfo opens eight for each interface, which on a host of
//! many containers would be most of the agent's work. Elsewhere from sysinfo.

use sysinfo::Networks;

use super::proc_file;

const PROC_NET_DEV: &str = "/proc/net/dev";

/// The host's interfaces, all but loopback.
#[derive(Debug)]
pub(crate) enum Network {
    /// Read `/proc/net/dev`.
    Proc,
    /// Ask sysinfo.
    Sysinfo(Networks),
}

/// Totals since boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Bytes {
    pub(crate) received: u64,
    pub(crate) transmitted: u64,
}

impl Network {
    pub(crate) fn new() -> Result<Self, sysinfo::Error> {
        if read_proc().is_some() {
            return Ok(Self::Proc);
        }
        Networks::new_with_refreshed_list().map(Self::Sysinfo)
    }

    /// The totals of now; none if they cannot be read, which would otherwise look like a reboot.
    pub(crate) fn bytes(&mut self) -> Option<Bytes> {
        match self {
            Self::Proc => read_proc(),
            Self::Sysinfo(networks) => {
                networks.refresh(true);
                let counted = networks.iter().filter(|(name, _)| name.to_str().is_none_or(|name| !is_loopback(name)));
                Some(counted.fold(Bytes::default(), |sum, (_, interface)| Bytes {
                    received: sum.received + interface.total_received(),
                    transmitted: sum.transmitted + interface.total_transmitted(),
                }))
            }
        }
    }
}

/// `lo` on Linux, `lo0` on the BSDs and macOS.
fn is_loopback(name: &str) -> bool {
    name == "lo" || name == "lo0"
}

fn read_proc() -> Option<Bytes> {
    sum(&proc_file(PROC_NET_DEV).ok()?)
}

/// Sums a `/proc/net/dev`: two lines of heading, then `name: rx_bytes` and seven more of receiving, `tx_bytes` and
/// seven more of sending (proc(5)).
fn sum(text: &str) -> Option<Bytes> {
    let mut sum = Bytes::default();
    for line in text.lines().skip(2) {
        // A name may contain a colon, as an alias's does; figures never do.
        let (name, figures) = line.rsplit_once(':')?;
        if is_loopback(name.trim()) {
            continue;
        }
        let mut figures = figures.split_ascii_whitespace();
        sum.received += figures.next()?.parse::<u64>().ok()?;
        sum.transmitted += figures.nth(7)?.parse::<u64>().ok()?;
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo: 548367983   84130    0    0    0     0          0         0 548367983   84130    0    0    0     0       0          0
  eth0: 103711842    3143    0    0    0     0          0         0   192366    1675    0    0    0     0       0          0
eth0:1:      1000       3    0    0    0     0          0         0       34       5    0    0    0     0       0          0
";

    #[test]
    fn all_interfaces_count_but_loopback() {
        assert_eq!(sum(TEXT), Some(Bytes { received: 103_712_842, transmitted: 192_400 }));
    }

    #[test]
    fn a_garbled_line_gives_no_figure_rather_than_a_wrong_one() {
        assert_eq!(sum(&TEXT.replace("192366", "x")), None);
        assert_eq!(sum(&TEXT[..TEXT.len() - 80]), None);
    }

    #[test]
    fn sysinfo_and_proc_agree() {
        let mut sysinfo = Network::Sysinfo(Networks::new_with_refreshed_list().expect("reading interfaces"));
        let before = sysinfo.bytes().expect("figures");
        let Some(between) = read_proc() else { return };
        let after = sysinfo.bytes().expect("figures");
        assert!((before.received..=after.received).contains(&between.received), "{before:?} {between:?} {after:?}");
    }
}
