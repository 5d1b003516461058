//! Audio in a container, decoded while it arrives, on a thread of its own.

use std::io::{self, Read};
use std::thread;

use bytes::{Buf, Bytes};
use tokio::sync::mpsc;

use crate::recordings::decoding::CPU_LIMIT;
use voxline::audio::sample;
use voxline::decode::{self, Block, Cancellation, Channels, DecodeError, Decoder};
use voxline::engine::RECOGNIZER_RATE;
use voxline::resample::Resampler;
use voxline::source::Source;

/// Number of messages that wait for the decoder.
const MESSAGES: usize = 8;
/// Number of blocks that wait for the recogniser.
const BLOCKS: usize = 8;
/// Longest block that is handed on, in bytes: ten seconds. One packet may hold more.
const MAX_BLOCK_BYTES: usize = 2 * 10 * RECOGNIZER_RATE as usize;

/// Output of the decoder.
pub(crate) enum Decoded {
    /// PCM at the recogniser's rate, 16-bit little-endian, a plane for each channel or one for their mean.
    Planes(Vec<Bytes>),
    /// The end of the audio, or of the bytes.
    End,
    Failed(DecodeError),
}

/// A container in the course of its arrival. Dropping it ends the thread.
pub(crate) struct ContainerInput {
    /// `None` once the bytes have ended.
    messages: Option<mpsc::Sender<Bytes>>,
    decoded: mpsc::Receiver<Decoded>,
    /// True once the last output was returned.
    is_over: bool,
    cancellation: Cancellation,
}

impl ContainerInput {
    /// Starts the decoder, which mixes the channels if `is_mixed`.
    ///
    /// # Errors
    /// Returns [`io::Error`] if the system refuses a thread.
    pub(crate) fn start(is_mixed: bool) -> io::Result<ContainerInput> {
        let (messages, reader) = mpsc::channel(MESSAGES);
        let (sender, decoded) = mpsc::channel(BLOCKS);
        let cancellation = Cancellation::new();
        let cancelled = cancellation.clone();
        let channels = if is_mixed { Channels::Mix } else { Channels::Split };
        let reader = MessageReader { messages: reader, current: Bytes::new() };
        thread::Builder::new().name("decode".to_owned()).spawn(move || {
            let last = match decode(reader, channels, cancelled, &sender) {
                Ok(()) => Decoded::End,
                // A live stream may end anywhere, and one without any audio is no fault either.
                Err(DecodeError::Truncated { .. } | DecodeError::NoAudio { .. }) => Decoded::End,
                Err(error) => Decoded::Failed(error),
            };
            // The receiver is gone if the client has left.
            let _ = sender.blocking_send(last);
        })?;
        Ok(ContainerInput { messages: Some(messages), decoded, is_over: false, cancellation })
    }

    /// Returns whether a message can be pushed.
    pub(crate) fn has_room(&self) -> bool {
        self.messages.as_ref().is_none_or(|messages| messages.capacity() > 0)
    }

    /// Waits for room for another message. Cancel safe.
    pub(crate) async fn room(&self) {
        if let Some(messages) = &self.messages {
            drop(messages.reserve().await);
        }
    }

    /// Waits for the next output, or for room for another message, which is `None`. Cancel safe.
    pub(crate) async fn next_or_room(&mut self) -> Option<Decoded> {
        let messages = self.messages.clone();
        let room = async {
            match messages {
                Some(messages) => drop(messages.reserve().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            decoded = self.next() => Some(decoded),
            () = room => None,
        }
    }

    /// Takes the bytes of a message; there must be room. Bytes after the end are dropped.
    pub(crate) fn push(&mut self, bytes: Bytes) {
        if let Some(messages) = &self.messages {
            // The decoder is gone if it has ended before the bytes.
            let _ = messages.try_send(bytes);
        }
    }

    /// Ends the bytes. The rest of the audio follows by [`next`](ContainerInput::next).
    pub(crate) fn finish(&mut self) {
        self.messages = None;
    }

    /// Waits for the next output; for ever after the last one. Cancel safe.
    pub(crate) async fn next(&mut self) -> Decoded {
        if self.is_over {
            return std::future::pending().await;
        }
        let decoded = self.decoded.recv().await.unwrap_or_else(|| Decoded::Failed(crashed()));
        self.is_over = !matches!(decoded, Decoded::Planes(_));
        decoded
    }
}

/// Returns the error of a decoder whose thread has panicked.
fn crashed() -> DecodeError {
    DecodeError::Unsupported { name: "audio".to_owned(), what: "the decoder failed".to_owned() }
}

impl Drop for ContainerInput {
    fn drop(&mut self) {
        self.cancellation.cancel();
    }
}

/// Decodes a container to its end, or until nobody takes the output.
fn decode(
    reader: MessageReader,
    channels: Channels,
    cancellation: Cancellation,
    sender: &mpsc::Sender<Decoded>,
) -> Result<(), DecodeError> {
    let wanted = decode::Options {
        channels,
        sample_rate: Some(RECOGNIZER_RATE),
        limits: decode::Limits { cpu: Some(CPU_LIMIT), ..decode::Limits::default() },
    };
    let mut decoder = Decoder::open_cancellable(Source::stream("audio", reader), wanted, cancellation)?;
    let rate = decoder.sample_rate();
    let resampler = || {
        Resampler::new(rate, RECOGNIZER_RATE)
            .map_err(|error| DecodeError::Unsupported { name: "audio".to_owned(), what: error.to_string() })
    };
    let mut resamplers = (0..decoder.planes()).map(|_| resampler()).collect::<Result<Vec<_>, _>>()?;
    let mut block = Block::new();
    while decoder.next_block(&mut block)? {
        let planes = resamplers.iter_mut().zip(block.planes()).map(|(resampler, plane)| {
            let mut resampled = Vec::new();
            resampler.push(plane, &mut resampled);
            resampled
        });
        if !hand_on(planes.collect(), sender) {
            return Ok(());
        }
    }
    let rest = resamplers.iter_mut().map(|resampler| {
        let mut rest = Vec::new();
        resampler.finish(&mut rest);
        rest
    });
    hand_on(rest.collect(), sender);
    Ok(())
}

/// Hands on a block, in parts. Returns false if nobody takes them.
fn hand_on(planes: Vec<Vec<f32>>, sender: &mpsc::Sender<Decoded>) -> bool {
    let planes: Vec<Bytes> = planes
        .iter()
        .map(|plane| {
            let mut pcm = Vec::new();
            sample::write_s16le(plane, &mut pcm);
            Bytes::from(pcm)
        })
        .collect();
    let length = planes.iter().map(Bytes::len).min().unwrap_or(0);
    (0..length).step_by(MAX_BLOCK_BYTES).all(|from| {
        let to = length.min(from + MAX_BLOCK_BYTES);
        let part = planes.iter().map(|plane| plane.slice(from..to)).collect();
        sender.blocking_send(Decoded::Planes(part)).is_ok()
    })
}

/// The bytes of the messages, in order.
struct MessageReader {
    messages: mpsc::Receiver<Bytes>,
    current: Bytes,
}

impl Read for MessageReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.messages.blocking_recv() {
                Some(message) => self.current = message,
                None => return Ok(0),
            }
        }
        let read = buffer.len().min(self.current.len());
        self.current.copy_to_slice(&mut buffer[..read]);
        Ok(read)
    }
}
