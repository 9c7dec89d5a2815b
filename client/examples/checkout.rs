//! A service that reports itself: `cargo run -p gopherwatch-client --example checkout`, beside a server.

use std::thread;
use std::time::Duration;

use gopherwatch_client::Client;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let watch = Client::connect("http://127.0.0.1:50051", "checkout")?;
    let requests = watch.counter("requests");
    let queue = watch.gauge("queue_length");
    // Ten seconds of work.
    for n in 0..1_000 {
        requests.add(1);
        queue.set(f64::from(n % 20));
        thread::sleep(Duration::from_millis(10));
    }
    let accounts = watch.close(Duration::from_secs(5));
    if accounts.acknowledged < accounts.sent {
        return Err(format!("not all reports have arrived: {accounts:?}").into());
    }
    Ok(())
}
