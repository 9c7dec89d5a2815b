//! Quantiles from a histogram's buckets, as Prometheus' `histogram_quantile` takes them.

/// Buckets of one histogram: how many values were at most `le`.
#[derive(Debug, Default)]
pub(crate) struct Buckets(Vec<(f64, f64)>);

/// More than any histogram has; what lies beyond is left out.
const MAX_BUCKETS: usize = 512;

impl Buckets {
    /// Adds to the bucket up to `le`; those of several label sets come together.
    pub(crate) fn add(&mut self, le: f64, count: f64) {
        if let Some((_, sum)) = self.0.iter_mut().find(|(known, _)| *known == le) {
            *sum += count;
        } else if self.0.len() < MAX_BUCKETS && !le.is_nan() {
            self.0.push((le, count));
        }
    }

    /// Sorted, and never falling from one bucket to the next, as they may when a scrape meets an update.
    pub(crate) fn in_order(mut self) -> Self {
        self.0.sort_unstable_by(|(a, _), (b, _)| a.total_cmp(b));
        let mut least = 0.0_f64;
        for (_, count) in &mut self.0 {
            least = least.max(*count);
            *count = least;
        }
        self
    }

    /// The quantile, linear within its bucket, the first of which begins at 0; the last but one's border, if it lies in
    /// the last, which is open. None without values, or without the open bucket. Buckets are in order.
    pub(crate) fn quantile(&self, quantile: f64) -> Option<f64> {
        let (last, total) = *self.0.last()?;
        if last != f64::INFINITY || total <= 0.0 || self.0.len() < 2 {
            return None;
        }
        let rank = quantile * total;
        let at = self.0.iter().position(|(_, count)| *count >= rank)?;
        let (end, count) = self.0[at];
        if end == f64::INFINITY {
            return Some(self.0[at - 1].0);
        }
        if at == 0 && end <= 0.0 {
            return Some(end);
        }
        let (begin, before) = if at == 0 { (0.0, 0.0) } else { self.0[at - 1] };
        Some(begin + (end - begin) * (rank - before) / (count - before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INF: f64 = f64::INFINITY;

    fn quantile(buckets: &[(f64, f64)], quantile: f64) -> Option<f64> {
        let mut all = Buckets::default();
        buckets.iter().for_each(|(le, count)| all.add(*le, *count));
        all.in_order().quantile(quantile)
    }

    #[test]
    fn a_quantile_is_linear_within_its_bucket() {
        let buckets = [(0.1, 0.0), (0.2, 50.0), (0.5, 90.0), (INF, 100.0)];
        assert_eq!(quantile(&buckets, 0.5), Some(0.2));
        assert_eq!(quantile(&buckets, 0.25), Some(0.15000000000000002));
        assert_eq!(quantile(&buckets, 0.7), Some(0.35));
        assert_eq!(quantile(&buckets, 0.99), Some(0.5), "in the open bucket: its lower border");
    }

    #[test]
    fn the_first_bucket_begins_at_zero() {
        assert_eq!(quantile(&[(1.0, 10.0), (INF, 10.0)], 0.5), Some(0.5));
        assert_eq!(quantile(&[(-1.0, 10.0), (INF, 10.0)], 0.5), Some(-1.0));
    }

    #[test]
    fn the_order_and_the_label_sets_of_buckets_do_not_matter() {
        let buckets = [(INF, 5.0), (2.0, 5.0), (1.0, 0.0), (2.0, 5.0), (INF, 5.0), (1.0, 10.0)];
        assert_eq!(quantile(&buckets, 0.5), Some(0.5));
    }

    #[test]
    fn without_values_there_is_no_quantile() {
        for buckets in [&[][..], &[(1.0, 0.0), (INF, 0.0)], &[(1.0, 5.0)], &[(INF, 5.0)], &[(f64::NAN, 1.0)]] {
            assert_eq!(quantile(buckets, 0.5), None, "{buckets:?}");
        }
    }

    #[test]
    fn counts_that_fall_are_evened_out() {
        let quantile = quantile(&[(1.0, 10.0), (2.0, 8.0), (INF, 10.0)], 0.99).expect("a quantile");
        assert!((0.9..=1.0).contains(&quantile), "{quantile}");
    }
}
