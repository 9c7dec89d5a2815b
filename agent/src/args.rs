//! The command line and its environment, parsed into what the programs below need: nothing after this checks again.

mod tls;
mod values;

use std::env;
use std::ffi::OsString;
use std::mem;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::Resettable;
use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use gopherwatch_client::address;
use gopherwatch_client::buffer::{self, Limits};
use gopherwatch_client::error::chain;
use gopherwatch_client::mapping::valid_name;
use gopherwatch_client::token::Token;
use gopherwatch_proto::MAX_METRICS;
use gopherwatch_proto::v1::Metric;
use tonic::transport::Uri;

use crate::mapping::{self, Mapping};
use crate::sources::process::Watch;
use crate::sources::{scrape, statsd};
use crate::{agent, log, once};
use values::{as_name, buffer_age, buffer_size, directory, interval, metric, name, speed};

/// What the program was asked to do.
#[derive(Debug)]
pub enum Task {
    /// Report until told to stop.
    Run(agent::Options),
    /// Send one report.
    Send(once::Options),
    /// See whether an agent with these options could do its work.
    Doctor(agent::Options),
}

/// Reports this host's CPU, memory, swap, disk, network, load, processes and uptime to a GopherWatch server.
#[derive(Debug, Parser)]
#[command(name = "gopherwatch-agent", version)]
struct Cli {
    /// The server: a URL with http:// or https://, or HOST:PORT for http
    #[arg(long, env = "GOPHERWATCH_SERVER", global = true, default_value = "http://127.0.0.1:50051", value_parser = address::parse)]
    server: Uri,

    /// A file with the token that the server asks its agents for, if it does
    #[arg(long, env = "GOPHERWATCH_TOKEN_FILE", global = true, value_name = "FILE", value_parser = token)]
    token_file: Option<Token>,

    #[command(flatten)]
    tls: tls::TlsFlags,

    /// The service that the reports are about [default: this host's name; `send` has none]
    #[arg(long, env = "GOPHERWATCH_SERVICE", global = true, value_name = "NAME", value_parser = name)]
    service: Option<String>,

    /// Which replica of the service this is [default: this host's name]
    #[arg(long, env = "GOPHERWATCH_INSTANCE", global = true, value_name = "NAME", value_parser = name)]
    instance: Option<String>,

    /// Time between two reports: 500ms, 1s, 5m
    #[arg(long, env = "GOPHERWATCH_INTERVAL", global = true, default_value = "1s", value_name = "DURATION", value_parser = interval)]
    interval: Duration,

    /// Keep what is not receipted in this directory instead of in memory, so that it survives a killed agent
    #[arg(long, env = "GOPHERWATCH_SPOOL_DIR", global = true, value_name = "DIR", value_parser = directory)]
    spool_dir: Option<PathBuf>,

    /// How much may wait to be receipted; the oldest is dropped first [default: 64MiB in memory, 256MiB on disk]
    #[arg(long, env = "GOPHERWATCH_BUFFER_SIZE", value_name = "SIZE", value_parser = buffer_size)]
    buffer_size: Option<usize>,

    /// How long a report may wait to be receipted before it is dropped
    #[arg(long, env = "GOPHERWATCH_BUFFER_AGE", default_value = "24h", value_name = "DURATION", value_parser = buffer_age)]
    buffer_age: Duration,

    /// Report a service on this host by its processes: those whose command line matches the regular expression PATTERN,
    /// or, as SERVICE=pid:FILE, the one in a pid file and all that it started. Once for each service; in the variable
    /// one a line. Linux only
    #[arg(long, env = "GOPHERWATCH_PROCESS", global = true, value_name = "SERVICE=PATTERN", value_delimiter = '\n', value_parser = process)]
    process: Vec<Option<Watch>>,

    /// Where to take StatsD by UDP, or off
    #[arg(long, env = "GOPHERWATCH_STATSD_ADDR", global = true, value_name = "ADDR", default_value = "127.0.0.1:8125", value_parser = listen)]
    statsd_addr: Listen,

    /// Allow an address for StatsD that other hosts can reach
    #[arg(long, env = "GOPHERWATCH_INSECURE", global = true, value_parser = clap::builder::BoolishValueParser::new())]
    insecure: bool,

