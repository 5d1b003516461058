//! Streams of synthesised speech: PCM of a known format, or the service's own encoding.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::Stream;

use super::speaking::Speaking;
use super::{SpeechError, SpeechHandle};
use crate::audio::{Encoding, FRAME_BYTES, PcmFormat, sample};
use crate::protocol::tts::PCM_RATE;
use crate::resample::{ResampleError, Resampler};

/// Speech as it arrives, in pieces of up to 100 ms: 16-bit little-endian PCM, mono. If synthesis fails,
/// the last item is an error, and the audio before it is good.
///
/// Requests run in tasks of their own, in the runtime in which the stream is polled. At most two parts of
/// the text, of some 40 s each, are requested and not yet taken, and at most a minute of audio is
/// buffered for each. Dropping the stream ends the requests.
pub struct PcmStream {
    speaking: Speaking,
    /// Resampler; `None` at the service's own rate, and after the last samples.
    resampler: Option<Resampler>,
    sample_rate: u32,
    /// Input of the resampler.
    samples: Vec<f32>,
    resampled: Vec<f32>,
}

impl PcmStream {
    pub(super) fn new(speaking: Speaking) -> PcmStream {
        PcmStream {
            speaking,
            resampler: None,
            sample_rate: PCM_RATE,
            samples: Vec::new(),
            resampled: Vec::new(),
        }
    }

    /// Resamples the speech to another rate, from 8 to 192 kHz. Audio that was already taken is not
    /// affected.
    ///
    /// # Errors
    /// Returns [`ResampleError`] if the rate is out of range.
    pub fn resampled(self, sample_rate: u32) -> Result<PcmStream, ResampleError> {
        let resampler = Some(Resampler::new(PCM_RATE, sample_rate)?).filter(|_| sample_rate != PCM_RATE);
        Ok(PcmStream { resampler, sample_rate, ..self })
    }

    /// Returns the sample rate, in frames per second.
    #[must_use]
    pub fn sample_rate(&self) -> u32 {
        self.sample_rate
    }

    /// Returns the format of the bytes.
    #[must_use]
    pub fn format(&self) -> PcmFormat {
        PcmFormat { encoding: Encoding::S16Le, sample_rate: self.sample_rate, channels: 1 }
    }

    /// Returns a handle that stops the speech and counts its frames.
    #[must_use]
    pub fn handle(&self) -> SpeechHandle {
        self.speaking.handle().clone()
    }

    /// Resamples `pcm`; `None` marks the end of the stream.
    fn resample(&mut self, pcm: Option<&[u8]>) -> Bytes {
        let Some(resampler) = &mut self.resampler else { return Bytes::new() };
        self.resampled.clear();
        match pcm {
            Some(pcm) => {
                self.samples.clear();
                self.samples.extend(sample::read_s16le(pcm));
                resampler.push(&self.samples, &mut self.resampled);
            }
            None => {
                resampler.finish(&mut self.resampled);
                self.resampler = None;
            }
        }
        let mut pcm = Vec::with_capacity(self.resampled.len() * FRAME_BYTES);
        sample::write_s16le(&self.resampled, &mut pcm);
        pcm.into()
    }
}

impl Stream for PcmStream {
    type Item = Result<Bytes, SpeechError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let pcm = match ready!(self.speaking.poll_next(cx)) {
                Some(Ok(pcm)) if self.resampler.is_none() => pcm,
                Some(Ok(pcm)) => self.resample(Some(&pcm)),
                Some(Err(error)) => {
                    self.resampler = None;
                    return Poll::Ready(Some(Err(error)));
                }
                None if self.resampler.is_some() => self.resample(None),
                None => return Poll::Ready(None),
            };
            if pcm.is_empty() {
                continue;
            }
            // Cancelled speech ends here, even if audio is ready.
            return if self.speaking.handle().hand_out((pcm.len() / FRAME_BYTES) as u64) {
                Poll::Ready(Some(Ok(pcm)))
            } else {
                Poll::Ready(None)
            };
        }
    }
}

impl fmt::Debug for PcmStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PcmStream({}, {} frames handed out)", self.format(), self.speaking.handle().handed_out())
    }
}

/// Speech in the service's encoding, part by part. If synthesis fails, the last item is an error.
pub struct EncodedStream {
    speaking: Speaking,
}

impl EncodedStream {
    pub(super) fn new(speaking: Speaking) -> EncodedStream {
        EncodedStream { speaking }
    }

    /// Returns a handle that stops the speech and counts its bytes.
    #[must_use]
    pub fn handle(&self) -> SpeechHandle {
        self.speaking.handle().clone()
    }
}

impl Stream for EncodedStream {
    type Item = Result<Bytes, SpeechError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = ready!(self.speaking.poll_next(cx));
        let bytes = next.as_ref().and_then(|next| next.as_ref().ok()).map_or(0, Bytes::len);
        Poll::Ready(next.filter(|_| self.speaking.handle().hand_out(bytes as u64)))
    }
}

impl fmt::Debug for EncodedStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EncodedStream({} bytes handed out)", self.speaking.handle().handed_out())
    }
}
