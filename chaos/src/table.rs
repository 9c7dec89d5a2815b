//! What a run shows at its end: a line for each scenario.

use std::fmt;

use crate::scenario::Outcome;

/// The outcomes of a run.
#[derive(Debug)]
pub struct Table<'a>(pub &'a [Outcome]);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<18} {:>6} {:>6} {:>12}", "scenario", "faults", "hits", "undelivered")?;
        write!(f, " {:>9} {:>9} {:>8} {:>8}", "reports", "episodes", "missing", "doubled")?;
        writeln!(f, " {:>11} {:>11} {:>8} {:>8} {:>8}", "wrong state", "wrong value", "broken", "peak MiB", "seconds")?;
        for outcome in self.0 {
            let Outcome { name, n_faults, hits, verdict, took, .. } = outcome;
            let hit = hits.map_or_else(|| "-".to_owned(), |hits| format!("{} %", hits.percent()));
            let undelivered = hits.map_or_else(|| "-".to_owned(), |hits| format!("{}", hits.undelivered));
            write!(f, "{name:<18} {n_faults:>6} {hit:>6} {undelivered:>12}")?;
            write!(f, " {:>9} {:>9}", verdict.n_reports, verdict.n_episodes)?;
            write!(f, " {:>8} {:>8}", verdict.missing.len(), verdict.doubled.len())?;
            // A row of no episode is an episode that ended nowhere.
            let wrong = verdict.wrong_state.len() + verdict.unexpected.len();
            write!(f, " {wrong:>11} {:>11}", verdict.wrong_value.len())?;
            writeln!(f, " {:>8} {:>8} {:>8.1}", verdict.broken.len(), verdict.peak_mib, took.as_secs_f64())?;
        }
        Ok(())
    }
}
