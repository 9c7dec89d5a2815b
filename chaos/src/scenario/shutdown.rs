//! SIGTERM under load: the server ends clean, and no write to the database begins after its line `shutdown began`.
//!
//! MariaDB notes each statement as it arrives, with microseconds of the same clock. One that was sent just before the
//! line can arrive just after it: one statement a round may do so, by a little. A second one, or a later one, began in
//! the stop.

use std::time::{Duration, Instant};

use mysql::prelude::Queryable;

use super::{Hits, Outcome, Run, a_while};
use crate::{
    dice::Dice,
    world::{World, micros},
};

/// Longest way of a statement from the server to the database's log, on a machine that is busy.
const ON_ITS_WAY_US: u64 = 100_000;
/// The server's own `--shutdown-timeout` is 10 s.
const STOP_WAIT: Duration = Duration::from_secs(15);

/// Stops the server in order, and starts it again.
pub fn shutdowns(run: &Run, name: &str, n_rounds: u64) -> Outcome {
    let began = Instant::now();
    let mut dice = Dice::of(run.seed, 4);
    let mut world = run.world(name);
    for place in 0..2 {
        world.add_agent(run.load(place));
    }
    let mut conn = world.mariadb().conn();
    conn.query_drop("SET time_zone = '+00:00'").unwrap();
    conn.query_drop("SET GLOBAL log_output = 'TABLE'").unwrap();
    conn.query_drop("SET GLOBAL general_log = ON").unwrap();
    let (mut n_writes, mut n_on_their_way, mut n_begun, mut slowest) = (0, 0, 0, 0);
    let mut hits = Hits::default();
    let mut broken = Vec::new();
    for round in 1..=n_rounds {
        let (_, receipted) = world.look();
        world.wait_for_receipts(receipted + 1);
        a_while(&mut dice, 600);
        hits.look(&mut world);
        let signalled = crate::generator::now_us();
        world.server.signal("TERM");
        let code = world.server.exit_code(STOP_WAIT);
        let Some(stop) = began_at(&world) else {
            broken.push(format!("round {round}: no line `shutdown began`"));
            world.restart_server();
            continue;
        };
        slowest = slowest.max(stop.saturating_sub(signalled));
        if code != Some(0) {
            broken.push(format!("round {round}: a stop under load ended with code {code:?}"));
        }
        let writes = writes(&mut conn);
        n_writes += writes.len();
        let late: Vec<_> = writes.iter().filter(|at| **at > stop).map(|at| at - stop).collect();
        let n_on_its_way = usize::from(late.first().is_some_and(|late| *late <= ON_ITS_WAY_US));
        n_on_their_way += n_on_its_way;
        n_begun += late.len() - n_on_its_way;
        if late.len() > n_on_its_way {
            broken.push(format!("round {round}: writes {late:?} µs after the line `shutdown began`"));
        }
        world.restart_server();
    }
    conn.query_drop("SET GLOBAL general_log = OFF").unwrap();
    let notes = vec![
        format!("{n_writes} writes logged; begun after `shutdown began`: {n_begun}"),
        format!(
            "{n_on_their_way} were on their way as the line was written; slowest line {slowest} µs after the signal"
        ),
    ];
    let mut outcome = Outcome { notes, ..Outcome::of(name, began, world) }.with_hits(hits);
    outcome.verdict.broken.extend(broken);
    if n_writes == 0 {
        outcome.verdict.and_broken("the general log has no write: nothing was watched");
    }
    outcome
}

/// When the server's stop began.
fn began_at(world: &World) -> Option<u64> {
    let line = world.server.log("shutdown began").pop()?;
    micros(line["time"].as_str()?).ok()
}

/// When each write arrived that the log has; it is emptied.
fn writes(conn: &mut mysql::Conn) -> Vec<u64> {
    let writes = conn
        .query(
            "SELECT CAST(UNIX_TIMESTAMP(event_time) * 1000000 AS UNSIGNED) FROM mysql.general_log \
             WHERE command_type IN ('Execute', 'Query') AND argument NOT LIKE '%general_log%' \
             AND argument REGEXP '^[[:space:]]*(INSERT|UPDATE|DELETE|REPLACE|ALTER|CREATE|DROP|TRUNCATE)' \
             ORDER BY event_time",
        )
        .unwrap();
    conn.query_drop("TRUNCATE mysql.general_log").unwrap();
    writes
}
