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
