//! The reader against prost's: the same messages are taken, with the same values.

use proptest::{collection::vec, prelude::*};
use prost::Message as _;

use super::*;
// The probe is compiled here and by the fuzzer, which knows this crate by its name.
use crate as gopherwatch_proto;
use crate::v1;

#[path = "../../../fuzz/src/wire_probe.rs"]
mod wire_probe;
use wire_probe::{fits, probe};

fn varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// A field as somebody might write it: a known or an unknown one, of the right type as a rule.
fn field(depth: u32) -> BoxedStrategy<Vec<u8>> {
    let number = prop_oneof![8 => 1..=7_u64, 1 => Just(0), 1 => any::<u32>().prop_map(u64::from), 1 => any::<u64>()];
    let contents = if depth == 0 { vec(any::<u8>(), 0..6).boxed() } else { fields(depth - 1).boxed() };
    let name = prop_oneof![3 => "[a-z]{0,3}".prop_map(String::into_bytes), 1 => vec(any::<u8>(), 0..4)];
    let group = (1..9_u64, 1..9_u64, contents.clone());
    prop_oneof![
        (number, 0..8_u64, vec(any::<u8>(), 0..12)).prop_map(|(number, kind, rest)| {
            let mut out = Vec::new();
            varint(number.wrapping_shl(3) | kind, &mut out);
            out.extend(rest);
            out
        }),
        (prop_oneof![Just(1_u8), Just(2)], name).prop_map(|(field, name)| long(field, &name)),
        (3..=4_u8, any::<u64>()).prop_map(|(field, value)| match field {
            3 => [&[3 << 3 | 1][..], &value.to_le_bytes()].concat(),
            _ => {
                let mut out = vec![4 << 3];
                varint(value, &mut out);
                out
            }
        }),
        (5..9_u8, contents).prop_map(|(field, contents)| long(field, &contents)),
        group.prop_map(|(begin, end, contents)| {
            // Most groups end as they should.
            let end = if end < 7 { begin } else { end };
            let mut out = Vec::new();
            varint(begin << 3 | 3, &mut out);
            out.extend(contents);
            varint(end << 3 | 4, &mut out);
            out
        }),
    ]
    .boxed()
}

fn long(field: u8, contents: &[u8]) -> Vec<u8> {
    let mut out = vec![field << 3 | 2];
    varint(contents.len() as u64, &mut out);
    out.extend(contents);
    out
}

fn fields(depth: u32) -> impl Strategy<Value = Vec<u8>> {
    vec(field(depth), 0..6).prop_map(|fields| fields.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn what_prost_takes_is_taken_with_the_same_values(message in fields(3)) {
        let _ = probe(&message);
    }

    #[test]
    fn a_message_that_is_cut_or_has_a_bit_turned_is_as_good_to_both(message in fields(2), at in any::<usize>(), bit in 0..9) {
        let mut message = message;
        if !message.is_empty() {
            let at = at % message.len();
            if bit == 8 { message.truncate(at) } else { message[at] ^= 1_u8 << bit }
        }
        let _ = probe(&message);
    }

    #[test]
    fn a_report_comes_back_as_it_was_written(
        names in prop_oneof![vec("[a-z_]{0,140}", 0..20), vec("[a-z_]{1,116}", 0..40)],
        numbers in any::<(u64, u64, bool)>(),
        value in any::<f64>(),
    ) {
        let (time_unix_nano, sequence, leaving) = numbers;
        let metrics = names.iter().map(|name| v1::Metric { name: name.clone(), value }).collect();
        let report = v1::MetricReport {
            service_name: names.first().cloned().unwrap_or_default(),
            instance: names.last().cloned().unwrap_or_default(),
            time_unix_nano, sequence, metrics, leaving,
        };
        let message = report.encode_to_vec();
        // A value of -0 comes back as 0: prost leaves both out.
        let report = probe(&message).expect("a report");
        prop_assert_eq!(report.encode_to_vec(), &*message);
        let is_usual = report.metrics.iter().all(|metric| (1..=116).contains(&metric.name.len()));
        let is_last = !leaving || report.metrics.is_empty();
        prop_assert_eq!(fits(&message, &report), is_usual && is_last, "as prost writes it");
    }
}

#[test]
fn groups_lie_as_deep_as_prost_lets_them() {
    for depth in [1, 99, 100, 101] {
        for inner in [false, true] {
            let mut message = [vec![7 << 3 | 3; depth], vec![7 << 3 | 4; depth]].concat();
            if inner {
                message = long(5, &message);
            }
            let _ = probe(&message);
        }
    }
}

#[test]
fn a_name_that_a_later_one_replaces_must_be_text_too() {
    let twice = |first: &[u8]| [long(1, first), long(1, b"web")].concat();
    assert_eq!(probe(&twice(b"\xff")), Err(Malformed::Text));
    assert_eq!(probe(&twice(b"old")).expect("a report").service_name, "web");
}

#[test]
fn the_largest_number_is_taken_and_a_larger_one_is_not() {
    let number = |last: u8| [&[4 << 3][..], &[0xff; 9], &[last]].concat();
    assert_eq!(probe(&number(1)).expect("a report").sequence, u64::MAX);
    assert_eq!(probe(&number(2)), Err(Malformed::Number));
    for last in [0, 1, 2, 0x80] {
        let _ = probe(&number(last));
    }
}
