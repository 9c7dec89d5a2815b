//! The example of a service that reports itself from Python, as its README has it.

use std::{fs, path::Path, process::Command, time::Duration};

use crate::support::{
    server::Server,
    wait::{SOON, eventually, found},
};

fn said(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The example in a folder of its own, with what is generated from the protocol.
fn example() -> (tempfile::TempDir, Command) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let source = root.join("contrib/examples/python");
    let folder = tempfile::tempdir().unwrap();
    for file in ["reporter.py", "checkout.py"] {
        fs::copy(source.join(file), folder.path().join(file)).unwrap();
    }
    let requirements = source.join("requirements.txt");
    let python = said(Command::new(root.join("scripts/python.sh")).arg(requirements).arg("example"));
    let python = python.trim();
    let mut protoc = Command::new(python);
    protoc.args(["-m", "grpc_tools.protoc", "--python_out=.", "--grpc_python_out=.", "-I"]).arg(root.join("proto"));
    said(protoc.arg("metrics.proto").current_dir(folder.path()));
    let mut command = Command::new(python);
    command.arg("checkout.py").current_dir(folder.path());
    (folder, command)
}

fn reading(server: &Server, name: &str) -> Option<f64> {
    server.service("checkout")?["instances"][0]["metrics"][name].as_f64()
}

#[test]
fn a_python_service_is_on_status_with_what_it_sent() {
    let (_folder, mut command) = example();
    let server = Server::start();
    let said = said(command.arg(server.grpc().to_string()).arg("1"));
    let requests: f64 = said.split(' ').next().unwrap().parse().unwrap();
    assert!(said.contains(" 0 dropped"), "{said}");
    assert_eq!((reading(&server, "request_count"), reading(&server, "queue_length")), (Some(requests), Some(42.0)));
    let service = server.service("checkout").unwrap();
    assert_eq!(
        (service["status"].as_str(), service["instances"][0]["instance"].as_str()),
        (Some("left"), Some("python-1"))
    );
    assert_eq!(server.status()["balance"]["duplicates"], 0);
}

/// While the server is away reports wait, and those whose receipt it did not give any more are sent again.
#[test]
fn across_a_kill_of_the_server_a_python_service_loses_nothing() {
    let (_folder, mut command) = example();
    let mut server = Server::start();
    let address = server.grpc().to_string();
    let child = command.arg(&address).arg("4").stdout(std::process::Stdio::piped()).spawn().unwrap();
    eventually(SOON, "it reports", || reading(&server, "request_count").is_some());
    server.kill9();
    let server = server.start_again(&format!("--grpc-addr {address}"));
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}");
    let last = said.lines().last().unwrap();
    let requests: f64 = last.split(' ').next().unwrap().parse().unwrap();
    let shown = found(Duration::from_secs(5), "its last reading", || reading(&server, "request_count"));
    assert_eq!(shown, requests);
    // Each of seven requests more: every report has its receipt, whichever server gave it.
    assert!(last.contains(&format!("{} reports receipted, 0 dropped", requests / 7.0 + 1.0)), "{said}");
}

/// A server that stops may have read nothing of a stream. It used to be asked again at once, for as long as it answered so.
#[test]
fn after_a_receipt_that_covers_nothing_a_python_service_waits() {
    let (folder, command) = example();
    let script = r#"
import metrics_pb2, metrics_pb2_grpc, reporter
calls = []
class Stub:
    def __init__(self, channel): pass
    def SendMetrics(self, reports, **options):
        calls.append(options)
        return metrics_pb2.Summary()
metrics_pb2_grpc.MetricsServiceStub = Stub
service = reporter.Reporter("127.0.0.1:1", "checkout")
is_delivered = service.close(timeout=1.0)
print(len(calls), is_delivered)
"#;
    let mut python = Command::new(command.get_program());
    let said = said(python.args(["-c", script]).current_dir(folder.path()));
    let (n_calls, is_delivered) = said.trim().lines().last().unwrap().split_once(' ').unwrap();
    assert_eq!(is_delivered, "False");
    let n_calls: u32 = n_calls.parse().unwrap();
    assert!((1..=7).contains(&n_calls), "{n_calls} in a second");
}
