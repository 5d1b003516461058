//! `voxline speak`: synthesises text while it arrives, and outputs speech while it is synthesised.

mod output;
mod player;
mod text;

use std::path::PathBuf;

use bytes::Bytes;
use clap::{Args, ValueEnum};
use futures::StreamExt;
use futures::stream::BoxStream;

use self::output::{Form, Output};
use crate::arguments::Common;
use crate::exit_code::{CliError, Exit};
use crate::service::{Connection, Need};
use crate::signals::Signals;
use crate::target;
use crate::terminal::{keep_binary_off_terminal, keep_stdin_apart};
use crate::typed::whole;
use voxline::resample::RATES;
use voxline::speech::{SpeechError, SpeechHandle, SpeechOptions};

#[derive(Args)]
pub(crate) struct Arguments {
    /// Text to speak; `-` for standard input, which is spoken while it arrives
    #[arg(required_unless_present = "file")]
    text: Option<String>,
    /// File with the text to speak
    #[arg(short, long, value_name = "FILE", conflicts_with = "text")]
    file: Option<PathBuf>,
    /// Output file: .wav; .raw, .pcm or .s16le for headerless 16-bit little-endian PCM; .mp3; .opus or .ogg.
    /// `-` for standard output (WAV, or as set by --encoder), or `play`
    #[arg(short, long, value_name = "FILE", default_value = "play")]
    output: PathBuf,
    /// Voice, as listed by `voxline voices` [default: the best for the text's language]
    #[arg(long)]
    voice: Option<String>,
    /// Speed, from 0.75 to 1.75
    #[arg(long, value_parser = tempo)]
    tempo: Option<f32>,
    /// Encoding produced by the service: pcm, mp3 or opus [default: by the output's extension, otherwise pcm]
    #[arg(long, hide_possible_values = true)]
    encoder: Option<Encoder>,
    /// Sample rate of PCM output, in Hz [default: 24000]
    #[arg(long, value_name = "HZ",
          value_parser = whole(RATES))]
    rate: Option<u32>,
}

/// The documented values of `encoder`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Encoder {
    Pcm,
    Mp3,
    Opus,
}

fn tempo(text: &str) -> Result<f32, String> {
    let tempo = text.parse().ok().filter(|tempo| (0.75..=1.75).contains(tempo));
    tempo.ok_or_else(|| "expected a number from 0.75 to 1.75".to_owned())
}

pub(crate) async fn run(arguments: Arguments, common: Common) -> Result<Exit, CliError> {
    let Arguments { text, file, output, voice, tempo, encoder, rate } = arguments;
    let form = Form::of(&output, encoder, rate)?;
    keep_binary_off_terminal(&output)?;
    if file.as_deref().is_some_and(|file| target::same_file(&output, file)) {
        let output = output.display();
        return Err(CliError::new(Exit::Setup, format!("{output}: the output is the text itself")));
    }
    let config = common.load(None)?;
    keep_stdin_apart(&config, text.as_deref() == Some("-"))?;
    let (text, unread) = text::open(text, file)?;
    let connection = Connection::open(&config, Need::Speech).await?;
    let client = connection.client.speech();
    let options = SpeechOptions { voice, tempo, ..SpeechOptions::default() };
    let (speech, handle) = match form {
        Form::Encoded(codec) => {
            let speech = client.encode_stream(text, codec, &options);
            let handle = speech.handle();
            (speech.boxed(), handle)
        }
        Form::Wav(rate) | Form::Raw(rate) | Form::Played(rate) => {
            let speech = client.speak_stream(text, &options).resampled(rate);
            let speech = speech.map_err(|error| CliError::of(Exit::Setup, &error))?;
            let handle = speech.handle();
            (speech.boxed(), handle)
        }
    };
    let delivered = deliver(speech, &handle, form, output).await;
    connection.close().await;
    // A text that could not be read explains why it has no words, too.
    unread.verdict().and(delivered)?;
    Ok(Exit::Done)
}

/// Forwards speech as it arrives; speech received before an error or interruption is kept.
async fn deliver(
    mut speech: BoxStream<'static, Result<Bytes, SpeechError>>,
    handle: &SpeechHandle,
    form: Form,
    output: PathBuf,
) -> Result<(), CliError> {
    let mut signals = Signals::new()?;
    let first = tokio::select! {
        first = speech.next() => first,
        stop = signals.next() => return Err(stop.error(None)),
    };
    // Open the output only now that there is speech for it, since that may truncate an existing file.
    let nothing = || CliError::new(Exit::Setup, "there are no words to speak");
    let first = first.ok_or_else(nothing)??;
    let mut output = tokio::select! {
        output = Output::open(form, output) => output?,
        stop = signals.next() => return Err(stop.error(None)),
    };
    let delivering = async {
        let mut next = Some(Ok(first));
        while let Some(piece) = next {
            if !output.take(piece?).await {
                break;
            }
            next = speech.next().await;
        }
        Ok::<_, SpeechError>(())
    };
    let delivered = tokio::select! {
        delivered = delivering => delivered,
        stop = signals.next() => {
            handle.cancel();
            output.stop().await;
            return Err(stop.error(None));
        }
    };
    let written = tokio::select! {
        written = output.finish() => Ok(written),
        stop = signals.next() => Err(stop),
    };
    match written {
        Ok(written) => written?,
        Err(stop) => {
            output.stop().await;
            return Err(stop.error(None));
        }
    }
    Ok(delivered?)
}
