//! No room is left for what the server must keep: its disk is full, or its journal. Receipts stop, the probe says why, and
//! with room again everything goes on by itself.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{Outcome, Run};
use crate::{
    agent::Load,
    generator::Shape,
    listener::Listener,
    server::Room,
    small_disk::SmallDisk,
    wait::{SOON, found},
    world::{Store, World},
};

/// The server's disk. It keeps 64 MiB free and a ballast of 16 MiB.
const DISK_MIB: u64 = 160;
/// What that becomes, so that there is room also while somebody else's part stays.
const GROWN_MIB: u64 = 400;
/// Less than the server wants, and yet enough to write.
const LITTLE_MIB: u64 = 40;
/// The smallest journal that the server takes.
const JOURNAL_MIB: u64 = 8;
/// For so long no receipt may come.
const STILL: Duration = Duration::from_secs(2);

/// A disk that somebody else fills, to below what the server wants and then to its last byte. It is grown the first time
/// and freed the second; in between the server is killed on it.
pub fn full_disk(run: &Run, name: &str) -> Outcome {
    let began = Instant::now();
    let mut disk = None;
    let mut world = World::start_in(&run.programs, name, run.store, Some(Listener::start()), |data| {
        let mounted = Arc::new(SmallDisk::mount(data, DISK_MIB).unwrap_or_else(|err| panic!("{err}")));
        disk = Some(mounted.clone());
        Room::Disk(mounted)
    });
    let disk = disk.expect("the world has asked for it");
    for place in 0..2 {
        world.add_agent(run.load(place));
    }
    let mut notes = Vec::new();
    let mut broken = Vec::new();

    disk.fill(LITTLE_MIB);
    notes.push(stands_still(&mut world));
    disk.fill(0);
    notes.push(stands_still(&mut world));
    disk.resize(GROWN_MIB);
    goes_on(&mut world);

    disk.fill(0);
    notes.push(stands_still(&mut world));
    // What had a receipt must be there after a kill as well, and what had none was never promised.
    world.kill_server();
    world.server.restart();
    match world.server.ready_or_ended() {
        Ok(()) => notes.push("started on the full disk".to_owned()),
        Err(status) => {
            let said = world.server.said();
            let last = said.lines().last().unwrap_or_default();
            notes.push(format!("did not start on the full disk, {status}: {last}"));
            if status.code() != Some(1) || !said.contains("full") {
                broken.push(format!("{status}, and not a word of the full disk: {said}"));
            }
        }
    }
    disk.free_up();
    if broken.is_empty() && !world.server.is_running() {
        world.restart_server();
    } else {
        let grpc = world.server.grpc();
        world.front.lead_to(Some(grpc));
    }
    goes_on(&mut world);
    let mut outcome = Outcome { n_faults: 3, notes, ..Outcome::of(name, began, world) };
    outcome.verdict.broken.extend(broken);
    outcome
}

/// The journal is as large as it may be, because the store is away and takes nothing.
pub fn full_journal(run: &Run, name: &str) -> Outcome {
    assert_eq!(run.store, Store::Mariadb, "the server's own store does not go away");
    let began = Instant::now();
    let mut world =
        World::start_in(&run.programs, name, run.store, Some(Listener::start()), |_| Room::Journal(JOURNAL_MIB));
    let storm = Load { streams: 2, instances: 40, pace_ms: 10, rotate_ms: 300, shape: Shape::Storm, seed: run.seed };
    world.add_agent(storm);
    world.mariadb().pause();
    let note = stands_still(&mut world);
    assert!(note.contains("--journal-max"), "{note}");
    // What it has promised by then must outlast it.
    world.kill_server();
    world.restart_server();
    let again = stands_still(&mut world);
    world.mariadb().resume();
    goes_on(&mut world);
    Outcome { n_faults: 2, notes: vec![note, again], ..Outcome::of(name, began, world) }
}

/// Waits until receipts have stopped and the probe says why.
fn stands_still(world: &mut World) -> String {
    let why = found(SOON, "the probe says what is wrong with the journal", || {
        let (status, detail) = journal(world)?;
        (status == "degraded" && detail.contains("cannot write")).then_some(detail)
    });
    let mut last = (Instant::now(), world.look().1);
    found(SOON, "receipts stop", || {
        let (_, receipted) = world.look();
        if receipted > last.1 {
            last = (Instant::now(), receipted);
        }
        (last.0.elapsed() >= STILL).then_some(())
    });
    world.server.balance(Duration::from_secs(10)).expect("/status answers whatever the disk does");
    format!("receipts stop: {why}")
}

/// Waits until receipts flow again and the probe is content.
fn goes_on(world: &mut World) {
    let (_, receipted) = world.look();
    world.wait_for_receipts(receipted + 1_000);
    found(SOON, "the probe is content with the journal", || (journal(world)?.0 == "ok").then_some(()));
}

/// What the probe says of the journal.
fn journal(world: &World) -> Option<(String, String)> {
    let ready = world.server.ask("/readyz").ok()?;
    let check = &ready["checks"]["journal"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Some((text(&check["status"]), text(&check["detail"])))
}
