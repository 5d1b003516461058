//! Speaks a text: 16-bit samples, mono, at 48 kHz, to standard output.
//!
//!     VOXLINE_TOKEN=... cargo run --example speak -- https://speech.example 'The train leaves at seven.' |
//!         aplay -q -t raw -f S16_LE -r 48000

use std::error::Error;
use std::io::Write;

use futures::StreamExt;
use voxline::Client;

#[tokio::main(flavor = "current_thread")]
#[expect(clippy::disallowed_methods, reason = "an example is a program")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (endpoint, text) = arguments.next().zip(arguments.next()).ok_or("expected ENDPOINT TEXT")?;
    let client = Client::builder(&endpoint).service_token(std::env::var("VOXLINE_TOKEN")?).build()?;
    let mut speech = client.speak(&text).resampled(48_000)?;
    let mut output = std::io::stdout().lock();
    while let Some(pcm) = speech.next().await {
        output.write_all(&pcm?)?;
    }
    Ok(())
}
