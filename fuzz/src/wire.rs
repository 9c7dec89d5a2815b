#![no_main]
//! Any bytes as a report (README.md).

extern crate gopherwatch_proto;

mod wire_probe;

libfuzzer_sys::fuzz_target!(|message: &[u8]| drop(wire_probe::probe(message)));
