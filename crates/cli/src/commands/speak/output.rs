//! Destinations and formats of speech.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::timeout;

use super::Encoder;
use super::player::{Player, Stopper};
use crate::exit_code::{CliError, Exit, STDOUT};
use voxline::audio::WavWriter;
use voxline::protocol::tts::PCM_RATE;
use voxline::speech::Codec;

/// Number of pieces of 100 ms that may wait for the output.
const WAITING: usize = 2;
/// Longest time that an interrupted program waits for its output to accept the pending pieces: a file accepts
/// them at once, a pipe without a reader never does.
const LAST_WRITE: Duration = Duration::from_secs(1);

/// Format of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// WAV at this sample rate.
    Wav(u32),
    /// 16-bit little-endian PCM without a header, at this sample rate.
    Raw(u32),
    /// PCM for a player, at this sample rate.
    Played(u32),
    /// Speech in the service's encoding.
    Encoded(Codec),
}

impl Form {
    /// Determines the format from the output's name and the flags.
    pub(super) fn of(output: &Path, encoder: Option<Encoder>, rate: Option<u32>) -> Result<Form, CliError> {
        let refused = |reason: String| Err(CliError::new(Exit::Setup, reason));
        let pcm_rate = rate.unwrap_or(PCM_RATE);
        let extension = output.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        let named = match (output.to_str(), extension.as_str()) {
            (Some("play"), _) => Some(Form::Played(pcm_rate)),
            (_, "wav") => Some(Form::Wav(pcm_rate)),
            (_, "raw" | "pcm" | "s16le") => Some(Form::Raw(pcm_rate)),
            (_, "mp3") => Some(Form::Encoded(Codec::Mp3)),
            (_, "opus" | "ogg" | "oga") => Some(Form::Encoded(Codec::Opus)),
            (_, "flac" | "m4a" | "aac" | "webm" | "aiff") => {
                return refused(format!(
                    "{}: expected a name in .wav, .raw, .mp3 or .opus",
                    output.display()
                ));
            }
            _ => None,
        };
        let asked = encoder.map(|encoder| match encoder {
            Encoder::Pcm => Form::Wav(pcm_rate),
            Encoder::Mp3 => Form::Encoded(Codec::Mp3),
            Encoder::Opus => Form::Encoded(Codec::Opus),
        });
        let form = match (named, asked) {
            (Some(Form::Played(_)), Some(Form::Encoded(codec))) => {
                let codec = codec.name();
                return refused(format!("--encoder {codec}: players take PCM; name a file with --output"));
            }
            (Some(named), Some(asked)) if named.codec() != asked.codec() => {
                let (output, encoder) = (output.display(), asked.codec().map_or("pcm", Codec::name));
                return refused(format!("--encoder {encoder}: contradicts the extension of {output}"));
            }
            (named, asked) => named.or(asked).unwrap_or(Form::Wav(pcm_rate)),
        };
        match (form.codec(), rate) {
            (Some(codec), Some(_)) => {
                refused(format!("--rate: goes with PCM, and {} has the service's rate", codec.name()))
            }
            _ => Ok(form),
        }
    }

    fn codec(self) -> Option<Codec> {
        match self {
            Form::Encoded(codec) => Some(codec),
            Form::Wav(_) | Form::Raw(_) | Form::Played(_) => None,
        }
    }
}

/// A sink for speech, written on a thread that may block on a pipe or a player.
pub(super) struct Output {
    /// `None` once all pieces were sent.
    pieces: Option<mpsc::Sender<Bytes>>,
    writing: JoinHandle<Result<(), CliError>>,
    /// Stops the player, if there is one.
    player: Option<Stopper>,
}

impl Output {
    /// Creates the file, or starts the player. Opening a named pipe waits for its reader.
    pub(super) async fn open(form: Form, path: PathBuf) -> Result<Output, CliError> {
        let opening = tokio::task::spawn_blocking(move || Sink::open(form, &path));
        let mut sink = opening.await.map_err(panicked)??;
        let player = match &sink {
            Sink::Player(player) => Some(player.stopper()),
            _ => None,
        };
        let (sender, mut pieces) = mpsc::channel::<Bytes>(WAITING);
        let writing = tokio::task::spawn_blocking(move || {
            while let Some(piece) = pieces.blocking_recv() {
                sink.write(&piece)?;
            }
            sink.finish()
        });
        Ok(Output { pieces: Some(sender), writing, player })
    }

    /// Writes a piece. Returns `false` if the output accepts no more; [`finish`](Output::finish) returns the
    /// reason.
    pub(super) async fn take(&mut self, piece: Bytes) -> bool {
        match &self.pieces {
            Some(pieces) => pieces.send(piece).await.is_ok(),
            None => false,
        }
    }

    /// Waits until everything is written or played. A caller that stops waiting may still
    /// [`stop`](Output::stop) the output.
    pub(super) async fn finish(&mut self) -> Result<(), CliError> {
        self.pieces = None;
        (&mut self.writing).await.map_err(panicked)?
    }

