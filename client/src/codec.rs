//! Reports travel through the agent already encoded.
//!
//! A report is encoded once, when it is made: a buffered one costs a third of its decoded size, and one that is
//! resent is the same bytes.

use gopherwatch_proto::v1::{MetricReport, Summary};
use prost::Message;
use prost::bytes::{BufMut, Bytes};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// An encoded [`MetricReport`].
pub type Encoded = Bytes;

/// The bytes of `report`.
pub fn encode(report: &MetricReport) -> Encoded {
    Bytes::from(report.encode_to_vec())
}

/// When the reading was taken, milliseconds since 1970 by the clock of its time; none, if the report does not say.
pub(crate) fn reading_ms(report: &Encoded) -> Option<u64> {
    let time = Time::decode(report.clone()).ok()?.time_unix_nano / 1_000_000;
    (time > 0).then_some(time)
}

/// Of a [`MetricReport`] the one field that is asked for; the others are passed over.
#[derive(Clone, PartialEq, Message)]
struct Time {
    #[prost(fixed64, tag = "3")]
    time_unix_nano: u64,
}

/// tonic's codec for encoded reports out, a [`Summary`] back.
#[derive(Debug, Clone, Copy, Default)]
pub struct EncodedReports;

impl Codec for EncodedReports {
    type Encode = Encoded;
    type Decode = Summary;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for EncodedReports {
    type Item = Encoded;
    type Error = Status;

    fn encode(&mut self, report: Encoded, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put_slice(&report);
        Ok(())
    }
}

impl Decoder for EncodedReports {
    type Item = Summary;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<Summary>, Status> {
        Summary::decode(bytes).map(Some).map_err(|err| Status::internal(format!("decoding the receipt: {err}")))
    }
}

#[cfg(test)]
mod tests {
    use gopherwatch_proto::v1::Metric;

    use super::*;

    #[test]
    fn the_time_of_a_reading_is_found_in_the_encoded_report() {
        let metrics = vec![Metric { name: "cpu_percent".into(), value: 1.0 }];
        let service_name = "web".to_owned();
        let report =
            MetricReport { service_name, time_unix_nano: 1_800_000_000_123_456_789, metrics, ..Default::default() };
        assert_eq!(reading_ms(&encode(&report)), Some(1_800_000_000_123));
        assert_eq!(reading_ms(&encode(&MetricReport { time_unix_nano: 0, ..report })), None);
        assert_eq!(reading_ms(&Encoded::from_static(b"no report")), None);
    }
}