    /// Where to take StatsD through a Unix datagram socket
    #[arg(long, env = "GOPHERWATCH_STATSD_SOCKET", global = true, value_name = "PATH")]
    statsd_socket: Option<PathBuf>,

    /// Report a service by its metrics in Prometheus' text format; repeat it for more of them
    #[arg(long, env = "GOPHERWATCH_SCRAPE", global = true, value_name = "SERVICE=URL", value_delimiter = ' ', value_parser = scraped)]
    scrape: Vec<Option<(String, Uri)>>,

    /// What figures from StatsD and of scraped services are to be called, and which are wanted
    #[arg(long, env = "GOPHERWATCH_MAPPING", global = true, value_name = "FILE", value_parser = mapping_file)]
    mapping: Option<Mapping>,

    /// Report N invented services (checkout, payments, ...) instead of this host
    #[arg(long, env = "GOPHERWATCH_SIMULATE", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    simulate: Option<u32>,

    /// How many times faster the simulated days pass; 720: a day in two minutes
    #[arg(long, env = "GOPHERWATCH_SIMULATE_SPEED", default_value = "720", value_name = "X", value_parser = speed)]
    simulate_speed: f64,

    /// How log lines look [default: text on a terminal, otherwise json]
    #[arg(long, env = "GOPHERWATCH_LOG_FORMAT", value_name = "FORMAT")]
    log_format: Option<log::Format>,

    /// The least severe log lines to write
    #[arg(long, env = "GOPHERWATCH_LOG_LEVEL", default_value = "info", value_name = "LEVEL")]
    log_level: log::Level,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Clone, Copy)]
enum Listen {
    At(SocketAddr),
    Off,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check address, token, clock, permissions and sources for an agent with the same options, and say what to do
    Doctor,
    /// Send one report of a --service, and print its receipt and how long it took to be durable
    #[command(override_usage = "gopherwatch-agent send --service NAME [OPTIONS] METRIC=VALUE...")]
    Send {
        /// A metric and its value, such as cpu_percent=97
        #[arg(required = true, value_name = "METRIC=VALUE", value_parser = metric)]
        metrics: Vec<Metric>,
    },
}

/// Flags whose variable may be empty, and is then as good as none: files of variables keep a line for later.
const MAY_BE_EMPTY: [&str; 6] = ["token_file", "ca", "cert", "key", "statsd_socket", "mapping"];

/// Parses a command line, its first word the program's name. The error prints itself: help and version too are errors.
pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Task, clap::Error> {
    let is_empty = |name: &std::ffi::OsStr| env::var_os(name).is_some_and(|value| value.is_empty());
    let mut command = Cli::command();
    for flag in MAY_BE_EMPTY {
        command = command
            .mut_arg(flag, |arg| if arg.get_env().is_some_and(is_empty) { arg.env(Resettable::Reset) } else { arg });
    }
    let cli = command.clone().try_get_matches_from(words)?;
    let mut cli = Cli::from_arg_matches(&cli).map_err(|err| err.format(&mut command))?;
    let tls = mem::take(&mut cli.tls).files(&cli.server).map_err(|it| refusal(ErrorKind::ValueValidation, &it))?;
    match cli.command {
        Some(Command::Send { metrics }) => {
            let Some(service) = cli.service else {
                return Err(refusal(ErrorKind::MissingRequiredArgument, "send needs --service NAME"));
            };
            if metrics.len() > MAX_METRICS {
                let message = format!("a report takes at most {MAX_METRICS} metrics, not {}", metrics.len());
                return Err(refusal(ErrorKind::TooManyValues, &message));
            }
            Ok(Task::Send(once::Options {
                server: cli.server,
                tls,
                service,
                instance: cli.instance,
                token: cli.token_file,
                metrics,
            }))
        }
        ref command => {
            let is_doctor = matches!(command, Some(Command::Doctor));
            let buffer = buffer_options(&cli);
            if let Some(message) = exposed(&cli) {
                return Err(refusal(ErrorKind::ValueValidation, &message));
            }
            let host = host_name();
            if let Some(message) = clash(&cli, &host) {
                return Err(refusal(ErrorKind::ArgumentConflict, &message));
            }
            let subject = match cli.simulate {
                Some(n_services) => agent::Subject::Simulated { n_services, speed: cli.simulate_speed },
                None => agent::Subject::Host { service: cli.service.unwrap_or_else(|| host.clone()) },
            };
            let instance = cli.instance.unwrap_or(host);
            let scrape: Vec<_> = cli.scrape.into_iter().flatten().collect();
            let scrape = targets(&scrape, &instance).map_err(|it| refusal(ErrorKind::ArgumentConflict, &it))?;
            let options = agent::Options {
                server: cli.server,
                tls,
                token: cli.token_file,
                subject,
                processes: cli.process.into_iter().flatten().collect(),
                statsd: statsd::Options {
                    addr: match cli.statsd_addr {
                        Listen::At(addr) => Some(addr),
                        Listen::Off => None,
                    },
                    socket: cli.statsd_socket,
                },
                scrape,
                mapping: cli.mapping.unwrap_or_default(),
                instance,
                interval: cli.interval,
                buffer,
                log: log::Options { format: cli.log_format, level: cli.log_level },
            };
            Ok(if is_doctor { Task::Doctor(options) } else { Task::Run(options) })
        }
    }
}

