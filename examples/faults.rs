//! Tests an integration under faults: the connections to a service on this machine break, stall and are
//! refused on the way, and nothing may be lost.
//!
//!     VOXLINE_TOKEN=... cargo run --example faults -- 127.0.0.1:8085 call.mp3

use std::error::Error;
use std::time::Duration;

use voxline::Client;
use voxline::source::Source;
use voxline_testing::{Cut, Fault, FaultProxy};

#[tokio::main(flavor = "current_thread")]
#[expect(clippy::disallowed_methods, clippy::print_stdout, reason = "an example is a program")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (service, recording) = arguments.next().zip(arguments.next()).ok_or("expected ADDRESS RECORDING")?;
    let cut = |after| Fault::CutClient { after, cut: Cut::Reset };
    let faults = [cut(50_000), Fault::Refuse, cut(100_000), Fault::Delay(Duration::from_millis(300))];
    let proxy = FaultProxy::with_faults(service.parse()?, faults).await?;
    let endpoint = format!("http://{}", proxy.address());
    let client = Client::builder(&endpoint).service_token(std::env::var("VOXLINE_TOKEN")?).build()?;
    let mut transcript = client.transcribe(Source::open(recording)?).start().await?;
    while let Some(event) = transcript.next().await {
        event?;
    }
    let ledger = transcript.ledger();
    assert!(ledger.recognised == ledger.accepted, "{ledger}");
    println!("{} connections, {} of them cut: {ledger}", proxy.connections(), proxy.cuts());
    Ok(())
}
