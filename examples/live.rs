//! Transcribes live audio: 16-bit samples at 16 kHz, mono, from standard input. After a crash, the same
//! command goes on with the session in the file `live.spool`.
//!
//!     arecord -q -t raw -f S16_LE -r 16000 |
//!         VOXLINE_TOKEN=... cargo run --example live -- https://speech.example

use std::error::Error;

use tokio::io::{AsyncReadExt, stdin};
use voxline::Client;
use voxline::client::{SpoolFile, TranscriptError};

#[tokio::main(flavor = "current_thread")]
#[expect(clippy::disallowed_methods, clippy::print_stdout, reason = "an example is a program")]
async fn main() -> Result<(), Box<dyn Error>> {
    let endpoint = std::env::args().nth(1).ok_or("expected ENDPOINT")?;
    let client = Client::builder(&endpoint).service_token(std::env::var("VOXLINE_TOKEN")?).build()?;
    let (mut audio, mut transcript) = client.live(16_000).spool(SpoolFile::new("live.spool")).start()?;
    let speaking = async {
        let mut input = stdin();
        let mut bytes = Vec::with_capacity(4_096);
        while input.read_buf(&mut bytes).await? > 0 {
            let samples: Vec<i16> = bytes.as_chunks().0.iter().copied().map(i16::from_le_bytes).collect();
            bytes.drain(..2 * samples.len());
            audio.push(&samples).await?;
        }
        Ok::<_, Box<dyn Error>>(audio.finish().await?)
    };
    let printing = async {
        while let Some(event) = transcript.next().await {
            if let Some(text) = event?.final_text() {
                println!("{text}");
            }
        }
        Ok::<_, TranscriptError>(())
    };
    let (spoken, printed) = tokio::join!(speaking, printing);
    printed?;
    spoken?;
    Ok(transcript.remove_spool()?)
}
