//! Where a page ended, in a form that clients only hand back: a kind, a version, and hexadecimal digits.
//!
//! The version lets a later server change what is inside and refuse, rather than misread, a cursor made before.

use std::fmt::Write as _;

use crate::{model::Timestamp, store::Cursor};

const HISTORY: &str = "h1";
const STATUS: &str = "s1";

/// After this row of the history.
pub(super) fn of_row(cursor: Cursor) -> String {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&cursor.triggered_at.as_micros().to_be_bytes());
    bytes[8..].copy_from_slice(&cursor.id.to_be_bytes());
    encode(HISTORY, &bytes)
}

/// The row of the history that [`of_row`] was made of.
pub(super) fn row(text: &str) -> Option<Cursor> {
    let bytes: [u8; 16] = decode(HISTORY, text)?.try_into().ok()?;
    let (micros, id) = bytes.split_at(8);
    let triggered_at = Timestamp::from_micros(i64::from_be_bytes(micros.try_into().ok()?));
    Some(Cursor { triggered_at, id: u64::from_be_bytes(id.try_into().ok()?) })
}

/// After this service.
pub(super) fn of_service(service: &str) -> String {
    encode(STATUS, service.as_bytes())
}

/// The service that [`of_service`] was made of.
pub(super) fn service(text: &str) -> Option<String> {
    String::from_utf8(decode(STATUS, text)?).ok()
}

fn encode(kind: &str, bytes: &[u8]) -> String {
    bytes.iter().fold(kind.to_owned(), |mut text, byte| {
        // Writing into a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn decode(kind: &str, text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix(kind)?.as_bytes();
    // One way to write each cursor: what we did not make is refused.
    let lower_hex = |c: &u8| c.is_ascii_digit() || (b'a'..=b'f').contains(c);
    if digits.is_empty() || !digits.len().is_multiple_of(2) || !digits.iter().all(lower_hex) {
        return None;
    }
    let pairs = digits.chunks_exact(2).map(|pair| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok());
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_come_back_as_they_went_out() {
        for (micros, id) in [(0, 0), (1_795_401_565_000_001, 42), (-1, u64::MAX)] {
            let cursor = Cursor { triggered_at: Timestamp::from_micros(micros), id };
            assert_eq!(row(&of_row(cursor)), Some(cursor));
        }
        assert_eq!(service(&of_service("team/web-1:80")).as_deref(), Some("team/web-1:80"));
    }

    #[test]
    fn what_was_not_made_here_is_no_cursor() {
        let good = of_row(Cursor { triggered_at: Timestamp::from_micros(5), id: 7 });
        let cut = &good[..good.len() - 1];
        let longer = format!("{good}00");
        let other_version = good.replacen("h1", "h2", 1);
        let upper = of_row(Cursor { triggered_at: Timestamp::from_micros(171), id: 171 }).to_uppercase();
        for bad in ["", "h1", "s1", "7", "h1é0", cut, &longer, &other_version, &upper, &of_service("web")] {
            assert_eq!(row(bad), None, "{bad}");
        }
        for bad in ["s1ff", good.as_str()] {
            assert_eq!(service(bad), None, "{bad}");
        }
    }
}
