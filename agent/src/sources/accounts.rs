//! Where this agent's own reports are, so that dropped ones are seen where the figures are (promise 7).

use std::sync::Arc;

use gopherwatch_client::outbox::Outbox;

use super::{Round, Source, metric};

/// The agent's accounts, as figures of the host that it reports.
#[derive(Debug)]
pub struct OwnAccounts {
    service: String,
    instance: String,
    outbox: Arc<Outbox>,
}

impl OwnAccounts {
    /// The accounts of `outbox`. Service and instance are valid names.
    pub fn new(service: String, instance: String, outbox: Arc<Outbox>) -> Self {
        Self { service, instance, outbox }
    }
}

impl Source for OwnAccounts {
    /// As they stand before this round's reports.
    fn read(&mut self, round: &mut Round) {
        let accounts = self.outbox.accounts();
        let figures = [
            ("agent_reports_sent", accounts.sent),
            ("agent_reports_acknowledged", accounts.acknowledged),
            ("agent_reports_pending", accounts.pending),
            ("agent_reports_dropped", accounts.dropped),
        ];
        let metrics = figures.map(|(name, count)| metric(name, count as f64));
        round.add(&self.service, &self.instance, metrics);
    }
}
