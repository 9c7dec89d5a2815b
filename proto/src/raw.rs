//! The service for a server that takes each report as it stands on the wire, and reads it with [`crate::wire`].
//!
//! prost's reports own every name in them: for a report of four metrics that is seven allocations, which cost more than
//! all that follows.

use bytes::{Buf as _, Bytes};
use tonic::{
    Status,
    codec::{BufferSettings, DecodeBuf, Decoder},
};
use tonic_prost::{ProstCodec, ProstEncoder};

use crate::v1::Summary;

tonic::include_proto!("raw/gopherwatch.v1");

/// Gives each message as its bytes, and takes a Summary back.
#[derive(Clone, Copy, Debug, Default)]
pub struct Codec(());

impl tonic::codec::Codec for Codec {
    type Encode = Summary;
    type Decode = Bytes;
    type Encoder = ProstEncoder<Summary>;
    type Decoder = Whole;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<Summary, Summary>::raw_encoder(BufferSettings::default())
    }

    fn decoder(&mut self) -> Self::Decoder {
        Whole
    }
}

/// Gives each message as its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Whole;

impl Decoder for Whole {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(message.copy_to_bytes(message.remaining())))
    }
}
