//! Figures that a run shows: `cargo test -- --nocapture`.

#[expect(clippy::print_stdout, reason = "what was measured is worth reading")]
pub(crate) fn say(text: &str) {
    println!("measured: {text}");
}

/// Seconds that a test lasts which is better the longer it lasts.
pub(crate) fn seconds(usual: u64) -> u64 {
    std::env::var("GOPHERWATCH_IT_SECONDS").map_or(usual, |text| text.parse().expect("a number of seconds"))
}
