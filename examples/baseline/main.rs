//! What the server is measured against: a tonic server that decodes reports with prost, counts them, and does no more.
//!
//! Same HTTP/2 windows and limits as the server (`src/ingest.rs`), same runtime. With `--frames-only` it does not
//! even decode: that is what the network costs. It says where it listens as the server does, by a line of JSON on stderr,
//! and ends with its process.
#![expect(clippy::print_stderr, reason = "a program for people to run and read")]

mod count;
mod frames;

use std::{error::Error, net::SocketAddr, time::Duration};

use clap::Parser;
use gopherwatch_proto::{MAX_REPORT_BYTES, v1::metrics_service_server::MetricsServiceServer};
use serde_json::json;
use tonic::transport::{Server, server::TcpIncoming};

/// Decodes reports and counts them.
#[derive(Clone, Debug, Parser)]
#[command(max_term_width = 120)]
struct Args {
    /// Where agents connect, by gRPC
    #[arg(long, default_value = "127.0.0.1:0")]
    grpc_addr: SocketAddr,
    /// Count messages without decoding them
    #[arg(long)]
    frames_only: bool,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let incoming = TcpIncoming::bind(args.grpc_addr)?.with_nodelay(Some(true));
    let mut server = Server::builder()
        .initial_stream_window_size(64 * 1024)
        .initial_connection_window_size(1024 * 1024)
        .max_concurrent_streams(256)
        .http2_max_header_list_size(16 * 1024)
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)));
    let server = if args.frames_only {
        server.add_service(frames::Frames)
    } else {
        server.add_service(MetricsServiceServer::new(count::Count).max_decoding_message_size(MAX_REPORT_BYTES))
    };
    eprintln!("{}", json!({ "message": "ready", "grpc": incoming.local_addr()?.to_string() }));
    Ok(server.serve_with_incoming(incoming).await?)
}
