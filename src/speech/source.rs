//! Synthesised speech as an audio source, for example for a recogniser.

use std::io::{self, Read};
use std::sync::{Mutex, PoisonError};

use bytes::{Buf, Bytes};
use futures::StreamExt;
use tokio::runtime::Handle;

use super::PcmStream;
use crate::source::Source;

impl PcmStream {
    /// Turns the speech into a source of headerless PCM for a [`Pipeline`](crate::pipeline::Pipeline), a
    /// [`Decoder`](crate::decode::Decoder) or another reader, on a thread that may block. The speech is
    /// read while it is being synthesised, in the runtime of the caller, which must keep running.
    /// Cancelled speech ends like complete speech.
    ///
    /// ```no_run
    /// use voxline::{pipeline, speech};
    ///
    /// # async fn example(client: speech::SpeechClient) -> Result<(), Box<dyn std::error::Error>> {
    /// let speech = client.speak("The train leaves at seven.", &speech::SpeechOptions::default());
    /// let source = speech.into_source();
    /// let opening = || pipeline::Pipeline::open(source, pipeline::Options::default());
    /// let (lines, worker) = tokio::task::spawn_blocking(opening).await??.start();
    /// // ... a `session::Session` with lines[0], as with any other audio ...
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    /// Panics outside of a tokio runtime.
    #[must_use]
    pub fn into_source(self) -> Source {
        let format = self.format();
        let reader = Reader { speech: Mutex::new(self), runtime: Handle::current(), piece: Bytes::new() };
        Source::stream("speech", reader).headerless(format)
    }
}

/// Blocking reader of the stream.
struct Reader {
    /// The stream. The lock is never contended: it makes the reader `Sync`, as sources must be.
    speech: Mutex<PcmStream>,
    runtime: Handle,
    /// Rest of the last piece.
    piece: Bytes,
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.piece.is_empty() {
            let speech = self.speech.get_mut().unwrap_or_else(PoisonError::into_inner);
            match self.runtime.block_on(speech.next()) {
                Some(piece) => self.piece = piece.map_err(io::Error::other)?,
                None => return Ok(0),
            }
        }
        let length = self.piece.len().min(buffer.len());
        self.piece.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}
