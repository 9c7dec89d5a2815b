//! What a service reports of itself: counters and gauges, which a thread of its own sends each second.
//!
//! No call waits for the network or the disk: handles are atomics, and readings are taken, kept and delivered by that
//! thread. What was not receipted when it must end is said in the accounts.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};
use std::{fs, io};

use gopherwatch_proto::{DEFAULT_INSTANCE, is_valid_name};
use slog::{Discard, Logger, o, warn};
use tokio::runtime::{Builder as RuntimeBuilder, Runtime};
use tokio::sync::watch;
use tonic::transport::Uri;

use crate::address::{self, AddressError};
use crate::buffer::{self, Accounts, Limits};
use crate::clock::Clock;
use crate::error::chain;
use crate::metrics::{Counter, Gauge, Metrics, NameError};
use crate::reporter::Reporter;
use crate::tls::{TlsFiles, TlsFilesError};
use crate::token::{Token, TokenError};
use crate::trouble::{Say, Trouble};

/// How long a client that is dropped waits for its last receipt.
const DROP_WAIT: Duration = Duration::from_secs(1);

/// What the thread may take to notice the end of its time, and to tell.
const SPARE: Duration = Duration::from_millis(200);

/// Why a service cannot be reported.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The server.
    #[error("the server {text:?}")]
    Server {
        /// What was given.
        text: String,
        /// Why it is none.
        #[source]
        source: AddressError,
    },
    /// The service's or the instance's name.
    #[error("{0:?} is no name: 1 to 128 of A-Z a-z 0-9 _ . : / - that begin with a letter or digit")]
    Name(String),
    /// The file with the token.
    #[error(transparent)]
    Token(TokenError),
    /// The files for TLS.
    #[error(transparent)]
    Tls(TlsFilesError),
    /// There is no thread to report, or nothing to run on it.
    #[error("starting the thread that reports")]
    Thread(#[source] io::Error),
}

/// A service that reports itself. Dropped, it says goodbye and waits up to a second for the last receipt;
/// [`Client::close`] waits for as long as it is told, and says what was delivered. Both hold up their thread meanwhile:
/// asynchronous code gives them one for blocking work.
#[derive(Debug)]
pub struct Client {
    metrics: Arc<Metrics>,
    accounts: Arc<Mutex<Accounts>>,
    stop: watch::Sender<Option<Duration>>,
    ended: mpsc::Receiver<()>,
    is_closed: bool,
    refused: Mutex<Trouble>,
    log: Logger,
}

/// How a service is reported. Made by [`Client::builder`].
#[derive(Debug, Clone)]
pub struct Builder {
    server: String,
    service: String,
    instance: Option<String>,
    interval: Duration,
    token_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    identity_files: Option<(PathBuf, PathBuf)>,
    buffer: buffer::Options,
    clock: Clock,
    log: Logger,
}

impl Client {
    /// Reports `service` to `server` (a URL with http or https, or HOST:PORT for http) each second, from now on. Whether the server is there does not
    /// matter: reports wait for it.
    ///
    /// # Errors
    /// The address or the name is none, or no thread can be started.
    pub fn connect(server: &str, service: &str) -> Result<Self, ConnectError> {
        Self::builder(server, service).connect()
    }

    /// [`Client::connect`] with options.
    pub fn builder(server: &str, service: &str) -> Builder {
        Builder {
            server: server.to_owned(),
            service: service.to_owned(),
            instance: None,
            interval: Duration::from_secs(1),
            token_file: None,
            ca_file: None,
            identity_files: None,
            buffer: buffer::Options::default(),
            clock: Clock::default(),
            log: Logger::root(Discard, o!()),
        }
    }

