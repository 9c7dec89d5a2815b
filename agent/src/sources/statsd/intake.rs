//! Packets in, readings out: which service a line belongs to, what it is called, and how much may be kept.
//!
//! Everything is bounded, whatever is sent: services, names, values. What finds no room is counted.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use gopherwatch_client::mapping::{counter_stem, valid_name};

use super::figures::{Figures, Room, Taken};
use super::parse::{Kind, Line, Parsed, parse};
use crate::mapping::{Mapping, Names};
use crate::sources::Round;

/// How long a service is reported after its last line, its gauges as they were.
const KEPT: Duration = Duration::from_secs(300);
/// Instances of services: some for each program on a large host.
const MAX_INSTANCES: usize = 256;
/// Names of all of them: at most 3 MB.
const MAX_NAMES: usize = 8_192;
/// Values of timers and members of sets in a tick: 1 MB.
const MAX_VALUES: usize = 65_536;

/// Everything received.
#[derive(Debug)]
pub(crate) struct Intake {
    service: String,
    instance: String,
    mapping: Mapping,
    /// By service, then by instance: looked up without making a key.
    services: HashMap<String, HashMap<String, Subject>>,
    room: Room,
    ticked: Instant,
    /// Counted since the last tick.
    problems: Problems,
}

/// What went wrong.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Problems {
    /// Lines that make no sense.
    pub(crate) malformed: u64,
    /// One of them, as it came.
    pub(crate) example: Option<String>,
    /// Lines that there was no room for.
    pub(crate) beyond: u64,
}

#[derive(Debug)]
struct Subject {
    figures: Figures,
    names: Names,
    heard: Instant,
}

impl Intake {
    /// Lines without tags are about this service and instance.
    pub(crate) fn new(service: String, instance: String, mapping: Mapping, now: Instant) -> Self {
        let room = Room { names: MAX_NAMES, values: MAX_VALUES };
        Self { service, instance, mapping, services: HashMap::new(), room, ticked: now, problems: Problems::default() }
    }

    pub(crate) fn packet(&mut self, packet: &[u8], now: Instant) {
        for line in packet.split(|byte| *byte == b'\n') {
            match parse(line) {
                Parsed::Figures(figures) => match self.line(&figures, now) {
                    Some(Taken::Whole) => {}
                    Some(Taken::Partly | Taken::No) => self.problems.beyond += 1,
                    None => self.malformed(line),
                },
                Parsed::Nothing => {}
                Parsed::Malformed => self.malformed(line),
            }
        }
    }

    /// From now on figures are called otherwise. What a service has sent so far begins anew if that concerns it: which of it
    /// would still be wanted, and under which name, is not known any more.
    pub(crate) fn remap(&mut self, mapping: &Mapping) {
        self.mapping = mapping.clone();
        for (service, instances) in &mut self.services {
            let names = mapping.of(service);
            for subject in instances.values_mut().filter(|subject| subject.names != names) {
                (subject.names, subject.figures) = (names.clone(), Figures::new());
            }
        }
    }

    /// None, if a name has no valid character.
    fn line(&mut self, line: &Line<'_>, now: Instant) -> Option<Taken> {
        let name = valid_name(line.name)?;
        let service = line.service.map_or(Some(self.service.as_str().into()), valid_name)?;
        let instance = line.instance.map_or(Some(self.instance.as_str().into()), valid_name)?;
        let Some(subject) = find(&mut self.services, &self.mapping, &service, &instance, now) else {
            return Some(Taken::No);
        };
        subject.heard = now;
        let Some(name) = subject.names.name(&name) else { return Some(Taken::Whole) };
        let name = if line.kind == Kind::Counter { counter_stem(name) } else { name };
        Some(subject.figures.take(name, line, &mut self.room))
    }

    fn malformed(&mut self, line: &[u8]) {
        self.problems.malformed += 1;
        // Hundred bytes are enough to find out who sends this.
        let example = || String::from_utf8_lossy(&line[..line.len().min(100)]).escape_debug().to_string();
        self.problems.example.get_or_insert_with(example);
    }

    /// Adds the readings of this tick to the round, and says what went wrong since the last one.
    pub(crate) fn tick(&mut self, round: &mut Round, now: Instant) -> Problems {
        let elapsed = now - self.ticked;
        // A goodbye right after a tick would make a rate of a microsecond.
        let elapsed = elapsed.max(Duration::from_millis(1));
        self.ticked = now;
        self.services.retain(|service, instances| {
            instances.retain(|instance, subject| {
                if now.duration_since(subject.heard) > KEPT {
                    return false;
                }
                round.add(service, instance, subject.figures.tick(elapsed));
                true
            });
            !instances.is_empty()
        });
        let n_names: usize = self.services.values().flat_map(HashMap::values).map(|it| it.figures.n_names()).sum();
        self.room = Room { names: MAX_NAMES - n_names, values: MAX_VALUES };
        std::mem::take(&mut self.problems)
    }
}

