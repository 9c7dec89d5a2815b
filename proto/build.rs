//! Compiles metrics.proto with protox, so that no system protoc is needed.

use std::{env, fs, path::PathBuf};

use prost::Message as _;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=metrics.proto");
    let descriptors = protox::compile(["metrics.proto"], ["."])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("metrics.fds.bin"), descriptors.encode_to_vec())?;
    // The service once more, for a server that takes each report as it stands on the wire.
    let raw = out.join("raw");
    fs::create_dir_all(&raw)?;
    tonic_prost_build::configure()
        .build_client(false)
        .extern_path(".gopherwatch.v1.MetricReport", "::bytes::Bytes")
        .extern_path(".gopherwatch.v1.Metric", "crate::v1::Metric")
        .extern_path(".gopherwatch.v1.Summary", "crate::v1::Summary")
        .codec_path("crate::raw::Codec")
        .out_dir(raw)
        .compile_fds(descriptors.clone())?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
