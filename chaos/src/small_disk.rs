//! A small file system (tmpfs) for a server's data, which can be filled, emptied and made larger while the server runs.
//!
//! It is mounted in a user and mount namespace of its own, so that no rights are needed where those are allowed, and nothing
//! stays mounted: the namespace ends with its holder and with the server, which is started in it.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

const MIB: u64 = 1 << 20;

/// A mounted file system. It ends with its value, once nobody uses it any more.
#[derive(Debug)]
pub struct SmallDisk {
    holder: Child,
    at: PathBuf,
}

impl SmallDisk {
    /// Mounts one of so many MiB at the absolute path `at`, which must be an empty folder. An error says why this machine
    /// does not allow it.
    pub fn mount(at: &Path, mib: u64) -> Result<Self, String> {
        let script = "mount -t tmpfs -o size=$1m tmpfs \"$0\" && echo mounted && exec cat";
        let mut holder = Command::new("unshare")
            .args(["-r", "-m", "/bin/sh", "-c", script])
            .arg(at)
            .arg(mib.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|err| format!("unshare: {err}"))?;
        let mut line = String::new();
        // Nothing but an end: it could not.
        let _ = BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line);
        if line != "mounted\n" {
            let mut said = String::new();
            let _ = holder.stderr.take().unwrap().read_to_string(&mut said);
            let _ = holder.wait();
            return Err(format!("no file system of its own here: {}", said.trim()));
        }
        Ok(Self { holder, at: at.to_owned() })
    }

    /// Whether this machine allows it.
    pub fn is_possible() -> Result<(), String> {
        let folder = tempfile::tempdir().unwrap();
        Self::mount(folder.path(), 1).map(drop)
    }

    /// `program`, to be started where the file system is seen.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--user", "--mount", "--target", &self.holder.id().to_string()]).arg(program);
        command
    }

    /// Where it is seen from outside.
    pub fn seen_at(&self) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        root.join(self.at.strip_prefix("/").expect("an absolute path"))
    }

    /// Makes it so large.
    pub fn resize(&self, mib: u64) {
        let options = format!("remount,size={mib}m");
        let output = self.command(Path::new("mount")).args(["-o", &options]).arg(&self.at).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Takes room until so many MiB are free; 0: until nothing is.
    pub fn fill(&self, free_mib: u64) {
        let mut file = File::options().create(true).append(true).open(self.filler()).unwrap();
        let piece = vec![0; 256 << 10];
        let mut left = if free_mib == 0 { u64::MAX } else { self.free().saturating_sub(free_mib * MIB) };
        while left > 0 {
            let len = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            match file.write(&piece[..len]) {
                Ok(n) => left -= n as u64,
                Err(err) if err.kind() == io::ErrorKind::StorageFull => return,
                Err(err) => panic!("filling the disk: {err}"),
            }
        }
    }

    /// Gives back what [`Self::fill`] took.
    pub fn free_up(&self) {
        fs::remove_file(self.filler()).unwrap();
    }

    /// Free bytes.
    pub fn free(&self) -> u64 {
        let output = Command::new("stat").args(["-f", "-c", "%a %S"]).arg(self.seen_at()).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let mut numbers = text.split_whitespace().map(|number| number.parse::<u64>().unwrap());
        numbers.next().unwrap() * numbers.next().unwrap()
    }

    fn filler(&self) -> PathBuf {
        self.seen_at().join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Errors mean that it is gone already.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
