//! What must hold of any message: it is a report to our reader if and only if it is one to prost, with the same values;
//! and what a template reads of it is what the reader does.

use prost::Message as _;

use super::gopherwatch_proto::{
    v1,
    wire::{Malformed, Report, Template},
};

/// What the reader makes of a message, in prost's words.
pub fn probe(message: &[u8]) -> Result<v1::MetricReport, Malformed> {
    let ours = read(message);
    match (&ours, v1::MetricReport::decode(message)) {
        // By their bytes: a NaN is not equal to itself.
        (Ok(ours), Ok(theirs)) => assert_eq!(ours.encode_to_vec(), theirs.encode_to_vec(), "{message:02x?}"),
        (Err(_), Err(_)) => {}
        (ours, theirs) => panic!("{message:02x?}: {ours:?}, but prost: {theirs:?}"),
    }
    if let Ok(report) = &ours {
        fits(message, report);
        fits_as_a_whole(message, report);
        // One that nearly fits: each name is another one, or they end sooner.
        if let [.., last] = &*report.metrics {
            let others = report.metrics.iter().map(|metric| metric.name.as_bytes());
            let sooner = Template::new(others.clone().take(report.metrics.len() - 1));
            assert!(sooner.is_none_or(|sooner| templated(message, &sooner).is_none()), "{message:02x?}");
            let other = format!("{}_", last.name);
            let others = Template::new(others.take(report.metrics.len() - 1).chain([other.as_bytes()]));
            assert!(others.is_none_or(|others| templated(message, &others).is_none()), "{message:02x?}");
        }
    }
    ours
}

fn read(message: &[u8]) -> Result<v1::MetricReport, Malformed> {
    let mut report = Report::default();
    report.read(message)?;
    report.check_names(message)?;
    let metrics = report.metrics(message).map(|(name, value)| v1::Metric { name: text(name), value }).collect();
    Ok(v1::MetricReport { metrics, ..head(&report, message) })
}

/// Whatever stands outside the metrics.
fn head(report: &Report, message: &[u8]) -> v1::MetricReport {
    v1::MetricReport {
        service_name: text(report.service(message)),
        instance: text(report.instance(message)),
        time_unix_nano: report.time_unix_nano,
        sequence: report.sequence,
        metrics: Vec::new(),
        leaving: report.leaving,
    }
}

/// If a template of the last of the report's names fits, it is one of all of them.
fn fits_as_a_whole(message: &[u8], report: &v1::MetricReport) {
    for n in 1..report.metrics.len().min(4) {
        let rest = Template::new(report.metrics[n..].iter().map(|metric| metric.name.as_bytes()));
        assert!(rest.is_none_or(|rest| templated(message, &rest).is_none()), "{message:02x?}");
    }
}

/// If a template of the report's names fits, it reads what the reader does; whether it does.
pub fn fits(message: &[u8], report: &v1::MetricReport) -> bool {
    let template = Template::new(report.metrics.iter().map(|metric| metric.name.as_bytes()));
    let Some((begun, values)) = template.and_then(|template| templated(message, &template)) else { return false };
    assert_eq!(begun, v1::MetricReport { metrics: Vec::new(), ..report.clone() }, "{message:02x?}");
    let bits = |value: f64| value.to_bits();
    let theirs: Vec<_> = report.metrics.iter().map(|metric| bits(metric.value)).collect();
    assert_eq!(values.into_iter().map(bits).collect::<Vec<_>>(), theirs, "{message:02x?}");
    true
}

/// What stands before the metrics, and the values that the template reads; `None`: it does not fit.
fn templated(message: &[u8], template: &Template) -> Option<(v1::MetricReport, Vec<f64>)> {
    let mut report = Report::default();
    report.begin(message).ok()?;
    if report.n_metrics() > 0 {
        return None;
    }
    let mut values = Vec::new();
    template.read(report.rest(message), &mut values).then(|| (head(&report, message), values))
}

fn text(name: &[u8]) -> String {
    String::from_utf8(name.to_vec()).expect("it has been checked")
}
