//! `init`: what a server needs that other hosts are to reach, made in one go: an authority of its own, a certificate, a token
//! of each scope, and a file of variables that names them.
//!
//! What is there already is never written over. Everything but the certificates is for its owner's eyes only, and belongs to
//! whom the directory belongs.

mod certificates;
mod listen;

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, fchown},
    path::{self, Path, PathBuf},
};

use ring::rand::{SecureRandom, SystemRandom};

pub use listen::Listen;

use certificates::{Authority, CertificateError};

const CA: &str = "ca.pem";
const CA_KEY: &str = "ca-key.pem";
const CERT: &str = "server.pem";
const KEY: &str = "server-key.pem";
const TOKENS: [&str; 3] = ["agent.token", "read.token", "admin.token"];
const VARIABLES: &str = "server.env";
/// 32 bytes: nobody guesses them.
const TOKEN_BYTES: usize = 32;

/// What is to be made.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the server is to listen for agents.
    pub listen: Listen,
    /// Where REST is to answer, on the same addresses.
    pub http_port: u16,
    /// Other names and addresses by which it is reached.
    pub hosts: Vec<String>,
    /// Where to put it.
    pub dir: PathBuf,
    /// Whether to keep what is there and make what is not.
    pub keep: bool,
    /// How this program was called.
    pub program: String,
}

/// Nothing could be made, or not all of it.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// Something is there.
    #[error(
        "{} has {} already, and nothing is written over: choose another directory with --data-dir, or say --keep to make \
         only what is missing (a new certificate, once {CERT} and {KEY} are moved away)",
        dir.display(), names.join(", ")
    )]
    Exists {
        /// The directory.
        dir: PathBuf,
        /// What is there.
        names: Vec<&'static str>,
    },
    /// One is no use without the other.
    #[error("{} has {there} and not {missing}: put {missing} back, or move {there} away to have both made anew", dir.display())]
    Half {
        /// The directory.
        dir: PathBuf,
        /// What is there.
        there: &'static str,
        /// What is not.
        missing: &'static str,
    },
    /// A file or directory.
    #[error("writing {}", path.display())]
    Write {
        /// Which one.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The name of a directory that cannot be written into a file of variables.
    #[error("{} has a quote or line break in its name: choose another directory with --data-dir", dir.display())]
    Unquotable {
        /// The directory.
        dir: PathBuf,
    },
    /// A name that is none.
    #[error("--host `{0}`: use a host name or an address alone, such as monitor.example or 192.0.2.7")]
    Host(String),
    /// A certificate.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The system gives no random numbers.
    #[error("the system has no random numbers for a token")]
    Random,
}

/// Makes it all, and says how it is used.
///
/// # Errors
/// See [`InitError`].
pub fn init(options: &Options) -> Result<String, InitError> {
    if let Some(wrong) = options.hosts.iter().find(|host| !listen::is_host(host)) {
        return Err(InitError::Host(wrong.clone()));
    }
    let mut made = Made::begin(options)?;
    let names = options.listen.names(&options.hosts);
    made.certificates(&names)?;
    for token in TOKENS {
        made.unless_there(token, 0o600, || random_token().map(|token| format!("{token}\n")))?;
    }
    let variables = made.variables(options, &names)?;
    made.unless_there(VARIABLES, 0o600, || Ok(variables))?;
    Ok(made.says(options, &names))
}

/// What is being made.
struct Made {
    dir: PathBuf,
    /// The directory, as shells, systemd and `.env` take it.
    quoted: String,
    written: Vec<&'static str>,
    kept: Vec<&'static str>,
    until: Option<String>,
}

