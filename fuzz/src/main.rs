#![no_main]
//! Any text as a rule file, and as a condition (README.md).

extern crate gopherwatch;

mod probe;

libfuzzer_sys::fuzz_target!(|text: &str| probe::probe(text));
