//! A journal that was damaged while the server was down: a bit flipped, a tail cut off. The server goes on with what is
//! whole and says what is not, or refuses with a way out.

use std::{collections::BTreeSet, fs, path::PathBuf, sync::Arc};

use mysql::prelude::Queryable;

use crate::support::{
    figures::say,
    mariadb::Mariadb,
    reports::{Says, cpu},
    server::{Server, Setup},
    stores::on,
    wait::{SOON, alone, found},
};

/// A refusal names the file and the way out.
fn assert_way_out((code, said): &(i32, String)) {
    assert_eq!(*code, 1, "{said}");
    assert!(said.contains("journal.db") && said.contains("move it away"), "{said}");
}

fn file(setup: &Setup, name: &str) -> PathBuf {
    setup.cwd().join("data").join(name)
}

/// The alerts of `n` services, each of them in a stream and so in a commit of its own.
fn send(server: &Server, n: u64) {
    for service in 0..n {
        let report = cpu(&format!("service-{service:03}"), 95.0).numbered(1);
        assert_eq!(server.client().send_epoch(7, [report]).unwrap().received, 1);
    }
}

#[test]
fn a_flipped_bit_is_a_refusal_or_a_dead_letter_and_the_other_rows_are_stored() {
    let _alone = alone();
    const N: usize = 20;
    let mariadb = Arc::new(Mariadb::start());
    let setup = on(&mariadb);
    // So that the rows wait in the journal.
    mariadb.stop();
    let mut server = setup.start();
    send(&server, N as u64);
    assert_eq!(server.stop(), 0);
    let whole = fs::read(file(&setup, "journal.db")).unwrap();
    let name = b"service-007";
    let places: Vec<_> = (0..whole.len() - name.len()).filter(|at| whole[*at..].starts_with(name)).collect();
    assert!(places.len() >= 2, "its event, and what is known of it");
    mariadb.restart();
    let (mut n_refused, mut n_letters) = (0, 0);
    for place in places {
        let database = server.database();
        mariadb.conn().query_drop(format!("DROP DATABASE {database}")).unwrap();
        mariadb.create_database(&database);
        let mut damaged = whole.clone();
        damaged[place + name.len() - 1] ^= 1;
        fs::write(file(&setup, "journal.db"), &damaged).unwrap();
        match setup.start_or_end() {
            Err(end) => {
                assert_way_out(&end);
                n_refused += 1;
            }
            Ok(mut server) => {
                let letters = found(SOON, "all are stored or dead", || {
                    let balance = server.status()["balance"].clone();
                    (balance["pending"] == 0).then(|| balance["dead_letter"].as_u64().unwrap())
                });
                let rows = server.history("");
                let services: BTreeSet<_> = rows.iter().map(|row| row.service.as_str()).collect();
                assert_eq!(services.len(), rows.len(), "none twice");
                assert!(services.len() + letters as usize >= N, "{} rows, {letters} dead letters", rows.len());
                if letters > 0 {
                    assert!(!services.contains("service-007"), "what is damaged is not stored as if it were not");
                    assert!(server.log().text().contains("damaged"), "it is said");
                }
                n_letters += letters;
                server.stop();
            }
        }
    }
    say(&format!("{n_refused} refusals, {n_letters} dead letters"));
    assert!(n_refused + n_letters > 0, "no damage was found");
}

#[test]
fn a_file_that_is_cut_short_is_refused_or_whole() {
    let setup = Setup::new();
    let mut server = setup.start();
    send(&server, 40);
    server.history_of(40, "");
    assert_eq!(server.stop(), 0);
    let whole = fs::read(file(&setup, "journal.db")).unwrap();
    let mut n_refused = 0;
    for cut in [1, 100, 4_096, 8_192, whole.len() / 2, whole.len() - 4_096, whole.len() - 100, whole.len() - 10] {
        fs::write(file(&setup, "journal.db"), &whole[..whole.len() - cut]).unwrap();
        match setup.start_or_end() {
            Err(end) => {
                assert_way_out(&end);
                n_refused += 1;
            }
            Ok(mut server) => {
                assert_eq!(server.status()["totals"]["firing"], 40, "{cut} bytes cut off");
                server.kill9();
            }
        }
        for name in ["journal.db-wal", "journal.db-shm"] {
            // Of a start that was refused, or killed.
            let _ = fs::remove_file(file(&setup, name));
        }
    }
    assert!(n_refused >= 5, "only {n_refused} refused");
}

/// What was committed since the last checkpoint is in the log beside the file. SQLite cannot tell a log that was cut off from
/// one that a crash left so: what it held behind the cut is gone with it, as with the disk. What is before it stands.
#[test]
fn a_log_that_is_cut_off_costs_its_tail_alone() {
    const N: usize = 30;
    let setup = Setup::new();
    let mut server = setup.start();
    send(&server, N as u64);
    server.history_of(N, "");
    server.kill9();
    let names = ["journal.db", "journal.db-wal"];
    let [main, log] = names.map(|name| fs::read(file(&setup, name)).unwrap());
    let mut known = Vec::new();
    for left in [log.len(), log.len() - 1, log.len() * 3 / 4, log.len() / 2, log.len() / 4] {
        let _ = fs::remove_file(file(&setup, "journal.db-shm"));
        fs::write(file(&setup, names[0]), &main).unwrap();
        fs::write(file(&setup, names[1]), &log[..left]).unwrap();
        match setup.start_or_end() {
            Err(end) => {
                assert_way_out(&end);
                known.push(None);
            }
            Ok(mut server) => {
                let n = server.status()["totals"]["firing"].as_u64().unwrap();
                known.push(Some(n));
                // Agents that send everything again make it whole: no row is doubled.
                send(&server, N as u64);
                assert_eq!(server.status()["totals"]["firing"], N);
                server.settle();
                assert_eq!(server.history("").len(), N);
                server.kill9();
            }
        }
    }
    say(&format!("of {N} alerts known after cuts: {known:?}"));
    assert_eq!(known[0], Some(N as u64));
    assert!(known.iter().flatten().is_sorted_by(|a, b| a >= b), "a tail is missing, and nothing else: {known:?}");
}