fn buffer_options(cli: &Cli) -> buffer::Options {
    let usual = if cli.spool_dir.is_some() { Limits::ON_DISK } else { Limits::IN_MEMORY };
    let limits = Limits { bytes: cli.buffer_size.unwrap_or(usual.bytes), age: cli.buffer_age };
    buffer::Options { spool_dir: cli.spool_dir.clone(), limits: Some(limits) }
}

/// A service's only target is this agent's instance of it; several are told apart by where they listen, and those that
/// listen in one place by their paths. Two under one name would be reported as if they were one.
fn targets(scrape: &[(String, Uri)], instance: &str) -> Result<Vec<scrape::Target>, String> {
    let authority = |url: &Uri| url.authority().map_or_else(String::new, |authority| authority.as_str().to_owned());
    let instance_of = |service: &str, url: &Uri| {
        let others = || scrape.iter().filter(|(other, _)| other == service);
        if others().count() == 1 {
            return instance.to_owned();
        }
        let is_alone = others().filter(|(_, other)| authority(other) == authority(url)).count() == 1;
        let path = if is_alone { "" } else { url.path_and_query().map_or("", |path| path.as_str()) };
        valid_name(&(authority(url) + path)).map_or_else(|| instance.to_owned(), |name| name.into_owned())
    };
    let mut targets: Vec<scrape::Target> = Vec::new();
    for (service, url) in scrape {
        let target = scrape::Target { service: service.clone(), instance: instance_of(service, url), url: url.clone() };
        if targets.iter().any(|other| (&other.service, &other.instance) == (&target.service, &target.instance)) {
            return Err(format!(
                "--scrape {service}={url}: there is another target of {service} that would be the same instance of it, {}: \
                 leave one of them out, or make it a service of its own",
                target.instance
            ));
        }
        targets.push(target);
    }
    Ok(targets)
}

fn listen(text: &str) -> Result<Listen, String> {
    match text {
        "" | "off" => Ok(Listen::Off),
        addr => {
            addr.parse().map(Listen::At).map_err(|_| "write an address and a port, as in 127.0.0.1:8125, or off".into())
        }
    }
}

/// Nothing, between two separators or behind the last: variables are written over several lines.
fn scraped(text: &str) -> Result<Option<(String, Uri)>, String> {
    if text.trim().is_empty() { Ok(None) } else { target(text).map(Some) }
}

