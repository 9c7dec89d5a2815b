//! Messages as bytes, counted: the floor of whatever goes through tonic.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use futures_util::future::BoxFuture;
use gopherwatch_proto::v1::{MetricReport, Summary};
use prost::Message;
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    codec::{Codec, DecodeBuf, Decoder},
    server::{ClientStreamingService, Grpc, NamedService},
};
use tonic_prost::ProstEncoder;
use tower::Service;

use crate::count::summary;

/// The service of the same name, with a codec of its own.
#[derive(Clone)]
pub(crate) struct Frames;

impl NamedService for Frames {
    const NAME: &'static str = "gopherwatch.v1.MetricsService";
}

impl Service<http::Request<Body>> for Frames {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    // It has one method, so that the path need not be looked at.
    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move { Ok(Grpc::new(Raw).client_streaming(Count, request).await) })
    }
}

struct Count;

impl ClientStreamingService<Bytes> for Count {
    type Response = Summary;
    type Future = BoxFuture<'static, Result<Response<Summary>, Status>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        Box::pin(async move {
            let mut frames = request.into_inner();
            let (mut n, mut last) = (0, Bytes::new());
            while let Some(frame) = frames.message().await? {
                n += 1;
                last = frame;
            }
            // The receipt names the last report's number: that one is decoded.
            let last = MetricReport::decode(last).map_err(|err| Status::invalid_argument(err.to_string()))?;
            Ok(Response::new(summary(n, last.sequence)))
        })
    }
}

/// Takes messages as they are.
struct Raw;

impl Codec for Raw {
    type Encode = Summary;
    type Decode = Bytes;
    type Encoder = ProstEncoder<Summary>;
    type Decoder = Self;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::default()
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, frame: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(frame.copy_to_bytes(frame.remaining())))
    }
}
