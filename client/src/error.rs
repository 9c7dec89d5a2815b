//! Errors in one line.

use std::error::Error;

/// `err` and its sources, outermost first.
pub fn chain(err: &dyn Error) -> String {
    let mut text = err.to_string();
    let mut source = err.source();
    while let Some(err) = source {
        let more = err.to_string();
        // Some libraries repeat their source's words in their own.
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        source = err.source();
    }
    text
}
