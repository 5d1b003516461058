//! Transcribes a recording.
//!
//!     VOXLINE_TOKEN=... cargo run --example transcribe -- https://speech.example call.mp3

use std::error::Error;

use voxline::Client;
use voxline::source::Source;

#[tokio::main(flavor = "current_thread")]
#[expect(clippy::disallowed_methods, clippy::print_stdout, reason = "an example is a program")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (endpoint, recording) =
        arguments.next().zip(arguments.next()).ok_or("expected ENDPOINT RECORDING")?;
    let client = Client::builder(&endpoint).service_token(std::env::var("VOXLINE_TOKEN")?).build()?;
    let mut transcript = client.transcribe(Source::open(recording)?).start().await?;
    while let Some(event) = transcript.next().await {
        if let Some(text) = event?.final_text() {
            println!("{text}");
        }
    }
    Ok(())
}