fn target(text: &str) -> Result<(String, Uri), String> {
    let (service, url) = text.split_once('=').ok_or("write it as service=http://host:port/metrics")?;
    let service = name(service)?;
    let url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    let uri: Uri = url.parse().map_err(|_| "not a URL: write it as http://host:port/metrics")?;
    if uri.scheme_str() != Some("http") {
        return Err("only http:// is scraped: put the agent beside the service".into());
    }
    let authority = uri.authority().ok_or("the URL names no host")?.as_str();
    let host = uri.host().unwrap_or_default();
    // "host:" and "host:70000" parse as an authority without a port.
    if host.is_empty() || authority.contains('@') || (uri.port().is_none() && authority != host) {
        return Err("write it as http://host:port/metrics, without user and password".into());
    }
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Ok((service, uri));
    }
    // Where Prometheus looks, too.
    let uri = format!("http://{authority}/metrics").parse().map_err(|_| "not a URL")?;
    Ok((service, uri))
}

fn mapping_file(path: &str) -> Result<Mapping, String> {
    mapping::read(Path::new(path)).map_err(|err| chain(&err))
}

fn token(path: &str) -> Result<Token, String> {
    Token::in_file(Path::new(path)).map_err(|err| chain(&err))
}

fn refusal(kind: ErrorKind, message: &str) -> clap::Error {
    Cli::command().error(kind, message)
}

/// Why StatsD is not taken there: anyone who reaches it could raise and hide alerts.
fn exposed(cli: &Cli) -> Option<String> {
    let Listen::At(addr) = cli.statsd_addr else { return None };
    // A simulated fleet takes none.
    let is_fine = addr.ip().is_loopback() || cli.insecure || cli.simulate.is_some();
    (!is_fine).then(|| {
        format!(
            "--statsd-addr {addr} can be reached from other hosts, and StatsD has neither TLS nor tokens: listen on 127.0.0.1 \
             and run an agent on each host, or say --insecure if the network is yours alone"
        )
    })
}

/// Why these processes cannot be reported beside each other and the rest: figures of two things under one name would be
/// neither's.
fn clash(cli: &Cli, host: &str) -> Option<String> {
    let real = [
        ("--process", !cli.process.is_empty()),
        ("--statsd-socket", cli.statsd_socket.is_some()),
        ("--scrape", !cli.scrape.is_empty()),
    ];
    if let Some((flag, _)) = real.iter().find(|(_, is_given)| cli.simulate.is_some() && *is_given) {
        return Some(format!("{flag} reports what there is on this host, --simulate invents: leave one of them out"));
    }
    let processes: Vec<&Watch> = cli.process.iter().flatten().collect();
    let first = processes.first()?;
    if !cfg!(target_os = "linux") {
        return Some(format!("--process {}=... reads /proc, which only Linux has", first.service));
    }
    let own = cli.service.as_deref().unwrap_or(host);
    processes.iter().enumerate().find_map(|(idx, Watch { service, .. })| {
        if service == own {
            return Some(format!("--process {service}=...: {service} is this host's own report already (--service)"));
        }
        let is_twice = processes[..idx].iter().any(|before| before.service == *service);
        is_twice.then(|| format!("--process {service}=... is there twice: join the patterns as {service}=(one|other)"))
    })
}

fn process(text: &str) -> Result<Option<Watch>, String> {
    // The last line of a variable has a break behind it, too.
    if text.trim().is_empty() {
        return Ok(None);
    }
    let (service, pattern) = text.split_once('=').ok_or("write it as SERVICE=PATTERN, such as web=nginx")?;
    Watch::new(name(service)?, pattern).map(Some)
}

