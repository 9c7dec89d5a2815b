//! The flags of TLS: which files, seen to be usable before anything starts.

use std::path::PathBuf;

use clap::Args;
use gopherwatch_client::error::chain;
use gopherwatch_client::tls::TlsFiles;
use tonic::transport::Uri;

#[derive(Debug, Default, Args)]
pub(super) struct TlsFlags {
    /// With an https:// server: trust a certificate that one of the authorities in FILE (PEM) has issued, and no other
    /// [default: those that the system trusts]
    #[arg(long, env = "GOPHERWATCH_CA", global = true, value_name = "FILE")]
    ca: Option<PathBuf>,

    /// The certificate (PEM) to show to a server that asks for one
    #[arg(long, env = "GOPHERWATCH_CERT", global = true, value_name = "FILE")]
    cert: Option<PathBuf>,

    /// The private key (PEM) of --cert
    #[arg(long, env = "GOPHERWATCH_KEY", global = true, value_name = "FILE")]
    key: Option<PathBuf>,
}

impl TlsFlags {
    /// The files for this server, or why they are not to be used.
    pub(super) fn files(self, server: &Uri) -> Result<TlsFiles, String> {
        let identity = match (self.cert, self.key) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            (Some(_), None) => return Err("--cert needs the private key of that certificate: --key FILE".into()),
            (None, Some(_)) => return Err("--key needs the certificate that it belongs to: --cert FILE".into()),
        };
        let flag = match (&self.ca, &identity) {
            (Some(_), Some(_)) => "--ca, --cert and --key",
            (Some(_), None) => "--ca",
            _ => "--cert and --key",
        };
        TlsFiles::for_server(server, self.ca, identity).map_err(|err| format!("{flag}: {}", chain(&err)))
    }
}
