//! The points of an instance's windows as protobuf messages: all of them, or those since they were last written.

use std::time::Duration;

use prost::Message;

use super::{RecordError, seal};
use crate::{
    model::Timestamp,
    rules::{Bucket, Coarse, Point, Series, SeriesPart},
    state::{InstanceState, WindowRows},
};

/// Rows of added points after which all are written anew: so that a start reads at most so many a window, and an
/// instance that reports each second and is receipted every five writes them all once in five minutes.
const MAX_PARTS: u32 = 64;

/// What a snapshot does to an instance's rows of window points.
#[derive(Debug)]
pub(in crate::journal) enum WindowsChange {
    /// Nothing.
    Keep,
    /// All of them go; these points, if there are any, take their place.
    Replace(Option<Vec<u8>>),
    /// These points are added as the row of this number.
    Add(u32, Vec<u8>),
}

impl WindowsChange {
    /// Brings the journal up to the instance's windows, and notes that it is.
    pub(super) fn of(instance: &mut InstanceState) -> Self {
        let key = instance.key.clone();
        let sealed =
            |part: u32, body| seal(&[key.service().as_bytes(), key.instance().as_bytes(), &part.to_le_bytes()], body);
        let series = &mut instance.progress.series;
        let fits = |series: &Series| series.n_unsaved <= series.points.len();
        let (change, rows) = match instance.window_rows {
            WindowRows::None if series.is_empty() => return Self::Keep,
            WindowRows::Parts(_) if series.iter().all(|series| series.n_unsaved == 0) => return Self::Keep,
            WindowRows::Parts(parts) if parts < MAX_PARTS && series.iter().all(fits) => {
                let unsaved = series.iter().filter(|series| series.n_unsaved > 0);
                let new = unsaved.map(|s| SeriesMessage::of(s, s.points.len() - s.n_unsaved, false)).collect();
                (Self::Add(parts, sealed(parts, encode(new))), WindowRows::Parts(parts + 1))
            }
            _ if series.is_empty() => (Self::Replace(None), WindowRows::None),
            _ => {
                let all = series.iter().map(|series| SeriesMessage::of(series, 0, true)).collect();
                (Self::Replace(Some(sealed(0, encode(all)))), WindowRows::Parts(1))
            }
        };
        series.iter_mut().for_each(|series| series.n_unsaved = 0);
        instance.window_rows = rows;
        change
    }
}

#[derive(Clone, PartialEq, Message)]
struct BucketMessage {
    #[prost(sfixed64, tag = "1")]
    first_at: i64,
    #[prost(double, tag = "2")]
    first: f64,
    #[prost(sfixed64, tag = "3")]
    last_at: i64,
    #[prost(double, tag = "4")]
    last: f64,
    #[prost(uint64, tag = "5")]
    count: u64,
    #[prost(double, tag = "6")]
    sum: f64,
    #[prost(double, tag = "7")]
    squares: f64,
    #[prost(double, tag = "8")]
    min: f64,
    #[prost(double, tag = "9")]
    max: f64,
    #[prost(double, tag = "10")]
    increase: f64,
}

#[derive(Clone, PartialEq, Message)]
struct CoarseMessage {
    #[prost(uint64, tag = "1")]
    span_nanos: u64,
    #[prost(message, repeated, tag = "2")]
    buckets: Vec<BucketMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct SeriesMessage {
    #[prost(string, tag = "1")]
    metric: String,
    #[prost(fixed64, tag = "2")]
    generation: u64,
    /// The time of the first point, and of each later one the time since the one before, in nanoseconds.
    #[prost(sint64, repeated, tag = "3")]
    times: Vec<i64>,
    #[prost(double, repeated, tag = "4")]
    values: Vec<f64>,
    #[prost(message, repeated, tag = "5")]
    coarse: Vec<CoarseMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct WindowsMessage {
    #[prost(message, repeated, tag = "1")]
    series: Vec<SeriesMessage>,
}

impl SeriesMessage {
    /// The points from this place on, with or without what is older than the points.
    fn of(series: &Series, from: usize, coarse: bool) -> Self {
        let mut before = 0;
        let time = |point: &Point| {
            let at = point.at.as_nanos();
            at - std::mem::replace(&mut before, at)
        };
        Self {
            metric: series.metric.to_string(),
            generation: series.generation,
            times: series.points.range(from..).map(time).collect(),
            values: series.points.range(from..).map(|point| point.value).collect(),
            coarse: series.coarse.iter().filter(|c| coarse && !c.buckets.is_empty()).map(CoarseMessage::of).collect(),
        }
    }

    fn into_part(self) -> SeriesPart {
        let mut at = 0_i64;
        let times = self.times.into_iter().map(|time| {
            at = at.wrapping_add(time);
            Timestamp::from_nanos(at)
        });
        SeriesPart {
            metric: self.metric.into(),
            generation: self.generation,
            points: times.zip(self.values).map(|(at, value)| Point { at, value }).collect(),
            coarse: self.coarse.into_iter().map(CoarseMessage::into_coarse).collect(),
        }
    }
}

impl CoarseMessage {
    fn of(coarse: &Coarse) -> Self {
        let bucket = |b: &Bucket| BucketMessage {
            first_at: b.first.at.as_nanos(),
            first: b.first.value,
            last_at: b.last.at.as_nanos(),
            last: b.last.value,
            count: b.count,
            sum: b.sum,
            squares: b.squares,
            min: b.min,
            max: b.max,
            increase: b.increase,
        };
        Self {
            span_nanos: u64::try_from(coarse.span.as_nanos()).unwrap_or(u64::MAX),
            buckets: coarse.buckets.iter().map(bucket).collect(),
        }
    }

    fn into_coarse(self) -> Coarse {
        let point = |at, value| Point { at: Timestamp::from_nanos(at), value };
        let bucket = |b: BucketMessage| Bucket {
            first: point(b.first_at, b.first),
            last: point(b.last_at, b.last),
            count: b.count,
            sum: b.sum,
            squares: b.squares,
            min: b.min,
            max: b.max,
            increase: b.increase,
        };
        Coarse { span: Duration::from_nanos(self.span_nanos), buckets: self.buckets.into_iter().map(bucket).collect() }
    }
}

fn encode(series: Vec<SeriesMessage>) -> Vec<u8> {
    WindowsMessage { series }.encode_to_vec()
}

pub(in crate::journal) fn decode_windows(body: &[u8]) -> Result<Vec<SeriesPart>, RecordError> {
    let message = WindowsMessage::decode(body).map_err(RecordError::Decode)?;
    Ok(message.series.into_iter().map(SeriesMessage::into_part).collect())
}
