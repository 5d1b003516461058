//! `voxline speak`: text in, speech out as it is synthesised.

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};

use clap::Args;

use super::exit_code::{CliError, Exit};
use super::service::{Connection, Need};
use super::{Common, keep_stdin_apart};
use crate::audio::{WavError, WavWriter};
use crate::speech::{PcmStream, SpeechClient, SpeechOptions};

/// The longest text read from standard input, in bytes: what a service can take (20,000 characters) at its longest.
const MAX_TEXT: u64 = 80_000;

/// Programs that play raw PCM from standard input, in the order they are tried: PipeWire, PulseAudio, ALSA.
const PLAYERS: &[(&str, &[&str])] = &[
    ("pw-play", &["--raw", "--format=s16", "--channels=1", "--rate", "RATE", "-"]),
    ("paplay", &["--raw", "--format=s16le", "--channels=1", "--rate", "RATE"]),
    ("aplay", &["-q", "-t", "raw", "-f", "S16_LE", "-c", "1", "-r", "RATE"]),
];

#[derive(Args)]
pub(super) struct Arguments {
    /// What to say, up to 20,000 characters; `-` for standard input
    text: String,
    /// WAV file to write, `-` for a WAV stream on standard output, or `play`
    #[arg(short, long, value_name = "FILE", default_value = "play")]
    output: PathBuf,
    /// Voice, as listed by `voxline voices` [default: the best for the text's language]
    #[arg(long)]
    voice: Option<String>,
    /// Speed, from 0.75 to 1.75
    #[arg(long, value_parser = tempo)]
    tempo: Option<f32>,
}

fn tempo(text: &str) -> Result<f32, String> {
    let tempo = text.parse().ok().filter(|tempo| (0.75..=1.75).contains(tempo));
    tempo.ok_or_else(|| "expected a number from 0.75 to 1.75".to_owned())
}

pub(super) async fn run(arguments: Arguments, common: Common) -> Result<Exit, CliError> {
    let Arguments { text, output, voice, tempo } = arguments;
    let config = common.load(None)?;
    keep_stdin_apart(&config, text == "-")?;
    let text = if text == "-" { read_stdin()? } else { text };
    if text.trim().is_empty() {
        return Err(CliError::new(Exit::Setup, "there is no text to speak"));
    }
    let connection = Connection::open(&config, Need::Speech).await?;
    let client = SpeechClient::new(connection.http.clone(), connection.endpoint.clone(), &connection.tokens);
    let speech = client.speak(&text, &SpeechOptions { voice, tempo }).await?;
    let name = output.to_string_lossy().into_owned();
    match name.as_str() {
        "play" => play(speech).await?,
        "-" => write(speech, |rate| WavWriter::streaming("standard output", io::stdout(), rate, 1)).await?,
        _ => write(speech, |rate| WavWriter::create(&output, rate, 1)).await?,
    }
    drop(client);
    connection.close().await;
    Ok(Exit::Done)
}

fn read_stdin() -> Result<String, CliError> {
    let refused = |reason: String| CliError::new(Exit::Setup, format!("standard input: {reason}"));
    let mut text = Vec::new();
    io::stdin().take(MAX_TEXT + 1).read_to_end(&mut text).map_err(|error| refused(error.to_string()))?;
    if text.len() as u64 > MAX_TEXT {
        return Err(refused(format!("text is longer than {MAX_TEXT} bytes")));
    }
    String::from_utf8(text).map_err(|_| refused("text is not UTF-8".to_owned()))
}

/// Writes what is spoken as it comes; what came before an error is kept.
async fn write<W: Write>(
    mut speech: PcmStream,
    open: impl FnOnce(u32) -> Result<WavWriter<W>, WavError>,
) -> Result<(), CliError> {
    let failed = |error: WavError| CliError::new(Exit::Output, error.to_string());
    let mut out = open(speech.sample_rate()).map_err(failed)?;
    let ended = loop {
        match speech.next().await {
            Ok(Some(samples)) => out.write_s16le(&little_endian(&samples)).map_err(failed)?,
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    out.finish().map_err(failed)?;
    Ok(ended?)
}

async fn play(mut speech: PcmStream) -> Result<(), CliError> {
    let (mut player, mut input) = start_player(speech.sample_rate())?;
    let broken = |error: &io::Error| CliError::output("player", error);
    while let Some(samples) = speech.next().await? {
        // The pipe is the pace: it takes as much as the player has room for.
        let written = tokio::task::spawn_blocking(move || {
            input.write_all(&little_endian(&samples))?;
            Ok(input)
        });
        input = written.await.unwrap_or_else(|panic| Err(io::Error::other(panic))).map_err(|e| broken(&e))?;
    }
    drop(input);
    let ended = tokio::task::spawn_blocking(move || player.wait()).await;
    match ended.unwrap_or_else(|panic| Err(io::Error::other(panic))).map_err(|e| broken(&e))? {
        status if status.success() => Ok(()),
        status => Err(CliError::new(Exit::Output, format!("player: {status}; is there a sound device?"))),
    }
}

fn start_player(rate: u32) -> Result<(Child, ChildStdin), CliError> {
    let rate = rate.to_string();
    for (program, arguments) in PLAYERS {
        let arguments = arguments.iter().map(|argument| if *argument == "RATE" { &rate } else { *argument });
        match Command::new(program).args(arguments).stdin(Stdio::piped()).stderr(Stdio::null()).spawn() {
            Ok(mut child) => {
                let input = child.stdin.take().expect("its input is piped");
                return Ok((child, input));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(CliError::output(program, &error)),
        }
    }
    let names: Vec<&str> = PLAYERS.iter().map(|(program, _)| *program).collect();
    let reason = format!("no player found ({}): write to a file with --output", names.join(", "));
    Err(CliError::new(Exit::Output, reason))
}

fn little_endian(samples: &[i16]) -> Vec<u8> {
    samples.iter().flat_map(|sample| sample.to_le_bytes()).collect()
}
