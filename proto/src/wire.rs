//! A report read where it lies: what prost takes is taken, with the same values, and nothing is allocated for it.
//!
//! Protocol Buffers encoding: <https://protobuf.dev/programming-guides/encoding/>.

use std::ops::Range;

/// What is wrong with a message that is no report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It ends within a field.
    #[error("it ends within a field")]
    Truncated,
    /// A number of more than 64 bits.
    #[error("a number has more than 64 bits")]
    Number,
    /// A field's number or type is none there is.
    #[error("a field's number or type is none there is")]
    Key,
    /// A field has another type than metrics.proto says.
    #[error("a field has another type than metrics.proto says")]
    Type,
    /// A group that does not end, ends another one, or lies too deep.
    #[error("a group does not end where it should, or lies too deep")]
    Group,
    /// A name that is not UTF-8.
    #[error("a name is not UTF-8")]
    Text,
}

/// Groups within one another that are passed over, as deep as prost goes.
const MAX_DEPTH: u32 = 100;

/// Where a name lies in its message.
type Span = Range<u32>;

/// One report, as places in its message. It is filled anew with each message and so allocates only to grow.
#[derive(Debug, Default)]
pub struct Report {
    service: Span,
    instance: Span,
    /// When the agent took the reading; 0: it does not say.
    pub time_unix_nano: u64,
    /// Its number; 0: none.
    pub sequence: u64,
    /// Whether it is the last one of an orderly stop.
    pub leaving: bool,
    metrics: Vec<(Span, f64)>,
    /// How far the message has been read.
    at: u32,
    /// Whether it has been said whose it is.
    is_named: bool,
}

impl Report {
    /// Reads `message`. Names are not looked at: see [`Self::check_names`].
    pub fn read(&mut self, message: &[u8]) -> Result<(), Malformed> {
        self.begin(message)?;
        self.finish(message).map(drop)
    }

    /// Reads what stands before the first metric of `message`: with most senders all but the metrics. They are to be read
    /// by [`Self::finish`] or, if none has been read ([`Self::n_metrics`]), from the [`Self::rest`] by a [`Template`].
    pub fn begin(&mut self, message: &[u8]) -> Result<(), Malformed> {
        self.metrics.clear();
        (self.service, self.instance) = (0..0, 0..0);
        (self.time_unix_nano, self.sequence, self.leaving) = (0, 0, false);
        self.at = 0;
        self.fields(message, |next| next == METRIC)
    }

    /// What has not been read.
    pub fn rest<'a>(&self, message: &'a [u8]) -> &'a [u8] {
        &message[self.at as usize..]
    }

    /// Reads the rest; whether that said anything of whose the report is.
    pub fn finish(&mut self, message: &[u8]) -> Result<bool, Malformed> {
        self.is_named = false;
        self.fields(message, |_| false)?;
        Ok(self.is_named)
    }

    /// Reads fields up to one that begins with a byte that `is_end` knows.
    #[inline]
    fn fields(&mut self, message: &[u8], is_end: impl Fn(u8) -> bool) -> Result<(), Malformed> {
        // Places are kept in 32 bits; gRPC's own length has no more.
        let end = u32::try_from(message.len()).map_err(|_| Malformed::Truncated)?;
        let mut reader = Reader { message, at: self.at, end };
        while let Some(next) = message.get(reader.at as usize) {
            if is_end(*next) {
                break;
            }
            match reader.key()? {
                (1, LENGTH) => {
                    self.is_named = true;
                    reader.name(&mut self.service)?;
                }
                (2, LENGTH) => {
                    self.is_named = true;
                    reader.name(&mut self.instance)?;
                }
                (3, FIXED64) => self.time_unix_nano = u64::from_le_bytes(reader.eight()?),
                (4, VARINT) => self.sequence = reader.varint()?,
                (5, LENGTH) => {
                    let metric = reader.metric()?;
                    self.metrics.push(metric);
                }
                (6, VARINT) => self.leaving = reader.varint()? != 0,
                (1..=6, _) => return Err(Malformed::Type),
                (field, kind) => reader.skip(field, kind, MAX_DEPTH)?,
            }
        }
        self.at = reader.at;
        Ok(())
    }

    /// The service's name in the message that was read; empty: the report names none.
    pub fn service<'a>(&self, message: &'a [u8]) -> &'a [u8] {
        slice(message, &self.service)
    }

    /// The instance's name in the message that was read; empty: the report names none.
    pub fn instance<'a>(&self, message: &'a [u8]) -> &'a [u8] {
        slice(message, &self.instance)
    }

    /// Names and values of the metrics in the message that was read, in its order.
    pub fn metrics<'a>(&self, message: &'a [u8]) -> impl ExactSizeIterator<Item = (&'a [u8], f64)> {
        self.metrics.iter().map(|(name, value)| (slice(message, name), *value))
    }

    /// How many metrics it has.
    pub fn n_metrics(&self) -> usize {
        self.metrics.len()
    }

    /// Whether every name is UTF-8, as metrics.proto has it. Names that are known need not be asked about.
    pub fn check_names(&self, message: &[u8]) -> Result<(), Malformed> {
        let names = self.metrics.iter().map(|(name, _)| name).chain([&self.service, &self.instance]);
        names.map(|name| slice(message, name)).try_for_each(check)
    }

    /// Gives up the room that an unusually large report took.
    pub fn shrink(&mut self, max_metrics: usize) {
        self.metrics.clear();
        self.metrics.shrink_to(max_metrics);
    }
}