    /// The counter of that name, reported as its total, `NAME_count`, and its increase per second, `NAME_rate`. What
    /// services call their requests and errors goes by one name each: `requests` and `http_requests_total` are one
    /// counter, reported as `request_count` and `request_rate`. The total is 0 in its first report, so that `increase()` sees
    /// what was counted before it.
    ///
    /// A name that the server would refuse, and a metric more than it takes of one instance, are told to the logger and
    /// not reported; [`Client::try_counter`] says so to the caller.
    pub fn counter(&self, name: &str) -> Counter {
        self.try_counter(name).unwrap_or_else(|err| self.ignored(name, &err))
    }

    /// The gauge of that name, reported as it was last set, and not before. As with [`Client::counter`], one that cannot
    /// be reported is told to the logger.
    pub fn gauge(&self, name: &str) -> Gauge {
        self.try_gauge(name).unwrap_or_else(|err| self.ignored(name, &err))
    }

    /// [`Client::counter`].
    ///
    /// # Errors
    /// It cannot be reported.
    pub fn try_counter(&self, name: &str) -> Result<Counter, NameError> {
        self.metrics.counter(name)
    }

    /// [`Client::gauge`].
    ///
    /// # Errors
    /// It cannot be reported.
    pub fn try_gauge(&self, name: &str) -> Result<Gauge, NameError> {
        self.metrics.gauge(name)
    }

    /// Where the reports were when the last one was made.
    pub fn accounts(&self) -> Accounts {
        *locked(&self.accounts)
    }

    /// Reports what there is and that the service leaves, and waits up to `timeout` for the last receipt. Returns where
    /// the reports are: with `pending` 0 and `dropped` 0 the server has them all.
    pub fn close(mut self, timeout: Duration) -> Accounts {
        self.end(timeout);
        self.accounts()
    }

    fn end(&mut self, timeout: Duration) {
        if self.is_closed {
            return;
        }
        self.is_closed = true;
        let began = Instant::now();
        // It fails if the thread has ended, which is what we want.
        let _ = self.stop.send(Some(timeout));
        // The thread keeps to the time by itself; a disk that hangs might not.
        let _ = self.ended.recv_timeout(timeout.saturating_add(SPARE).saturating_sub(began.elapsed()));
    }

    fn ignored<T: Default>(&self, name: &str, err: &NameError) -> T {
        match locked(&self.refused).happened(1, Instant::now()) {
            Say::First => warn!(self.log, "a metric is not reported"; "metric" => name, "because" => chain(err)),
            Say::Again(episode) => {
                warn!(self.log, "metrics are not reported"; "metric" => name, "because" => chain(err),
                "count" => episode.count)
            }
            Say::Nothing => {}
        }
        T::default()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.end(DROP_WAIT);
    }
}

impl Builder {
    /// Which replica of the service this is; without it, the host's name. Replicas on one host need names of their own.
    #[must_use]
    pub fn instance(self, instance: &str) -> Self {
        Self { instance: Some(instance.to_owned()), ..self }
    }

    /// Time between two reports, 10 ms to an hour: 1 s unless told otherwise.
    #[must_use]
    pub fn interval(self, interval: Duration) -> Self {
        Self { interval: interval.clamp(Duration::from_millis(10), Duration::from_secs(3600)), ..self }
    }

