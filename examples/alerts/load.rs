//! The load generator, as a process of its own: its work must not delay what is timed here.

use std::process::{Child, Command, Stdio};

use gopherwatch_chaos::server::Server;

/// A running generator. It ends with its value.
pub(crate) struct Load(Child);

impl Load {
    /// Starts it with these flags.
    pub(crate) fn start(server: &Server, flags: &[&str]) -> Self {
        let program = std::env::current_exe().unwrap().with_file_name("load");
        let mut command = Command::new(program);
        command.args(["--server", &format!("http://{}", server.grpc()), "--numbered"]).args(flags);
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap())
    }

    /// Waits until it has a receipt for everything.
    pub(crate) fn finish(mut self) {
        assert!(self.0.wait().unwrap().success(), "the load generator failed");
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // Errors mean that it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
