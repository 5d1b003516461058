//! An agent on a call: it listens, answers, and falls silent when the caller speaks (barge-in). Audio comes
//! from standard input and leaves by standard output, as 16-bit samples at 16 kHz, mono. The answer here
//! repeats what was said; put a language model in its place.
//!
//!     VOXLINE_TOKEN=... cargo run --example agent -- https://speech.example < call.pcm > answers.pcm

use std::error::Error;

use futures::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt, stdin, stdout};
use voxline::Client;
use voxline::speech::PcmStream;
use voxline::transcript::TranscriptEvent;

#[tokio::main(flavor = "current_thread")]
#[expect(clippy::disallowed_methods, reason = "an example is a program")]
async fn main() -> Result<(), Box<dyn Error>> {
    let endpoint = std::env::args().nth(1).ok_or("expected ENDPOINT")?;
    let client = Client::builder(&endpoint).service_token(std::env::var("VOXLINE_TOKEN")?).build()?;
    let (mut audio, mut transcript) = client.live(16_000).start()?;
    let (mut input, mut output) = (stdin(), stdout());
    let listening = async {
        let mut bytes = Vec::with_capacity(4_096);
        while input.read_buf(&mut bytes).await? > 0 {
            let samples: Vec<i16> = bytes.as_chunks().0.iter().copied().map(i16::from_le_bytes).collect();
            bytes.drain(..2 * samples.len());
            audio.push(&samples).await?;
        }
        Ok::<_, Box<dyn Error>>(audio.finish().await?)
    };
    let answering = async {
        let mut answer: Option<PcmStream> = None;
        loop {
            let speaking = async { answer.as_mut()?.next().await };
            tokio::select! {
                event = transcript.next() => match event {
                    Some(event) => match event? {
                        // The caller speaks: the rest of the answer is dropped, which cancels its requests.
                        TranscriptEvent::Partial { .. } => answer = None,
                        TranscriptEvent::Final(segment) if !segment.text.is_empty() => {
                            let text = format!("You said: {}", segment.text);
                            answer = Some(client.speak(&text).resampled(16_000)?);
                        }
                        _ => {}
                    },
                    None => break,
                },
                Some(pcm) = speaking => output.write_all(&pcm?).await?,
            }
        }
        // The caller has hung up, or the recording has ended: say the rest.
        while let Some(pcm) = async { answer.as_mut()?.next().await }.await {
            output.write_all(&pcm?).await?;
        }
        Ok::<_, Box<dyn Error>>(output.flush().await?)
    };
    let (listened, answered) = tokio::join!(listening, answering);
    answered?;
    listened
}
