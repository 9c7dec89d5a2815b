//! The checksum at the end of each record: CRC-32 over what the record is of and what it says.
//!
//! SQLite finds a page that makes no sense, not one whose payload has changed. A record read under another number or
//! name than it was written under is found out, too.

use super::record::RecordError;

const LENGTH: usize = 4;

/// The record of what `of` names, with its checksum behind it.
pub(crate) fn seal(of: &[&[u8]], mut body: Vec<u8>) -> Vec<u8> {
    let sum = checksum(of, &body);
    body.extend_from_slice(&sum.to_le_bytes());
    body
}

/// What was sealed as the record of `of`.
pub(super) fn open<'a>(of: &[&[u8]], sealed: &'a [u8]) -> Result<&'a [u8], RecordError> {
    let (body, sum) = sealed.split_last_chunk::<LENGTH>().ok_or(RecordError::Checksum)?;
    if checksum(of, body) == u32::from_le_bytes(*sum) { Ok(body) } else { Err(RecordError::Checksum) }
}

fn checksum(of: &[&[u8]], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for part in of.iter().chain([&body]) {
        // With its length, so that no two lists of parts are one.
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_opens_as_what_it_was_sealed_as_and_as_nothing_else() {
        let sealed = seal(&[b"web", b"a"], b"body".to_vec());
        assert_eq!(open(&[b"web", b"a"], &sealed).expect("whole"), b"body");
        for other in [&[b"we".as_slice(), b"ba"] as &[&[u8]], &[b"web"], &[b"web", b"b"]] {
            assert!(open(other, &sealed).is_err());
        }
        for cut in 0..sealed.len() {
            assert!(open(&[b"web", b"a"], &sealed[..cut]).is_err(), "cut at {cut}");
        }
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&[b"web", b"a"], &flipped).is_err(), "bit {bit}");
        }
    }
}
