//! From when until when a certificate is valid (RFC 5280, 4.1): all that is read of one here. Whether it is to be trusted is
//! for those who connect.

use jiff::{civil, tz::TimeZone};

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
/// The version, which certificates of the first one do not have.
const VERSION: u8 = 0xa0;

/// The two ends, in seconds since 1970; `None`: this is no certificate.
pub(super) fn validity(der: &[u8]) -> Option<(i64, i64)> {
    let (certificate, _) = element(der, SEQUENCE)?;
    let (mut rest, _) = element(certificate, SEQUENCE)?;
    if let Some((_, behind)) = element(rest, VERSION) {
        rest = behind;
    }
    // Serial number, algorithm, issuer.
    for tag in [INTEGER, SEQUENCE, SEQUENCE] {
        (_, rest) = element(rest, tag)?;
    }
    let (validity, _) = element(rest, SEQUENCE)?;
    let (not_before, rest) = time(validity)?;
    let (not_after, _) = time(rest)?;
    Some((not_before, not_after))
}

/// The content of the first element, which has this tag, and what is behind it (X.690, 8.1).
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = der.split_first()?;
    let (&length, rest) = rest.split_first()?;
    if found != tag {
        return None;
    }
    let (length, rest) = if length < 0x80 {
        (usize::from(length), rest)
    } else {
        let (bytes, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
        if bytes.len() > 4 {
            return None;
        }
        (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
    };
    rest.split_at_checked(length)
}

/// The time that stands first, and what is behind it.
fn time(der: &[u8]) -> Option<(i64, &[u8])> {
    let utc = element(der, UTC_TIME);
    let (text, rest) = utc.or_else(|| element(der, GENERALIZED_TIME))?;
    let text = str::from_utf8(text).ok()?.strip_suffix('Z')?;
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (year, text) = if utc.is_some() {
        let year: i16 = text.get(..2)?.parse().ok()?;
        // RFC 5280, 4.1.2.5.1.
        (if year < 50 { 2000 + year } else { 1900 + year }, text.get(2..)?)
    } else {
        (text.get(..4)?.parse().ok()?, text.get(4..)?)
    };
    let two = |at: usize| text.get(at..at + 2)?.parse::<i8>().ok();
    let when = civil::DateTime::new(year, two(0)?, two(2)?, two(4)?, two(6)?, two(8)?, 0).ok()?;
    Some((when.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second(), rest))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    #[test]
    fn the_ends_are_read_in_both_forms_of_time() {
        let seconds = |text: &str| text.parse::<jiff::Timestamp>().unwrap().as_second();
        for (from, until) in
            [((2020, 1, 31), (2049, 12, 31)), ((1999, 2, 28), (2050, 1, 1)), ((2050, 6, 1), (4096, 2, 29))]
        {
            let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
            params.not_before = date_time_ymd(from.0, from.1, from.2);
            params.not_after = date_time_ymd(until.0, until.1, until.2);
            let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
            let text = |(year, month, day): (i32, u8, u8)| format!("{year:04}-{month:02}-{day:02}T00:00:00Z");
            assert_eq!(validity(certificate.der()), Some((seconds(&text(from)), seconds(&text(until)))));
            for n_bytes in 0..100 {
                let _ = validity(&certificate.der()[..n_bytes]);
            }
        }
    }

    #[test]
    fn what_is_no_certificate_has_none() {
        for der in [
            &b""[..],
            b"\x30",
            b"\x30\x84\xff\xff\xff\xff",
            b"\x30\x85\x01\x01\x01\x01\x01",
            b"\x30\x02\x30\x00",
            &[0x30; 200],
        ] {
            assert_eq!(validity(der), None, "{der:?}");
        }
    }
}