fn slice<'a>(message: &'a [u8], span: &Span) -> &'a [u8] {
    &message[span.start as usize..span.end as usize]
}

fn check(name: &[u8]) -> Result<(), Malformed> {
    std::str::from_utf8(name).map(drop).map_err(|_| Malformed::Text)
}

const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const LENGTH: u8 = 2;
const GROUP: u8 = 3;
const END_GROUP: u8 = 4;
const FIXED32: u8 = 5;

/// How a metric begins in a report; its name and value in the metric.
const METRIC: u8 = 5 << 3 | LENGTH;
const NAME: u8 = 1 << 3 | LENGTH;
const VALUE: u8 = 2 << 3 | FIXED64;

/// The metrics of a report as nearly everybody writes them: one behind the other, each with its name and its value, which
/// is left out when it is 0. Where it fits, they are read in one look, and no name is looked up.
#[derive(Clone, Debug)]
pub struct Template {
    /// The names as they stand on the wire, one behind the other.
    names: Box<[u8]>,
    /// Where each of them ends.
    ends: Box<[u16]>,
}

impl Template {
    /// For metrics of these names; `None`: there are too many of them, or one is too long for this.
    pub fn new<'a>(names: impl IntoIterator<Item = &'a [u8]>) -> Option<Self> {
        let (mut text, mut ends) = (Vec::new(), Vec::new());
        for name in names {
            let n_bytes = u8::try_from(name.len()).ok().filter(|n| *n <= MAX_TEMPLATE_NAME)?;
            text.extend([NAME, n_bytes]);
            text.extend(name);
            ends.push(u16::try_from(text.len()).ok()?);
        }
        Some(Self { names: text.into(), ends: ends.into() })
    }

    /// Reads metrics that make up all of `rest`; false: they do not fit, and nothing is known of them.
    pub fn read(&self, rest: &[u8], values: &mut Vec<f64>) -> bool {
        values.clear();
        let (mut rest, mut from) = (rest, 0);
        for &end in &self.ends {
            let name = &self.names[from..usize::from(end)];
            from = usize::from(end);
            let Some((&[METRIC, n_bytes], behind)) = rest.split_first_chunk() else { return false };
            let Some((theirs, behind)) = behind.split_at_checked(name.len()) else { return false };
            if theirs != name {
                return false;
            }
            rest = behind;
            match usize::from(n_bytes).checked_sub(name.len()) {
                Some(0) => values.push(0.0),
                Some(9) => {
                    let Some((&[VALUE, value @ ..], behind)) = rest.split_first_chunk::<9>() else { return false };
                    values.push(f64::from_le_bytes(value));
                    rest = behind;
                }
                _ => return false,
            }
        }
        rest.is_empty()
    }
}

/// The longest name with which the length of a metric fits into one byte: two stand before it, and nine are the value's.
const MAX_TEMPLATE_NAME: u8 = 0x7f - 2 - 9;

/// Reads a message, or a message within it, from the front.
struct Reader<'a> {
    message: &'a [u8],
    at: u32,
    end: u32,
}