    /// Gives the server the token in this file, for one that asks its agents for one. It is read anew for each stream, so that
    /// another one may be put there at any time; [`Builder::connect`] refuses a file that holds none.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("token");
    /// std::fs::write(&path, "s3cret\n")?; // its owner's alone to read: chmod 600
    /// let watch = gopherwatch_client::Client::builder("http://127.0.0.1:50051", "checkout").token_file(&path).connect()?;
    /// # watch.close(std::time::Duration::ZERO);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn token_file(self, path: impl Into<PathBuf>) -> Self {
        Self { token_file: Some(path.into()), ..self }
    }

    /// Trusts a server whose certificate one of the authorities in this file has issued (PEM, at least one of them), and no
    /// other; without it, those that the system trusts. The file is read anew for each connection, so that another one may
    /// be put there at any time; [`Builder::connect`] refuses one that has no certificate in it, and a server that is not
    /// reached by `https://`. Of the feature `tls`, which is on unless `default-features` are off.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let ca = dir.path().join("ca.pem");
    /// # std::fs::write(&ca, gopherwatch_client::double::Authority::new("CA").pem())?;
    /// let watch = gopherwatch_client::Client::builder("https://127.0.0.1:50051", "checkout").ca_file(&ca).connect()?;
    /// # watch.close(std::time::Duration::ZERO);
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn ca_file(self, path: impl Into<PathBuf>) -> Self {
        Self { ca_file: Some(path.into()), ..self }
    }

    /// Shows a server that asks who connects the certificate in the file `cert` (PEM, behind it those between it and its
    /// authority) and proves it by the private key in the file `key` (PEM, without a passphrase; its owner's alone to read). Both
    /// are read anew for each connection; [`Builder::connect`] refuses files that hold none, or a key of another certificate.
    /// Of the feature `tls`.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn identity_files(self, cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        Self { identity_files: Some((cert.into(), key.into())), ..self }
    }

    /// Keeps what is not receipted in this directory, so that the next process delivers it: one directory for each
    /// process. One that cannot be used, or is another's, is told to the logger, and reports are kept in memory. Of the
    /// feature `spool`, which is on unless `default-features` are off.
    #[cfg(feature = "spool")]
    #[must_use]
    pub fn spool_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.buffer.spool_dir = Some(dir.into());
        self
    }

    /// How much may wait, and for how long.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.buffer.limits = Some(limits);
        self
    }

    /// For tests: by another clock than the host's.
    #[cfg(feature = "test-util")]
    #[must_use]
    pub fn clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// Where it is said what goes wrong; without it, nowhere.
    #[must_use]
    pub fn logger(self, log: Logger) -> Self {
        Self { log, ..self }
    }

    /// [`Client::connect`].
    ///
    /// # Errors
    /// The address or a name is none, a file of TLS cannot be used, the token's file holds none, or no thread can be
    /// started.
    pub fn connect(self) -> Result<Client, ConnectError> {
        let Self { server, service, instance, interval, token_file, ca_file, identity_files, buffer, clock, log } =
            self;
        let uri: Uri =
            address::parse(&server).map_err(|source| ConnectError::Server { text: server.clone(), source })?;
        let instance = instance.unwrap_or_else(host_name);
        if let Some(bad) = [&service, &instance].into_iter().find(|name| !is_valid_name(name)) {
            return Err(ConnectError::Name(bad.clone()));
        }
        let tls = TlsFiles::for_server(&uri, ca_file, identity_files).map_err(ConnectError::Tls)?;
        let token = token_file.map(|path| Token::in_file(&path)).transpose().map_err(ConnectError::Token)?;
        let runtime: Runtime =
            RuntimeBuilder::new_current_thread().enable_all().build().map_err(ConnectError::Thread)?;
        let metrics = Arc::new(Metrics::default());
        let accounts = Arc::new(Mutex::new(Accounts::default()));
        let (stop, stopping) = watch::channel(None);
        // Never sent on: it ends with the thread, however that ends.
        let (running, ended) = mpsc::sync_channel(1);
        let reporter = Reporter {
            server: uri,
            tls,
            service,
            instance,
            interval,
            token,
            buffer,
            clock,
            metrics: Arc::clone(&metrics),
            accounts: Arc::clone(&accounts),
            log: log.clone(),
        };
        let work = move || {
            runtime.block_on(reporter.run(stopping));
            runtime.shutdown_background();
            drop::<mpsc::SyncSender<()>>(running);
        };
        thread::Builder::new().name("gopherwatch".into()).spawn(work).map_err(ConnectError::Thread)?;
        Ok(Client { metrics, accounts, stop, ended, is_closed: false, refused: Mutex::default(), log })
    }
}

/// This host's name, if it is a valid one.
fn host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if is_valid_name(name) { name.to_owned() } else { DEFAULT_INSTANCE.to_owned() }
}

/// What these locks guard is whole after each change: a panic of one thread of the service must not reach the others.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
