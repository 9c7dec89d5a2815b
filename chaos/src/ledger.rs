//! What one stream of an agent has sent and been told: a file of lines, each on disk before anything follows from it.
//!
//! `H name` whose it is · `E epoch` a numbering begins · `S …` reports, before they are sent · `G n time` the last
//! `n` of these go into the call · `R …` a receipt · `F …` an answer that the contract does not allow. A process killed while
//! it wrote leaves a torn last line, of which nothing was sent: it is cut off.

use std::{
    fmt::Write as _,
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use gopherwatch_proto::v1::{Metric, MetricReport};

use crate::rules::METRICS;

/// Replicas of each service.
const INSTANCES_PER_SERVICE: u32 = 4;

/// One report as it was sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Sent {
    /// Whose: the place of the instance in its stream.
    pub instance: u32,
    /// The numbering.
    pub epoch: u64,
    /// Its number.
    pub sequence: u64,
    /// When it was read, nanoseconds since 1970, in whole microseconds: what the database keeps of a time.
    pub time: u64,
    /// The readings, in the order of [`METRICS`]; `None`: the report lacks it.
    pub values: [Option<f64>; METRICS.len()],
}

impl Sent {
    /// The report.
    pub fn report(&self, stream: &str) -> MetricReport {
        let (service_name, instance) = names(stream, self.instance);
        let readings = METRICS.iter().zip(self.values);
        let metrics = readings
            .filter_map(|(name, value)| value.map(|value| Metric { name: (*name).to_owned(), value }))
            .collect();
        MetricReport {
            service_name,
            instance,
            time_unix_nano: self.time,
            sequence: self.sequence,
            metrics,
            leaving: false,
        }
    }
}

/// The service and instance at this place of a stream.
pub fn names(stream: &str, instance: u32) -> (String, String) {
    (format!("{stream}-{}", instance / INSTANCES_PER_SERVICE), format!("i{}", instance % INSTANCES_PER_SERVICE))
}

/// A receipt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// How many reports of the ledger, from its first, have receipts now.
    pub upto: usize,
    /// The stream's figures.
    pub accepted: u64,
    /// The same.
    pub rejected: u64,
    /// The same.
    pub duplicates: u64,
    /// When it came, microseconds since 1970.
    pub at_us: u64,
    /// How long after the stream's end it came.
    pub latency_us: u64,
}

/// Everything that a ledger says.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    /// The stream's name, which its services begin with.
    pub stream: String,
    /// How many numberings began.
    pub n_epochs: u64,
    /// The reports, in the order sent.
    pub sent: Vec<Sent>,
    /// When reports went into a call for the first time: the place of the first of them, and microseconds since 1970.
    pub given: Vec<(usize, u64)>,
    /// The receipts.
    pub receipts: Vec<Receipt>,
    /// Answers that the contract does not allow.
    pub faults: Vec<String>,
    /// The numbering that began last.
    pub epoch: u64,
}

impl Contents {
    /// Reads a ledger; nothing of a torn last line.
    pub fn read(path: &Path) -> io::Result<Self> {
        let text = std::fs::read_to_string(path)?;
        let mut contents = Self::default();
        whole_lines(&text).lines().for_each(|line| contents.take(line, path));
        Ok(contents)
    }

    /// How many reports have receipts.
    pub fn n_receipted(&self) -> usize {
        self.receipts.last().map_or(0, |receipt| receipt.upto)
    }

    /// When the report at this place went into a call for the first time, if the ledger says so.
    pub fn given_at(&self, place: usize) -> Option<u64> {
        let behind = self.given.partition_point(|(first, _)| *first <= place);
        self.given[..behind].last().map(|(_, at_us)| *at_us)
    }

