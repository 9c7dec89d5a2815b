//! The binary as a program: Cargo builds it for this test, and so for those of the server beside it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::process::Command;

fn chaos(args: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_chaos")).args(args).output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn a_run_without_a_server_or_without_a_scenario_fails_and_says_why() {
    let (ok, said) = chaos(&["run", "--server", "not-there"]);
    assert!(!ok && said.contains("cargo build --workspace"), "{said}");
    let (ok, said) = chaos(&["run", "--server", env!("CARGO_BIN_EXE_chaos"), "--only", "no-such", "--seed", "7"]);
    assert!(!ok && said.contains("seed 7: 0 of 0 scenarios"), "{said}");
}
