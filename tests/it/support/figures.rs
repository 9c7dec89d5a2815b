//! Figures that a run shows: `cargo test -- --nocapture`.

#[expect(clippy::print_stdout, reason = "what was measured is worth reading")]
pub(crate) fn say(text: &str) {
    println!("measured: {text}");
}
