#![no_main]
//! Any text as a rule file, and as a condition (README.md).

extern crate gopherwatch;

mod rules_probe;

libfuzzer_sys::fuzz_target!(|text: &str| rules_probe::probe(text));
