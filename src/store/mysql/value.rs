//! Our values as MySQL's, and back.
//!
//! Times travel as dates, since every session of ours is in UTC.

use jiff::{civil::DateTime, tz::Offset};
use mysql::{FromValueError, Row, Value, from_value_opt, prelude::FromValue};
use uuid::Uuid;

use crate::{
    model::Timestamp,
    store::{AlertRecord, HistoryRow, row, select::Arg},
};

/// What a TIMESTAMP column can hold, in microseconds since 1970.
const FIRST_MICROS: i64 = 1_000_000;
const LAST_MICROS: i64 = 2_147_483_647_999_999;

pub(super) fn text(text: &str) -> Value {
    Value::Bytes(text.as_bytes().to_vec())
}

/// To the microsecond, rounded down.
pub(super) fn time(time: Timestamp) -> Value {
    // Every Timestamp lies within jiff's range; a time past TIMESTAMP's is refused by the server as the row's fault.
    let time = jiff::Timestamp::from_microsecond(time.as_micros()).unwrap_or_default();
    let date = Offset::UTC.to_datetime(time);
    let unsigned = |n: i8| u8::try_from(n).unwrap_or(0);
    Value::Date(
        u16::try_from(date.year()).unwrap_or(0),
        unsigned(date.month()),
        unsigned(date.day()),
        unsigned(date.hour()),
        unsigned(date.minute()),
        unsigned(date.second()),
        u32::try_from(date.subsec_nanosecond() / 1_000).unwrap_or(0),
    )
}

/// The value of a placeholder of a SELECT. Times are moved into the range of the column, which no row lies outside of:
/// compared with a date that it could not hold, the server would warn or leave the index.
pub(super) fn arg(arg: &Arg<'_>) -> Value {
    match *arg {
        Arg::Text(value) => text(value),
        Arg::Time(value) => time(Timestamp::from_micros(value.as_micros().clamp(FIRST_MICROS, LAST_MICROS))),
        Arg::Number(number) => Value::UInt(number),
        Arg::Id(id) => Value::Bytes(id.as_bytes().to_vec()),
    }
}

/// A row of the history, its columns in the order of the SELECT.
pub(super) fn history_row(row: Row) -> mysql::Result<HistoryRow> {
    Columns(row.unwrap().into_iter()).history_row()
}

/// An alert's record, its columns in the order of the SELECT.
pub(super) fn record(row: Row) -> mysql::Result<AlertRecord> {
    let mut columns = Columns(row.unwrap().into_iter());
    Ok(AlertRecord {
        row: columns.history_row()?,
        episode_id: columns.id()?,
        last_value: columns.next()?,
        version: columns.next()?,
        events: columns.next()?,
        evidence: columns.next()?,
    })
}

struct Columns(std::vec::IntoIter<Value>);

impl Columns {
    fn history_row(&mut self) -> mysql::Result<HistoryRow> {
        Ok(HistoryRow {
            id: self.next()?,
            alert_id: self.id()?,
            service_name: self.next()?,
            instance: self.next()?,
            metric: self.next()?,
            metric_value: self.next()?,
            rule: self.next()?,
            severity: self.next()?,
            threshold: self.next()?,
            triggered_at: self.time()?.unwrap_or_default(),
            received_at: self.time()?,
            stored_at: self.time()?,
            resolved_at: self.time()?,
            resolve_reason: self.next()?,
            late: self.next::<Option<bool>>()?.unwrap_or(false),
            labels: self.next()?,
            summary: self.next()?,
        })
    }

    fn next<T: FromValue>(&mut self) -> Result<T, FromValueError> {
        from_value_opt(self.0.next().unwrap_or(Value::NULL))
    }

    fn id(&mut self) -> Result<Option<Uuid>, FromValueError> {
        Ok(self.next::<Option<Vec<u8>>>()?.and_then(|bytes| row::uuid(&bytes)))
    }

    fn time(&mut self) -> Result<Option<Timestamp>, FromValueError> {
        match self.0.next() {
            None | Some(Value::NULL) => Ok(None),
            Some(Value::Date(year, month, day, hour, minute, second, micros)) => {
                Ok(Some(from_date((year, month, day), (hour, minute, second), micros)))
            }
            Some(other) => Err(FromValueError(other)),
        }
    }
}

/// 1970 for the "zero date" 0000-00-00, which the original program's sessions could write and no calendar has.
fn from_date(ymd: (u16, u8, u8), hms: (u8, u8, u8), micros: u32) -> Timestamp {
    let signed = |n: u8| i8::try_from(n).unwrap_or(0);
    let nanos = i32::try_from(micros).unwrap_or(0).saturating_mul(1_000);
    let year = i16::try_from(ymd.0).unwrap_or(0);
    DateTime::new(year, signed(ymd.1), signed(ymd.2), signed(hms.0), signed(hms.1), signed(hms.2), nanos)
        .and_then(|date| Offset::UTC.to_timestamp(date))
        .map_or(Timestamp::default(), |time| Timestamp::from_micros(time.as_microsecond()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_go_to_the_database_and_come_back_to_the_microsecond() {
        for nanos in [1_795_401_565_000_001_999, 1_000_000_000, 2_147_483_647_999_999_000, 951_782_400_123_456_000] {
            let time = Timestamp::from_nanos(nanos);
            let mut columns = Columns(vec![super::time(time)].into_iter());
            assert_eq!(columns.time().ok().flatten(), Some(Timestamp::from_micros(time.as_micros())));
        }
        assert_eq!(
            super::time(Timestamp::from_nanos(1_795_401_565_000_001_999)),
            Value::Date(2026, 11, 23, 2, 39, 25, 1)
        );
        assert_eq!(from_date((0, 0, 0), (0, 0, 0), 0), Timestamp::default());
    }

    #[test]
    fn filters_beyond_the_column_are_moved_to_its_ends() {
        assert_eq!(arg(&Arg::Time(Timestamp::from_nanos(i64::MIN))), Value::Date(1970, 1, 1, 0, 0, 1, 0));
        assert_eq!(arg(&Arg::Time(Timestamp::from_nanos(i64::MAX))), Value::Date(2038, 1, 19, 3, 14, 7, 999_999));
    }
}
