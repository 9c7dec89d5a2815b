//! The bytes of a connection, looked at for what they say about TLS.
//!
//! No byte is changed. But the libraries above make text of an error, or nothing at all of an alert that is none of their
//! protocol, and whoever has to mend it should read what is wrong.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tonic::transport::Uri;

use super::Notes;
#[cfg(feature = "tls")]
use crate::tls::handshake::{self, Peer};
use crate::tls::{Secured, TlsError, TlsFiles};

/// The first byte of a TLS record with an alert. A frame of HTTP/2 that began like it would have more than 1 MiB, and the first
/// one of a server has a few bytes.
const ALERT: u8 = 0x15;

/// An open connection.
pub(super) struct Wire {
    stream: Box<dyn Stream>,
    /// Whom a secured one was made with.
    #[cfg(feature = "tls")]
    peer: Option<Peer>,
    is_secured: bool,
    has_heard: bool,
    notes: Notes,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Wire {
    pub(super) fn plain(stream: TcpStream, notes: Notes) -> Self {
        Self::over(Box::new(stream), notes)
    }

    fn over(stream: Box<dyn Stream>, notes: Notes) -> Self {
        Self {
            stream,
            #[cfg(feature = "tls")]
            peer: None,
            is_secured: false,
            has_heard: false,
            notes,
        }
    }

    #[cfg(feature = "tls")]
    pub(super) async fn secured(
        stream: TcpStream,
        server: &Uri,
        files: &TlsFiles,
        notes: Notes,
    ) -> Result<(Self, Secured), TlsError> {
        let host = server.host().unwrap_or_default();
        let (stream, peer, secured) = handshake::secure(stream, host, files).await?;
        let wire = Self { peer: Some(peer), is_secured: true, ..Self::over(Box::new(stream), notes) };
        Ok((wire, secured))
    }

    /// An address with https is refused before it comes to this.
    #[cfg(not(feature = "tls"))]
    pub(super) async fn secured(_: TcpStream, _: &Uri, _: &TlsFiles, _: Notes) -> Result<(Self, Secured), TlsError> {
        Err(TlsError::Other("this program is built without it".to_owned()))
    }

    /// A peer that closed the connection before it said anything to us may have said why, and a failed write would end it before
    /// that is read. So reading, which now comes to an end, too, is left to tell; nothing of what was written counts without a receipt.
    fn written<T>(&self, polled: Poll<io::Result<T>>, whole: T) -> Poll<io::Result<T>> {
        match polled {
            Poll::Ready(Err(_)) if !self.has_heard => Poll::Ready(Ok(whole)),
            polled => polled,
        }
    }

    /// It has these bytes for us, none at its end.
    fn heard(&mut self, bytes: &[u8]) {
        if self.has_heard {
            return;
        }
        match bytes.first() {
            Some(&ALERT) if !self.is_secured => self.notes.wrong(TlsError::OnlyTls),
            Some(_) => {}
            None => self.ended_unheard(),
        }
        self.has_heard = true;
    }

    fn failed(&self, err: &io::Error) {
        match self.afterwards(err) {
            Some(wrong) => self.notes.wrong(wrong),
            None if !self.has_heard => self.ended_unheard(),
            None => {}
        }
    }

    fn ended_unheard(&self) {
        let wrong = if self.is_secured { self.without_a_word() } else { Some(TlsError::Unheard) };
        if let Some(wrong) = wrong {
            self.notes.wrong(wrong);
        }
    }

    #[cfg(feature = "tls")]
    fn without_a_word(&self) -> Option<TlsError> {
        self.peer.as_ref()?.without_a_word()
    }

    #[cfg(feature = "tls")]
    fn afterwards(&self, err: &io::Error) -> Option<TlsError> {
        self.peer.as_ref()?.afterwards(err)
    }

    #[cfg(not(feature = "tls"))]
    fn without_a_word(&self) -> Option<TlsError> {
        None
    }

    #[cfg(not(feature = "tls"))]
    fn afterwards(&self, _: &io::Error) -> Option<TlsError> {
        None
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        match &polled {
            Poll::Ready(Ok(())) => self.heard(&buf.filled()[before..]),
            Poll::Ready(Err(err)) => self.failed(err),
            Poll::Pending => {}
        }
        polled
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.written(polled, bytes.len())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.written(polled, parts.iter().map(|part| part.len()).sum())
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.written(polled, ())
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// A peer that said something, closed the connection, and has not been read yet.
    struct Closed(&'static [u8]);

    impl AsyncRead for Closed {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            buf.put_slice(std::mem::take(&mut self.0));
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Closed {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn what_a_peer_said_before_it_closed_is_read_though_nothing_can_be_written_any_more() {
        let notes = Notes::default();
        let mut wire = Wire::over(Box::new(Closed(&[ALERT, 3, 3, 0, 2, 2, 50])), notes.clone());
        wire.write_all(b"PRI * HTTP/2.0").await.expect("nobody has heard of it yet");
        assert_eq!(wire.read(&mut [0; 64]).await.expect("an alert"), 7);
        assert!(matches!(notes.take(), Some(TlsError::OnlyTls)));
        // From then on it is what it is.
        assert_eq!(wire.write_all(b"more").await.expect_err("closed").kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn a_peer_that_closes_without_a_word_may_want_tls() {
        let notes = Notes::default();
        let mut wire = Wire::over(Box::new(Closed(&[])), notes.clone());
        wire.write_all(b"PRI * HTTP/2.0").await.expect("nobody has heard of it yet");
        assert_eq!(wire.read(&mut [0; 64]).await.expect("its end"), 0);
        assert!(matches!(notes.take(), Some(TlsError::Unheard)));
    }

    #[tokio::test]
    async fn a_server_that_speaks_http_2_says_nothing_about_tls() {
        let notes = Notes::default();
        // The head of its first frame, SETTINGS.
        let mut wire = Wire::over(Box::new(Closed(&[0, 0, 18, 4, 0, 0, 0, 0, 0])), notes.clone());
        let mut heard = Vec::new();
        wire.read_to_end(&mut heard).await.expect("read");
        assert_eq!((heard.len(), notes.take().is_none()), (9, true));
    }
}
