//! Why a report was refused.

use std::fmt;

/// Why the server refused one report; the rest of its stream is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rejection {
    /// Neither the report nor the stream's metadata names a service.
    NoService,
    /// The name of the service, the instance or a metric is not one that we take.
    BadName,
    /// More than 256 metrics in the report.
    TooManyMetrics,
    /// A value is NaN or infinite.
    NotFinite,
    /// The reading lies more than 5 min ahead of the server's clock, the agent's skew subtracted.
    TooNew,
    /// The reading lies before 2000-01-01 or is older than the retention.
    TooOld,
    /// The instance is new, and there are as many as may be, in the stream or in all.
    InstanceCap,
    /// The instance would have more than 256 metrics.
    MetricCap,
    /// Evaluating it failed by a fault of ours.
    Internal,
}

impl Rejection {
    /// Every reason, in the order of [`Self::idx`].
    pub const ALL: [Self; 9] = [
        Self::NoService,
        Self::BadName,
        Self::TooManyMetrics,
        Self::NotFinite,
        Self::TooNew,
        Self::TooOld,
        Self::InstanceCap,
        Self::MetricCap,
        Self::Internal,
    ];

    /// Its place in [`Self::ALL`].
    pub const fn idx(self) -> usize {
        self as usize
    }

    /// The name in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoService => "no_service",
            Self::BadName => "bad_name",
            Self::TooManyMetrics => "too_many_metrics",
            Self::NotFinite => "not_finite",
            Self::TooNew => "too_new",
            Self::TooOld => "too_old",
            Self::InstanceCap => "instance_cap",
            Self::MetricCap => "metric_cap",
            Self::Internal => "internal",
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