    fn take(&mut self, line: &str, path: &Path) {
        let (kind, rest) = line.split_at(1);
        let rest = rest.trim_start();
        let done = match kind {
            "H" => {
                rest.clone_into(&mut self.stream);
                Some(())
            }
            "E" => rest.parse().ok().map(|epoch| {
                self.epoch = epoch;
                self.n_epochs += 1;
            }),
            "S" => rest
                .split(';')
                .map(|report| self.parse_sent(report))
                .collect::<Option<Vec<_>>>()
                .map(|sent| self.sent.extend(sent)),
            "G" => rest.split_once(' ').and_then(|(n, at_us)| {
                let first = self.sent.len().checked_sub(n.parse().ok()?)?;
                self.given.push((first, at_us.parse().ok()?));
                Some(())
            }),
            "R" => parse_receipt(rest).map(|receipt| self.receipts.push(receipt)),
            "F" => {
                self.faults.push(rest.to_owned());
                Some(())
            }
            _ => None,
        };
        done.unwrap_or_else(|| panic!("{}: this is no line of a ledger: {line}", path.display()));
    }

    fn parse_sent(&self, text: &str) -> Option<Sent> {
        let mut words = text.split(' ');
        let mut next = || words.next();
        let instance = next()?.parse().ok()?;
        let sequence = next()?.parse().ok()?;
        let time = next()?.parse().ok()?;
        let mut values = [None; METRICS.len()];
        for value in &mut values {
            *value = match next()? {
                "-" => None,
                number => Some(number.parse().ok()?),
            };
        }
        Some(Sent { instance, epoch: self.epoch, sequence, time, values })
    }
}

fn parse_receipt(text: &str) -> Option<Receipt> {
    let numbers: Vec<u64> = text.split(' ').map(|word| word.parse().ok()).collect::<Option<_>>()?;
    let [upto, accepted, rejected, duplicates, at_us, latency_us] = numbers.try_into().ok()?;
    Some(Receipt { upto: upto as usize, accepted, rejected, duplicates, at_us, latency_us })
}

/// The text up to the end of its last whole line.
fn whole_lines(text: &str) -> &str {
    &text[..text.rfind('\n').map_or(0, |at| at + 1)]
}

/// A ledger that is being written.
#[derive(Debug)]
pub struct Ledger {
    file: File,
    line: String,
}

impl Ledger {
    /// Opens the ledger of this stream; what it says already. A torn last line is cut off.
    pub fn open(folder: &Path, stream: &str) -> io::Result<(Self, Contents)> {
        let path = path(folder, stream);
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(&path)?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        file.set_len(whole_lines(&text).len() as u64)?;
        let mut ledger = Self { file, line: String::new() };
        if whole_lines(&text).is_empty() {
            ledger.append(format_args!("H {stream}"))?;
        }
        Ok((ledger, Contents::read(&path)?))
    }

    /// A numbering begins.
    pub fn epoch(&mut self, epoch: u64) -> io::Result<()> {
        self.append(format_args!("E {epoch}"))
    }

    /// These reports are about to be sent.
    pub fn sent(&mut self, reports: &[Sent]) -> io::Result<()> {
        let mut text = String::with_capacity(reports.len() * 48);
        for (n, sent) in reports.iter().enumerate() {
            let semicolon = if n == 0 { "" } else { ";" };
            write!(text, "{semicolon}{} {} {}", sent.instance, sent.sequence, sent.time).unwrap();
            for value in sent.values {
                match value {
                    Some(value) => write!(text, " {value}").unwrap(),
                    None => text.push_str(" -"),
                }
            }
        }
        self.append(format_args!("S {text}"))
    }

    /// The `n` reports that were written down last go into a call now. Not brought to the disk: nothing is lost without it
    /// but a time.
    pub fn given(&mut self, n: usize, at_us: u64) -> io::Result<()> {
        self.write(format_args!("G {n} {at_us}"))
    }

    /// A receipt came.
    pub fn receipt(&mut self, receipt: Receipt) -> io::Result<()> {
        let Receipt { upto, accepted, rejected, duplicates, at_us, latency_us } = receipt;
        self.append(format_args!("R {upto} {accepted} {rejected} {duplicates} {at_us} {latency_us}"))
    }

    /// An answer came that the contract does not allow.
    pub fn fault(&mut self, what: &str) -> io::Result<()> {
        self.append(format_args!("F {}", what.replace('\n', " ")))
    }

    fn append(&mut self, line: std::fmt::Arguments<'_>) -> io::Result<()> {
        self.write(line)?;
        self.file.sync_data()
    }

    fn write(&mut self, line: std::fmt::Arguments<'_>) -> io::Result<()> {
        self.line.clear();
        writeln!(self.line, "{line}").unwrap();
        self.file.write_all(self.line.as_bytes())
    }
}