impl Made {
    fn begin(options: &Options) -> Result<Self, InitError> {
        let failed = |source| InitError::Write { path: options.dir.clone(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&options.dir).map_err(failed)?;
        // As it was said, through symbolic links: where they lead may change, as systemd does it.
        let dir = path::absolute(&options.dir).map_err(failed)?;
        let quoted = quoted(&dir).ok_or_else(|| InitError::Unquotable { dir: dir.clone() })?;
        let all = [CA, CA_KEY, CERT, KEY].into_iter().chain(TOKENS).chain([VARIABLES]);
        let kept: Vec<_> = all.filter(|name| dir.join(name).symlink_metadata().is_ok()).collect();
        if !options.keep && !kept.is_empty() {
            return Err(InitError::Exists { dir, names: kept });
        }
        let made = Self { dir, quoted, written: Vec::new(), kept, until: None };
        for [one, other] in [[CA, CA_KEY], [CERT, KEY]] {
            for (there, missing) in [(one, other), (other, one)] {
                // The authority's key may be kept elsewhere, as long as nothing is to be signed.
                let is_needed = missing != CA_KEY || !made.has(CERT);
                if made.has(there) && !made.has(missing) && is_needed {
                    return Err(InitError::Half { dir: made.dir, there, missing });
                }
            }
        }
        Ok(made)
    }

    fn has(&self, name: &str) -> bool {
        self.kept.contains(&name)
    }

    fn certificates(&mut self, names: &[String]) -> Result<(), InitError> {
        if self.has(CERT) {
            return Ok(());
        }
        let authority = if self.has(CA) {
            let read = |name: &str| {
                let path = self.dir.join(name);
                fs::read_to_string(&path).map_err(|source| InitError::Write { path, source })
            };
            Authority::kept(&read(CA)?, &read(CA_KEY)?)?
        } else {
            let authority = Authority::new()?;
            self.write(CA, 0o644, authority.cert_pem())?;
            self.write(CA_KEY, 0o600, &authority.key_pem())?;
            authority
        };
        let signed = authority.sign(names)?;
        self.write(CERT, 0o644, &signed.cert_pem)?;
        self.write(KEY, 0o600, &signed.key_pem)?;
        self.until = Some(signed.until);
        Ok(())
    }

    fn unless_there(
        &mut self,
        name: &'static str,
        mode: u32,
        content: impl FnOnce() -> Result<String, InitError>,
    ) -> Result<(), InitError> {
        if self.has(name) { Ok(()) } else { self.write(name, mode, &content()?) }
    }

    /// Writes a new file, which belongs to the directory's owner: root may do this for a program of another user.
    fn write(&mut self, name: &'static str, mode: u32, content: &str) -> Result<(), InitError> {
        let path = self.dir.join(name);
        let written = || {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path)?;
            let (owner, own) = (fs::metadata(&self.dir)?, file.metadata()?);
            if (owner.uid(), owner.gid()) != (own.uid(), own.gid()) {
                fchown(&file, Some(owner.uid()), Some(owner.gid()))?;
            }
            file.write_all(content.as_bytes())?;
            file.sync_all()
        };
        written().map_err(|source| InitError::Write { path: path.clone(), source })?;
        self.written.push(name);
        Ok(())
    }

    /// What the server is told, in a form that shells, systemd and `.env` read alike.
    fn variables(&self, options: &Options, names: &[String]) -> Result<String, InitError> {
        let file =
            |name: &str| quoted(&self.dir.join(name)).ok_or_else(|| InitError::Unquotable { dir: self.dir.clone() });
        let [agent, read, admin] = TOKENS;
        let lines = [
            ("GRPC_ADDR", options.listen.grpc().to_string()),
            ("HTTP_ADDR", options.listen.http(options.http_port).to_string()),
            ("DATA_DIR", self.quoted.clone()),
            ("TLS_CERT", file(CERT)?),
            ("TLS_KEY", file(KEY)?),
            ("AGENT_TOKEN_FILE", file(agent)?),
            ("READ_TOKEN_FILE", file(read)?),
            ("ADMIN_TOKEN_FILE", file(admin)?),
            ("ALLOWED_HOST", names.join(",")),
        ];
        let head = "# What `gopherwatch-server init` made: variables for the server, as a shell, systemd or .env reads them.\n";
        Ok(lines.iter().fold(head.to_owned(), |text, (name, value)| text + &format!("GOPHERWATCH_{name}={value}\n")))
    }

    fn says(&self, options: &Options, names: &[String]) -> String {
        let Self { quoted: dir, written, kept, until, .. } = self;
        let mut text = String::new();
        if !written.is_empty() {
            text += &format!("wrote to {dir}: {}\n", written.join(" "));
        }
        if !kept.is_empty() {
            text += &format!("kept what was in {dir}: {}\n", kept.join(" "));
        }
        if let Some(until) = until {
            text += &format!("the certificate is for {}, until {until}; --host NAME adds a name\n", names.join(", "));
        }
        let host = options.listen.reached_at(&options.hosts);
        let (grpc, http, program) = (options.listen.grpc().port(), options.http_port, &options.program);
        text + &format!(
            "\nThe server (for systemd, {dir}/{VARIABLES} is an EnvironmentFile; as .env in its working directory it needs \
             no more than its name):\n  \
             (set -a; . {dir}/{VARIABLES}; exec {program})\n\n\
             An agent, on any host that has copies of {dir}/{CA} and {dir}/{agent} (chmod 600 {agent}):\n  \
             gopherwatch-agent --server https://{host}:{grpc} --ca {CA} --token-file {agent}\n\n\
             Reading, from here:\n  \
             printf 'Authorization: Bearer %s' \"$(cat {dir}/{read})\" | curl --cacert {dir}/{CA} -H @- https://{host}:{http}/status\n\n\
             Only another certificate needs {CA_KEY}: keep it where nobody else gets at it.\n",
            agent = TOKENS[0],
            read = TOKENS[1],
        )
    }
}

fn random_token() -> Result<String, InitError> {
    let mut bytes = [0; TOKEN_BYTES];
    SystemRandom::new().fill(&mut bytes).map_err(|_| InitError::Random)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A path in a form that shells, systemd and `.env` read alike.
fn quoted(path: &Path) -> Option<String> {
    let text = path.to_str()?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_./-+:@%,".contains(c);
    if text.chars().all(is_plain) {
        return Some(text.to_owned());
    }
    let is_quotable = !text.contains(|c: char| c == '\'' || c == '\\' || c.is_control());
    is_quotable.then(|| format!("'{text}'"))
}