    /// Ends the output at once: the player falls silent, and a file is completed.
    pub(super) async fn stop(mut self) {
        if let Some(player) = &self.player {
            player.stop();
        }
        // The result of an interrupted output doesn't matter.
        let _ = timeout(LAST_WRITE, self.finish()).await;
    }
}

fn panicked(panic: JoinError) -> CliError {
    CliError::new(Exit::Output, panic.to_string())
}

/// The destination that speech is written to.
enum Sink {
    WavFile(WavWriter<BufWriter<File>>),
    WavStream(WavWriter<io::Stdout>),
    Bytes(String, Box<dyn Write + Send>),
    Player(Player),
}

impl Sink {
    fn open(form: Form, path: &Path) -> Result<Sink, CliError> {
        let is_stdout = path.as_os_str() == "-";
        Ok(match form {
            Form::Played(rate) => Sink::Player(Player::start(rate)?),
            Form::Wav(rate) if is_stdout => {
                Sink::WavStream(WavWriter::streaming(STDOUT, io::stdout(), rate, 1)?)
            }
            Form::Wav(rate) => Sink::WavFile(WavWriter::create(path, rate, 1)?),
            Form::Raw(_) | Form::Encoded(_) if is_stdout => {
                Sink::Bytes(STDOUT.to_owned(), Box::new(io::stdout()))
            }
            Form::Raw(_) | Form::Encoded(_) => {
                let name = path.display().to_string();
                let file = File::create(path).map_err(|error| CliError::output(&name, &error))?;
                Sink::Bytes(name, Box::new(file))
            }
        })
    }

    /// Writes a piece and flushes it, since the next piece may be late, and a reader of a pipe should receive
    /// this one now.
    fn write(&mut self, piece: &[u8]) -> Result<(), CliError> {
        match self {
            Sink::WavFile(wav) => wav.write_s16le(piece).and_then(|()| wav.flush()).map_err(CliError::from),
            Sink::WavStream(wav) => wav.write_s16le(piece).and_then(|()| wav.flush()).map_err(CliError::from),
            Sink::Bytes(name, out) => {
                out.write_all(piece).and_then(|()| out.flush()).map_err(|error| match &**name {
                    STDOUT => CliError::stdout(&error),
                    name => CliError::output(name, &error),
                })
            }
            Sink::Player(player) => player.write(piece),
        }
    }

    fn finish(self) -> Result<(), CliError> {
        match self {
            Sink::WavFile(wav) => wav.finish().map(drop).map_err(CliError::from),
            Sink::WavStream(wav) => wav.finish().map(drop).map_err(CliError::from),
            Sink::Bytes(..) => Ok(()),
            Sink::Player(player) => player.finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(output: &str, encoder: Option<Encoder>, rate: Option<u32>) -> Result<Form, String> {
        Form::of(Path::new(output), encoder, rate).map_err(|error| error.to_string())
    }

    #[test]
    fn the_name_of_the_output_says_what_it_holds() {
        for (output, expected) in [
            ("play", Form::Played(24_000)),
            ("a.wav", Form::Wav(24_000)),
            ("a.WAV", Form::Wav(24_000)),
            ("a", Form::Wav(24_000)),
            ("-", Form::Wav(24_000)),
            ("a.raw", Form::Raw(24_000)),
            ("a.s16le", Form::Raw(24_000)),
            ("a.mp3", Form::Encoded(Codec::Mp3)),
            ("a.opus", Form::Encoded(Codec::Opus)),
            ("a.ogg", Form::Encoded(Codec::Opus)),
        ] {
            assert_eq!(form(output, None, None).unwrap(), expected, "{output}");
        }
        assert_eq!(form("a.raw", Some(Encoder::Pcm), Some(8_000)).unwrap(), Form::Raw(8_000));
        assert_eq!(form("-", Some(Encoder::Mp3), None).unwrap(), Form::Encoded(Codec::Mp3));
        assert_eq!(form("a.oga", Some(Encoder::Opus), None).unwrap(), Form::Encoded(Codec::Opus));
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        for (output, encoder, rate, reason) in [
            ("a.flac", None, None, "a.flac: expected a name in .wav"),
            ("play", Some(Encoder::Opus), None, "--encoder opus: players take PCM"),
            ("a.wav", Some(Encoder::Mp3), None, "--encoder mp3: contradicts the extension of a.wav"),
            ("a.mp3", Some(Encoder::Pcm), None, "--encoder pcm: contradicts the extension of a.mp3"),
            ("a.mp3", Some(Encoder::Opus), None, "--encoder opus: contradicts the extension of a.mp3"),
            ("a.raw", Some(Encoder::Opus), None, "--encoder opus: contradicts the extension of a.raw"),
            ("a.opus", None, Some(8_000), "--rate: goes with PCM"),
            ("-", Some(Encoder::Mp3), Some(8_000), "--rate: goes with PCM"),
        ] {
            let refused = form(output, encoder, rate).unwrap_err();
            assert!(refused.starts_with(reason), "{refused}");
        }
    }
}
