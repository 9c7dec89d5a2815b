//! One instance's reports are evaluated in the order sent; raise and resolve never swap (CONTRACT §7.2).

use crate::support::{
    server::Setup,
    wait::alone,
    workload::{Breach, Workload},
};

#[test]
fn under_load_each_breach_and_clear_pair_up_in_the_order_sent() {
    let _alone = alone();
    for workers in [1, 2] {
        let server = Setup::new().args(&format!("--workers {workers}")).start();
        // Four streams of one instance each: 10,000 raises and as many resolves of one instance.
        let work = Workload::new(80_000, 4, 4, Breach::Alternating);
        work.send_all(&server);
        work.assert_stored(&server);
        assert_eq!(server.status()["totals"]["firing"], 0, "every breach is followed by a clear");
        let mut lines =
            server.log().with_message("alert raised").into_iter().chain(server.log().with_message("alert resolved"));
        assert!(lines.all(|line| line["service"].is_string()));
    }
}