/// The instance of that name, a new one if there is room.
fn find<'a>(
    services: &'a mut HashMap<String, HashMap<String, Subject>>,
    mapping: &Mapping,
    service: &str,
    instance: &str,
    now: Instant,
) -> Option<&'a mut Subject> {
    let is_known = services.get(service).is_some_and(|instances| instances.contains_key(instance));
    if !is_known {
        if services.values().map(HashMap::len).sum::<usize>() >= MAX_INSTANCES {
            return None;
        }
        let subject = Subject { figures: Figures::new(), names: mapping.of(service), heard: now };
        services.entry(service.to_owned()).or_default().insert(instance.to_owned(), subject);
    }
    services.get_mut(service)?.get_mut(instance)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Sender {
        intake: Intake,
        now: Instant,
    }

    impl Sender {
        fn new() -> Self {
            let now = Instant::now();
            Self { intake: Intake::new("host".into(), "h1".into(), Mapping::default(), now), now }
        }

        fn send(&mut self, packet: &str) -> &mut Self {
            self.intake.packet(packet.as_bytes(), self.now);
            self
        }

        /// What is reported `seconds` later.
        fn tick(&mut self, seconds: u64) -> (Vec<String>, Problems) {
            self.now += Duration::from_secs(seconds);
            let mut round = Round::default();
            let problems = self.intake.tick(&mut round, self.now);
            let shown = |(service, instance, metrics): (String, String, Vec<gopherwatch_proto::v1::Metric>)| {
                let metrics: Vec<_> =
                    metrics.iter().map(|metric| format!("{}={}", metric.name, metric.value)).collect();
                format!("{service}/{instance} {}", metrics.join(" "))
            };
            (round.into_readings().map(shown).collect(), problems)
        }
    }

    #[test]
    fn tags_choose_the_service_and_the_others_are_the_hosts() {
        let mut sender = Sender::new();
        sender.send("requests:2|c\nqueue:1|g|#service:web\nqueue:2|g|#service:web,instance:w2\n");
        let (readings, problems) = sender.tick(1);
        assert_eq!(readings, ["host/h1 request_count=0 request_rate=2", "web/h1 queue=1", "web/w2 queue=2"]);
        assert_eq!(problems, Problems::default());
    }

    #[test]
    fn a_service_is_reported_for_five_minutes_after_its_last_line() {
        let mut sender = Sender::new();
        sender.send("queue:1|g\nmade:1|c");
        sender.tick(1);
        assert_eq!(sender.tick(298).0, ["host/h1 queue=1 made_count=1 made_rate=0"]);
        assert!(sender.tick(2).0.is_empty());
        assert_eq!(sender.intake.tick(&mut Round::default(), sender.now), Problems::default());
        assert_eq!(sender.intake.room.names, MAX_NAMES, "its memory is free again");
    }

    #[test]
    fn names_are_made_valid_and_those_with_nothing_valid_are_malformed() {
        let mut sender = Sender::new();
        sender.send("_cache hits:1|g\n日本:1|g\na:1|g|#service:--");
        let (readings, problems) = sender.tick(1);
        assert_eq!(readings, ["host/h1 cache_hits=1"]);
        assert_eq!((problems.malformed, problems.example.as_deref()), (2, Some("日本:1|g")));
    }

    #[test]
    fn an_example_of_what_is_malformed_cannot_disturb_a_terminal() {
        let mut sender = Sender::new();
        sender.send("\u{1b}[2J");
        assert_eq!(sender.tick(1).1.example.as_deref(), Some("\\u{1b}[2J"));
    }

    #[test]
    fn a_million_names_of_a_thousand_services_take_no_more_room_than_there_is() {
        let mut sender = Sender::new();
        for n in 0..1_000_000 {
            sender.send(&format!("name{n}:{n}|ms|#service:s{},instance:i{}", n % 1_000, n % 3));
        }
        let (readings, problems) = sender.tick(1);
        assert_eq!(readings.len(), MAX_INSTANCES);
        assert!(problems.beyond > 900_000, "{problems:?}");
        assert_eq!(sender.intake.room.names, 0);
    }
}
