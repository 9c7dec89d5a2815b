//! How full the host's file systems are, and how much its disks have carried.
//!
//! sysinfo knows the mounts; going through them is most of what a reading would cost, and a disk does not fill up in
//! seconds, so that is done every ten. Bytes carried are read each time: on Linux from `/proc/diskstats`, one file a
//! reading, elsewhere through sysinfo.

use std::collections::{BTreeSet, HashSet};
use std::ffi::OsStr;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::statvfs;
use sysinfo::{Disk, DiskRefreshKind, Disks};

use super::{percent, proc_file};

const PROC_DISKSTATS: &str = "/proc/diskstats";

/// How old the fill may be, and the list of mounts.
const REFRESH: Duration = Duration::from_secs(10);

/// `/proc/diskstats` counts in these, whatever a disk's own are.
const SECTOR_BYTES: u64 = 512;

/// The host's disks and what is mounted from them.
#[derive(Debug)]
pub(crate) struct Storage {
    disks: Disks,
    fullest: Option<f64>,
    refreshed: Instant,
    carried_by: CarriedBy,
}

#[derive(Debug)]
enum CarriedBy {
    /// `/proc/diskstats`, and the devices in it that something is mounted from.
    Proc(BTreeSet<String>),
    /// What sysinfo says.
    Sysinfo,
}

/// Totals since boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Carried {
    pub(crate) read_bytes: u64,
    pub(crate) written_bytes: u64,
}

impl Storage {
    pub(crate) fn new() -> Result<Self, sysinfo::Error> {
        let disks = Disks::new_with_refreshed_list_specifics(fill().with_io_usage())?;
        let carried_by = match proc_file(PROC_DISKSTATS) {
            Ok(_) => CarriedBy::Proc(devices(&disks)),
            Err(_) => CarriedBy::Sysinfo,
        };
        Ok(Self { fullest: fullest(&disks), disks, refreshed: Instant::now(), carried_by })
    }

    /// Looks at the mounts again if it is time to.
    pub(crate) fn refresh(&mut self) {
        let is_due = self.refreshed.elapsed() >= REFRESH;
        match &mut self.carried_by {
            CarriedBy::Proc(mounted) if is_due => {
                self.disks.refresh_specifics(true, fill());
                *mounted = devices(&self.disks);
            }
            CarriedBy::Proc(_) => {}
            CarriedBy::Sysinfo if is_due => self.disks.refresh_specifics(true, fill().with_io_usage()),
            CarriedBy::Sysinfo => self.disks.refresh_specifics(false, DiskRefreshKind::nothing().with_io_usage()),
        }
        if is_due {
            self.fullest = fullest(&self.disks);
            self.refreshed = Instant::now();
        }
    }

    /// The fill of the fullest file system that can fill up and hurt, as it was when they were looked at.
    pub(crate) fn fullest_percent(&self) -> Option<f64> {
        self.fullest
    }

    /// Each device once however often it is mounted; none if they cannot be read, which would otherwise look like a
    /// reboot.
    pub(crate) fn carried(&self) -> Option<Carried> {
        match &self.carried_by {
            CarriedBy::Proc(mounted) => Some(sum(&proc_file(PROC_DISKSTATS).ok()?, mounted)),
            CarriedBy::Sysinfo => {
                let mut seen = HashSet::new();
                let usage = self.disks.iter().filter(|disk| seen.insert(disk.name())).map(Disk::usage);
                Some(usage.fold(Carried::default(), |sum, usage| Carried {
                    read_bytes: sum.read_bytes + usage.total_read_bytes,
                    written_bytes: sum.written_bytes + usage.total_written_bytes,
                }))
            }
        }
    }
}

fn fullest(disks: &Disks) -> Option<f64> {
    disks
        .iter()
        .filter(|disk| counts(disk.file_system(), disk.mount_point(), disk.is_read_only(), disk.total_space()))
        .filter_map(|disk| used_percent(disk.mount_point()))
        .max_by(f64::total_cmp)
}

/// As df reckons: what is kept for root counts neither as used nor as room. sysinfo does not say how much that is.
fn used_percent(mount_point: &Path) -> Option<f64> {
    let space = statvfs(mount_point).ok()?;
    let used = space.f_blocks.saturating_sub(space.f_bfree);
    Some(percent(used, used + space.f_bavail))
}

fn fill() -> DiskRefreshKind {
    DiskRefreshKind::nothing().with_storage()
}