fn host_name() -> String {
    as_name(&sysinfo::System::host_name().unwrap_or_default()).unwrap_or_else(|| "unknown-host".into())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use gopherwatch_proto::is_valid_name;

    use super::*;

    fn parsed(line: &str) -> Result<Task, String> {
        let words = format!("gopherwatch-agent {line}");
        parse(words.split_whitespace().map(OsString::from)).map_err(|err| err.to_string())
    }

    fn run(line: &str) -> agent::Options {
        match parsed(line) {
            Ok(Task::Run(options)) => options,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn targets_in_one_place_are_told_apart_by_their_paths_and_two_that_are_one_are_refused() {
        let named = |line: &str| -> Vec<String> {
            run(line).scrape.into_iter().map(|target| format!("{}/{}", target.service, target.instance)).collect()
        };
        assert_eq!(named("--instance i --scrape web=h:1/a"), ["web/i"]);
        assert_eq!(named("--scrape web=h:1/a --scrape web=h:2/a --scrape db=h:1/b")[..2], ["web/h:1", "web/h:2"]);
        let by_path = "--scrape web=h:1/a --scrape web=h:1/b?x=1 --scrape web=h:2/a";
        assert_eq!(named(by_path), ["web/h:1/a", "web/h:1/b_x_1", "web/h:2"]);
        for twice in ["--scrape web=h:1 --scrape web=http://h:1/metrics", "--scrape web=h:1/a?x --scrape web=h:1/a_x"] {
            let refusal = parsed(twice).expect_err(twice);
            assert!(refusal.contains("would be the same instance"), "{refusal}");
        }
    }

    #[test]
    fn without_arguments_this_host_reports_each_second_to_loopback() {
        let options = run("");
        assert_eq!(options.server.to_string(), "http://127.0.0.1:50051/");
        assert_eq!(options.interval, Duration::from_secs(1));
        assert!(is_valid_name(&options.instance));
        assert!(matches!(options.subject, agent::Subject::Host { service } if is_valid_name(&service)));
    }

    #[test]
    fn the_buffer_is_in_memory_unless_it_has_a_directory() {
        assert_eq!(run("").buffer, buffer::Options { spool_dir: None, limits: Some(Limits::IN_MEMORY) });
        let on_disk = run("--spool-dir /var/spool/x").buffer;
        assert_eq!(on_disk, buffer::Options { spool_dir: Some("/var/spool/x".into()), limits: Some(Limits::ON_DISK) });
        let limits = run("--buffer-size 5MiB --buffer-age 7d").buffer.limits;
        assert_eq!(limits, Some(Limits { bytes: 5 << 20, age: Duration::from_secs(7 * 86_400) }));
    }

    #[test]
    fn a_buffer_of_no_size_or_age_is_refused() {
        for (line, because) in [
            ("--spool-dir=", "takes a directory"),
            ("--buffer-size 64", "64MiB"),
            ("--buffer-size 0MiB", "1MiB to 64GiB"),
            ("--buffer-size 1023KiB", "1MiB to 64GiB"),
            ("--buffer-size 65GiB", "1MiB to 64GiB"),
            ("--buffer-size 99999999999999999999GiB", "64MiB"),
            ("--buffer-age 24", "500ms"),
            ("--buffer-age 9s", "10s to 30d"),
            ("--buffer-age 31d", "10s to 30d"),
        ] {
            let message = parsed(line).expect_err(line);
            assert!(message.contains(because), "{line}: {message}");
        }
    }

    #[test]
    fn statsd_is_taken_on_loopback_elsewhere_or_not() {
        let addr = |line: &str| run(line).statsd.addr.map(|addr| addr.to_string());
        assert_eq!(addr("").as_deref(), Some("127.0.0.1:8125"));
        assert_eq!(addr("--statsd-addr [::1]:9125").as_deref(), Some("[::1]:9125"));
        assert_eq!(addr("--statsd-addr off"), None);
        assert_eq!(addr("--statsd-addr="), None);
        for bad in ["8125", "localhost", "127.0.0.1", "127.0.0.1:70000"] {
            assert!(parsed(&format!("--statsd-addr {bad}")).is_err(), "{bad}");
        }
    }

    #[test]
    fn statsd_from_other_hosts_is_refused_unless_insecure() {
        for addr in ["0.0.0.0:8125", "[::]:8125", "192.0.2.1:8125"] {
            for command in ["", "doctor"] {
                let message = parsed(&format!("--statsd-addr {addr} {command}")).expect_err(addr);
                for word in ["--statsd-addr", addr, "listen on 127.0.0.1", "--insecure"] {
                    assert!(message.contains(word), "{word}: {message}");
                }
            }
            assert_eq!(run(&format!("--insecure --statsd-addr {addr}")).statsd.addr, addr.parse().ok());
            // These take none.
            for line in ["--simulate 3", "send --service a b=1"] {
                assert!(parsed(&format!("--statsd-addr {addr} {line}")).is_ok(), "{line}");
            }
        }
    }

    #[test]
    fn a_target_is_a_service_and_a_url() {
        let targets =
            run("--instance h1 --scrape web=http://127.0.0.1:81/metrics?x=1 --scrape node=localhost:9100").scrape;
        let shown: Vec<_> = targets.iter().map(|it| format!("{}/{} {}", it.service, it.instance, it.url)).collect();
        assert_eq!(shown, ["web/h1 http://127.0.0.1:81/metrics?x=1", "node/h1 http://localhost:9100/metrics"]);
        for bad in [
            "web",
            "=http://a",
            "-x=http://a",
            "a=https://b",
            "a=http://",
            "a=http://b:",
            "a=http://u:p@b",
            "a=ftp://b",
        ] {
            assert!(parsed(&format!("--scrape {bad}")).is_err(), "{bad}");
        }
    }

    #[test]
    fn several_targets_of_one_service_are_instances_of_it() {
        let targets =
            run("--instance h1 --scrape web=127.0.0.1:81 --scrape web=[::1]:82 --scrape db=127.0.0.1:81").scrape;
        let instances: Vec<_> = targets.iter().map(|it| it.instance.as_str()).collect();
        assert_eq!(instances, ["127.0.0.1:81", "1_:82", "h1"]);
        assert!(instances.iter().all(|name| is_valid_name(name)));
    }

    #[test]
    fn a_bad_name_is_refused_and_says_what_a_name_is() {
        let message = parsed("--service=-_x").expect_err("refused");
        assert!(message.contains("--service"), "{message}");
        let message = parsed("--instance=wéb").expect_err("refused");
        assert!(message.contains("begins with a letter or digit"), "{message}");
    }

    #[test]
    fn send_takes_several_metrics_and_its_options_on_either_side() {
        for line in [
            "send --service checkout --server h:1 cpu_percent=97 request_count=1e3",
            "--service checkout --server h:1 send cpu_percent=97 request_count=1e3",
        ] {
            let Ok(Task::Send(options)) = parsed(line) else { panic!("{line}") };
            assert_eq!(options.service, "checkout");
            assert_eq!(options.server.to_string(), "http://h:1/");
            let metrics: Vec<_> = options.metrics.iter().map(|m| (m.name.as_str(), m.value)).collect();
            assert_eq!(metrics, [("cpu_percent", 97.0), ("request_count", 1000.0)]);
        }
    }

    #[test]
    fn send_refuses_what_the_server_would() {
        for (line, because) in [
            ("send cpu_percent=97", "--service"),
            ("send --service a", "METRIC=VALUE"),
            ("send --service a cpu", "metric=value"),
            ("send --service a cpu=much", "not a number"),
            ("send --service a cpu=NaN", "finite"),
            ("send --service a c!=1", "begins with"),
        ] {
            let message = parsed(line).expect_err(line);
            assert!(message.contains(because), "{line}: {message}");
        }
    }

    #[test]
    fn processes_are_watched_one_for_each_service() {
        let options = run("--service host-a --process web=nginx --process db=pid:/run/pg.pid --process=x=a=b");
        let services: Vec<_> = options.processes.iter().map(|watch| watch.service.as_str()).collect();
        assert_eq!(services, ["web", "db", "x"]);
    }

    #[test]
    fn processes_that_cannot_be_told_apart_or_found_are_refused() {
        for (line, because) in [
            ("--process nginx", "SERVICE=PATTERN"),
            ("--process=-x=nginx", "begins with a letter"),
            ("--process web=(", "unclosed group"),
            ("--process web=", "empty"),
            ("--process web=pid:", "pid file"),
            ("--process web=a --process db=b --process web=c", "(one|other)"),
            ("--service web --process web=a", "--service"),
            ("--simulate 3 --process web=a", "--simulate"),
        ] {
            let message = parsed(line).expect_err(line);
            assert!(message.contains(because), "{line}: {message}");
        }
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    /// The server knows the agent's names by this list alone.
    #[test]
    fn the_agents_names_are_those_of_its_flags() {
        let command = Cli::command();
        let flags: BTreeSet<&str> = command.get_arguments().filter_map(|arg| arg.get_env()?.to_str()).collect();
        assert_eq!(BTreeSet::from(gopherwatch_environment::AGENT), flags);
    }
}