impl Reader<'_> {
    /// A field's number and type.
    #[inline(always)]
    fn key(&mut self) -> Result<(u32, u8), Malformed> {
        let key = u32::try_from(self.varint()?).map_err(|_| Malformed::Key)?;
        let kind = (key & 7) as u8;
        if key >> 3 == 0 || kind > FIXED32 { Err(Malformed::Key) } else { Ok((key >> 3, kind)) }
    }

    #[inline(always)]
    fn byte(&mut self) -> Result<u8, Malformed> {
        if self.at == self.end {
            return Err(Malformed::Truncated);
        }
        let byte = *self.message.get(self.at as usize).ok_or(Malformed::Truncated)?;
        self.at += 1;
        Ok(byte)
    }

    #[inline(always)]
    fn varint(&mut self) -> Result<u64, Malformed> {
        let first = self.byte()?;
        if first < 0x80 { Ok(u64::from(first)) } else { self.long_varint(first) }
    }

    #[inline(never)]
    fn long_varint(&mut self, first: u8) -> Result<u64, Malformed> {
        let mut number = u64::from(first & 0x7f);
        for shift in (7..70).step_by(7) {
            let byte = self.byte()?;
            // Of the tenth byte one bit is left.
            if shift == 63 && byte > 1 {
                return Err(Malformed::Number);
            }
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Malformed::Number)
    }

    #[inline]
    fn eight(&mut self) -> Result<[u8; 8], Malformed> {
        let from = self.advance(8)?;
        let bytes = self.message.get(from as usize..).and_then(<[u8]>::first_chunk);
        bytes.copied().ok_or(Malformed::Truncated)
    }

    /// Moves on by so many bytes; where they began.
    #[inline]
    fn advance(&mut self, n_bytes: u64) -> Result<u32, Malformed> {
        let from = self.at;
        match u32::try_from(n_bytes) {
            Ok(n_bytes) if n_bytes <= self.end - from => self.at = from + n_bytes,
            _ => return Err(Malformed::Truncated),
        }
        Ok(from)
    }

    #[inline]
    fn span(&mut self) -> Result<Span, Malformed> {
        let n_bytes = self.varint()?;
        let from = self.advance(n_bytes)?;
        Ok(from..self.at)
    }

    /// A name. Of one that comes twice the last one counts, but the first must be text too.
    #[inline]
    fn name(&mut self, name: &mut Span) -> Result<(), Malformed> {
        let before = std::mem::replace(name, self.span()?);
        if before.is_empty() { Ok(()) } else { check(slice(self.message, &before)) }
    }

    #[inline]
    fn metric(&mut self) -> Result<(Span, f64), Malformed> {
        let Range { start, end } = self.span()?;
        match self.usual_metric(start, end) {
            Some(metric) => Ok(metric),
            None => self.any_metric(start, end),
        }
    }

    /// A metric as nearly everybody writes it: its name of less than 128 bytes, then its value, and nothing else.
    #[inline]
    fn usual_metric(&self, start: u32, end: u32) -> Option<(Span, f64)> {
        let bytes = self.message.get(start as usize..end as usize)?;
        let (head, bytes) = bytes.split_first_chunk::<2>()?;
        let (rest, value) = bytes.split_last_chunk::<8>()?;
        let (key, name) = rest.split_last()?;
        let is_usual = *head == [NAME, name.len() as u8] && name.len() < 0x80 && *key == VALUE;
        is_usual.then(|| (start + 2..start + 2 + name.len() as u32, f64::from_le_bytes(*value)))
    }

    fn any_metric(&self, start: u32, end: u32) -> Result<(Span, f64), Malformed> {
        let mut inner = Reader { message: self.message, at: start, end };
        let (mut name, mut value) = (0..0, 0.0);
        while inner.at < inner.end {
            match inner.key()? {
                (1, LENGTH) => inner.name(&mut name)?,
                (2, FIXED64) => value = f64::from_le_bytes(inner.eight()?),
                (1 | 2, _) => return Err(Malformed::Type),
                (field, kind) => inner.skip(field, kind, MAX_DEPTH - 1)?,
            }
        }
        Ok((name, value))
    }

    /// Passes over a field that this version does not know.
    #[cold]
    fn skip(&mut self, field: u32, kind: u8, depth: u32) -> Result<(), Malformed> {
        if depth == 0 {
            return Err(Malformed::Group);
        }
        match kind {
            VARINT => self.varint().map(drop),
            FIXED64 => self.advance(8).map(drop),
            FIXED32 => self.advance(4).map(drop),
            LENGTH => self.span().map(drop),
            GROUP => loop {
                match self.key()? {
                    (end, END_GROUP) if end == field => return Ok(()),
                    (_, END_GROUP) => return Err(Malformed::Group),
                    (inner, kind) => self.skip(inner, kind, depth - 1)?,
                }
            },
            _ => Err(Malformed::Group),
        }
    }
}

#[cfg(test)]
mod tests;