/// The kernel's names of the mounted devices: `/dev/mapper/root` is a link to `/dev/dm-0`.
fn devices(disks: &Disks) -> BTreeSet<String> {
    let device = |disk: &Disk| {
        let path = std::fs::canonicalize(disk.name()).ok()?;
        Some(path.strip_prefix("/dev").ok()?.to_str()?.to_owned())
    };
    disks.iter().filter_map(device).collect()
}

/// Whether a file system is writable and real. sysinfo has left out tmpfs, proc and their like, and network mounts.
fn counts(file_system: &OsStr, mount_point: &Path, is_read_only: bool, total_bytes: u64) -> bool {
    let file_system = file_system.to_string_lossy();
    let is_real = match &*file_system {
        // As the root, it is a container's own disk; elsewhere it repeats the disk below it.
        "overlay" => mount_point == Path::new("/"),
        "ramfs" | "tmpfs" | "devtmpfs" | "efivarfs" | "erofs" | "cramfs" | "squashfs" | "iso9660" | "udf" => false,
        other => !other.starts_with("fuse."),
    };
    is_real && !is_read_only && total_bytes > 0
}

/// Sums a `/proc/diskstats`: numbers of the device, its name, then reads, merged, sectors read, time, and the same of
/// writing (the kernel's iostats.rst).
fn sum(text: &str, devices: &BTreeSet<String>) -> Carried {
    let figures = |line: &str| {
        let mut fields = line.split_ascii_whitespace().skip(2);
        let name = fields.next()?;
        if !devices.contains(name) {
            return None;
        }
        let sectors_read: u64 = fields.nth(2)?.parse().ok()?;
        let sectors_written: u64 = fields.nth(3)?.parse().ok()?;
        Some(Carried { read_bytes: sectors_read * SECTOR_BYTES, written_bytes: sectors_written * SECTOR_BYTES })
    };
    text.lines().filter_map(figures).fold(Carried::default(), |sum, one| Carried {
        read_bytes: sum.read_bytes + one.read_bytes,
        written_bytes: sum.written_bytes + one.written_bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
   7       0 loop0 11 0 28 1 0 0 0 0 0 4 1 0 0 0 0 0 0
 254       0 vda 43821 9152 1895570 18310 81502 63155 5212104 121034 0 55120 139345 0 0 0 0 0 0
 254       1 vda1 5 0 16 0 3 0 32 0 0 1 1
";

    fn devices(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn the_disks_that_count_are_writable_and_real() {
        let counts =
            |kind: &str, mount: &str, read_only, bytes| counts(kind.as_ref(), mount.as_ref(), read_only, bytes);
        assert!(counts("ext4", "/", false, 1));
        assert!(counts("xfs", "/var", false, 1));
        assert!(counts("overlay", "/", false, 1), "a container's root");
        assert!(!counts("overlay", "/var/lib/docker/overlay2/x/merged", false, 1));
        assert!(!counts("ext4", "/mnt", true, 1), "read-only");
        assert!(!counts("ext4", "/mnt", false, 0), "no size");
        assert!(!counts("tmpfs", "/tmp", false, 1));
        assert!(!counts("squashfs", "/snap/core", false, 1));
        assert!(!counts("fuse.lxcfs", "/var/lib/lxcfs", false, 1));
    }

    #[test]
    fn mounted_devices_count_and_no_others() {
        let vda = Carried { read_bytes: 1_895_570 * 512, written_bytes: 5_212_104 * 512 };
        assert_eq!(sum(TEXT, &devices(&["vda"])), vda);
        assert_eq!(sum(TEXT, &devices(&["vda1", "sdb"])), Carried { read_bytes: 8192, written_bytes: 16384 });
        assert_eq!(sum(TEXT, &devices(&[])), Carried::default());
    }

    #[test]
    fn sysinfo_and_proc_agree() {
        let carried = |carried_by| {
            let mut storage = Storage::new().expect("reading disks");
            storage.carried_by = carried_by;
            storage.carried().expect("figures")
        };
        let Ok(Storage { carried_by: CarriedBy::Proc(devices), .. }) = Storage::new() else { return };
        let before = carried(CarriedBy::Sysinfo);
        let between = carried(CarriedBy::Proc(devices));
        let after = carried(CarriedBy::Sysinfo);
        assert!(
            (before.read_bytes..=after.read_bytes).contains(&between.read_bytes),
            "{before:?} {between:?} {after:?}"
        );
    }
}
