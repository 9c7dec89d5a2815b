//! The schedule under whatever happens, by the dice.

use super::*;

/// A number below `n` at each throw, the same ones for a seed.
fn dice(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed;
    move |n| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % n
    }
}

/// Whatever the outcomes and their order: each alert's events are told in order, each is done or buried once, and the
/// position never passes one that is neither.
#[test]
fn nothing_is_lost_or_overtaken_whatever_comes_back() {
    for seed in 0..300_u64 {
        let mut it = Stepped::new();
        let mut throw = dice(seed);
        let mut under_way: Vec<Task> = Vec::new();
        let mut last: BTreeMap<Uuid, u32> = BTreeMap::new();
        let (mut n_told, mut n_dead, mut n_for_us) = (0, 0, 0);
        for step in 0..600 {
            match throw(8) {
                0..=2 if it.schedule.room() > 1 => {
                    let rule = format!("{step}");
                    let alert = if throw(3) == 0 { late(&rule) } else { alert(&rule) };
                    it.raise(&alert);
                    n_for_us += 1;
                    if throw(4) > 0 {
                        it.resolve(&alert);
                        n_for_us += 1;
                    }
                }
                3..=4 => under_way.extend(it.begin()),
                5..=6 if !under_way.is_empty() => {
                    let n = usize::try_from(throw(under_way.len() as u64)).unwrap();
                    let task = under_way.swap_remove(n);
                    match throw(5) {
                        0 => it.finish(&task, retry(None)),
                        1 => it.finish(&task, Outcome::Refused { why: String::new() }),
                        _ => {
                            let n_events = if task.notification.occasion == Occasion::Digest { 2 } else { 1 };
                            n_told += n_events * (task.notification.alerts.len() + task.notification.n_more);
                            for alert in &task.notification.alerts {
                                let before = last.insert(alert.alert_id, alert.version);
                                assert!(before.is_none_or(|before| before < alert.version), "seed {seed}");
                            }
                            it.finish(&task, Outcome::Done);
                        }
                    }
                }
                _ => it.passes(SECOND * u32::try_from(throw(4)).unwrap()),
            }
            assert!(it.schedule.n_under_way() <= 4);
        }
        for _ in 0..2_000 {
            under_way.extend(it.begin());
            for task in std::mem::take(&mut under_way) {
                let n_events = if task.notification.occasion == Occasion::Digest { 2 } else { 1 };
                n_told += n_events * (task.notification.alerts.len() + task.notification.n_more);
                it.finish(&task, Outcome::Done);
            }
            it.passes(SECOND);
        }
        for dead in it.schedule.take_dead() {
            n_dead += if dead.occasion == Occasion::Digest { 2 * dead.n_alerts } else { 1 };
        }
        assert_eq!((it.schedule.n_open(), it.schedule.position()), (0, it.seq), "seed {seed}");
        assert_eq!(n_told + n_dead, n_for_us, "seed {seed}");
    }
}

/// Killed at any time, and whatever comes back: each raise and each resolve is told, or is a dead letter that was saved.
#[test]
fn across_kills_everything_is_told_or_a_saved_dead_letter() {
    for seed in 0..300_u64 {
        let mut it = Stepped::new();
        let mut throw = dice(seed);
        let (mut journal, mut told, mut dead) = (Vec::new(), HashSet::new(), Vec::new());
        let event = |it: &Stepped, kind, alert: Alert| (it.now.time, Event { kind, alert: Arc::new(alert) });
        let mut under_way: Vec<Task> = Vec::new();
        for step in 0..700 {
            let is_end = step >= 400;
            match throw(if is_end { 5 } else { 9 }) {
                5..=6 => {
                    let rule = format!("{step}");
                    let alert = if throw(3) == 0 { late(&rule) } else { alert(&rule) };
                    journal.push(event(&it, EventKind::Raise, alert.clone()));
                    if throw(3) == 0 {
                        journal.push(event(&it, EventKind::Repeat, alert.clone()));
                    }
                    if throw(4) > 0 {
                        journal.push(event(&it, EventKind::Resolve, resolved(&alert)));
                    }
                }
                7 if throw(6) == 0 => {
                    let (position, ahead) = (it.schedule.position(), it.schedule.ahead());
                    dead.extend(it.schedule.take_dead());
                    dead.retain(|dead: &Dead| dead.seq <= position || ahead.is_done(dead.seq));
                    under_way.clear();
                    it.schedule = Schedule::new(it.schedule.options.clone(), position, ahead);
                }
                _ if !under_way.is_empty() => {
                    let n = usize::try_from(throw(under_way.len() as u64)).unwrap();
                    let task = under_way.swap_remove(n);
                    let is_digest = task.notification.occasion == Occasion::Digest;
                    match throw(if is_end { 100 } else { 5 }) {
                        0 => it.finish(&task, retry(None)),
                        // Of what is in a digest its letter names the first.
                        1 if !is_digest => it.finish(&task, Outcome::Refused { why: String::new() }),
                        _ => {
                            for alert in &task.notification.alerts {
                                let both = [Occasion::Raise, Occasion::Resolve];
                                let occasions = if is_digest { &both[..] } else { &[task.notification.occasion][..] };
                                told.extend(occasions.iter().map(|occasion| (alert.alert_id, occasion.as_str())));
                            }
                            it.finish(&task, Outcome::Done);
                        }
                    }
                }
                _ => it.passes(SECOND * u32::try_from(throw(4)).unwrap()),
            }
            while it.schedule.room() > 0
                && let Some((at, event)) = journal.get(usize::try_from(it.schedule.read_to() - 100).unwrap())
            {
                it.schedule.read(it.schedule.read_to() + 1, *at, event, it.now);
            }
            under_way.extend(it.begin());
        }
        dead.extend(it.schedule.take_dead());
        assert_eq!((it.schedule.n_open(), it.schedule.position()), (0, 100 + journal.len() as u64), "seed {seed}");
        let given_up: HashSet<_> = dead.iter().map(|dead| (dead.alert.alert_id, dead.occasion.as_str())).collect();
        for (_, Event { kind, alert }) in &journal {
            let Some(occasion) = Occasion::of(*kind).filter(|occasion| *occasion != Occasion::Repeat) else { continue };
            let what = (alert.alert_id, occasion.as_str());
            assert!(
                told.contains(&what) || given_up.contains(&what),
                "seed {seed}: {} {}",
                occasion.as_str(),
                alert.rule
            );
        }
    }
}