fn path(folder: &Path, stream: &str) -> PathBuf {
    folder.join(format!("{stream}.ledger"))
}

/// Every ledger of a folder.
pub fn read_all(folder: &Path) -> io::Result<Vec<Contents>> {
    let mut paths = std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    paths.retain(|path| path.extension().is_some_and(|ext| ext == "ledger"));
    paths.sort();
    paths.iter().map(|path| Contents::read(path)).collect()
}

/// Follows the ledgers of a folder while they grow: how much was sent, and how much of it has receipts. It reads each
/// byte once, so that a kill can be preceded by a look.
#[derive(Debug)]
pub struct Tail {
    folder: PathBuf,
    files: Vec<TailOf>,
}

#[derive(Debug)]
struct TailOf {
    path: PathBuf,
    read_to: u64,
    n_sent: u64,
    n_receipted: u64,
}

impl Tail {
    /// Follows the ledgers that are or come in `folder`.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), files: Vec::new() }
    }

    /// Reports sent, and receipted, so far.
    pub fn look(&mut self) -> (u64, u64) {
        for entry in std::fs::read_dir(&self.folder).unwrap() {
            let path = entry.unwrap().path();
            if !self.files.iter().any(|file| file.path == path) {
                self.files.push(TailOf { path, read_to: 0, n_sent: 0, n_receipted: 0 });
            }
        }
        self.files.iter_mut().for_each(TailOf::look);
        self.files.iter().fold((0, 0), |(sent, receipted), file| (sent + file.n_sent, receipted + file.n_receipted))
    }
}

impl TailOf {
    fn look(&mut self) {
        let mut file = File::open(&self.path).unwrap();
        file.seek(SeekFrom::Start(self.read_to)).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        let text = whole_lines(&text);
        self.read_to += text.len() as u64;
        for line in text.lines() {
            match line.as_bytes()[0] {
                b'S' => self.n_sent += line.bytes().filter(|byte| *byte == b';').count() as u64 + 1,
                b'R' => self.n_receipted = parse_receipt(&line[2..]).unwrap().upto as u64,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(instance: u32, sequence: u64) -> Sent {
        Sent { instance, epoch: 7, sequence, time: 1_000 * sequence, values: [Some(90.25), None, Some(0.1)] }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let (mut ledger, _) = Ledger::open(folder.path(), "a").unwrap();
        ledger.epoch(7).unwrap();
        ledger.sent(&[sent(0, 1), sent(1, 1)]).unwrap();
        ledger.given(2, 4).unwrap();
        let receipt = Receipt { upto: 2, accepted: 2, at_us: 5, ..Receipt::default() };
        ledger.receipt(receipt).unwrap();
        ledger.fault("odd").unwrap();
        let contents = read_all(folder.path()).unwrap().remove(0);
        assert_eq!((contents.stream.as_str(), contents.n_epochs, contents.n_receipted()), ("a", 1, 2));
        assert_eq!(contents.sent, [sent(0, 1), sent(1, 1)]);
        assert_eq!((contents.given_at(0), contents.given_at(1)), (Some(4), Some(4)));
        assert_eq!((contents.receipts, contents.faults), (vec![receipt], vec!["odd".to_owned()]));
        assert_eq!(Tail::new(folder.path()).look(), (2, 2));
    }

    #[test]
    fn a_torn_last_line_was_never_sent() {
        let folder = tempfile::tempdir().unwrap();
        let (mut ledger, _) = Ledger::open(folder.path(), "a").unwrap();
        ledger.epoch(7).unwrap();
        ledger.sent(&[sent(0, 1)]).unwrap();
        ledger.file.write_all(b"S 0 2 2000 9").unwrap();
        assert_eq!(read_all(folder.path()).unwrap()[0].sent, [sent(0, 1)]);
        let (mut ledger, contents) = Ledger::open(folder.path(), "a").unwrap();
        assert_eq!(contents.sent, [sent(0, 1)]);
        ledger.sent(&[sent(0, 2)]).unwrap();
        assert_eq!(read_all(folder.path()).unwrap()[0].sent, [sent(0, 1), sent(0, 2)]);
    }
}
