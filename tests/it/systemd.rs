//! As a service of systemd: what it is told of the server's life, and the units that come with the programs.

use std::{
    fs,
    os::unix::net::UnixDatagram,
    path::Path,
    process::{Command, Stdio},
};

use crate::support::{
    server::Setup,
    wait::{SOON, found},
};

/// The service manager's end of the notifications.
struct Manager {
    socket: UnixDatagram,
    heard: String,
}

impl Manager {
    fn hears(&mut self, word: &str) {
        found(SOON, word, || {
            let mut message = [0; 4_096];
            while let Ok(n) = self.socket.recv(&mut message) {
                self.heard += &format!("{}\n", String::from_utf8_lossy(&message[..n]));
            }
            self.heard.lines().any(|line| line == word).then_some(())
        });
    }
}

#[test]
fn systemd_hears_that_it_is_ready_lives_and_stops() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_nonblocking(true).unwrap();
    let mut manager = Manager { socket, heard: String::new() };
    let setup = Setup::new().env("NOTIFY_SOCKET", path.to_str().unwrap()).env("WATCHDOG_USEC", "30000000");
    let mut server = setup.start();
    manager.hears("READY=1");
    manager.hears("WATCHDOG=1");
    assert!(!manager.heard.contains("STOPPING=1"));
    assert_eq!(server.stop(), 0);
    manager.hears("STOPPING=1");
}

#[test]
fn systemd_hears_of_the_agent_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_nonblocking(true).unwrap();
    let mut manager = Manager { socket, heard: String::new() };
    let program = Path::new(env!("CARGO_BIN_EXE_gopherwatch-server")).with_file_name("gopherwatch-agent");
    let mut agent = Command::new(program)
        .args(["--statsd-addr", "off"])
        .envs([("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "30000000")])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    manager.hears("READY=1");
    manager.hears("WATCHDOG=1");
    Command::new("kill").args(["-TERM", &agent.id().to_string()]).status().unwrap();
    manager.hears("STOPPING=1");
    assert!(agent.wait().unwrap().success());
}

#[test]
fn the_units_are_valid() {
    let folder = tempfile::tempdir().unwrap();
    let programs = Path::new(env!("CARGO_BIN_EXE_gopherwatch-server")).parent().unwrap();
    for program in ["gopherwatch-server", "gopherwatch-agent"] {
        let name = format!("{program}.service");
        let unit =
            fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/systemd").join(&name)).unwrap();
        // Where Cargo has put them instead of where an administrator does.
        let unit = unit.replace("/usr/local/bin/", &format!("{}/", programs.display()));
        let path = folder.path().join(&name);
        fs::write(&path, unit).unwrap();
        let told = Command::new("systemd-analyze").arg("verify").arg(&path).output().unwrap();
        assert!(told.status.success() && told.stderr.is_empty(), "{name}: {told:?}");
    }
}
