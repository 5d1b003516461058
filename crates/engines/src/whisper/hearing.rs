//! Hearing of the windows of a recording: the utterances of each together, and doubtful ones by themselves.
//!
//! Windows are decoded side by side, as the beams of a search are: a step reads a token of each, and the
//! weights once for all.

use std::collections::VecDeque;

use super::attempt::{Attempt, Transcript};
use super::decoder::StepBuffers;
use super::decoding::Decoding;
use super::joined::{Division, Joined};
use super::model::Model;
use super::ops::Kernels;
use super::options::{DecodingOptions, Language};
use super::transcribe::{FULL_WINDOW, Transcription};
use crate::endpoint::Span;

/// Largest number of windows that are heard side by side. The weights are then read once for eight tokens,
/// and a kernel for 8-bit integers multiplies as many rows at once.
const MOST_WINDOWS: usize = 8;

/// Bound of the memory for the keys and values of windows that are heard side by side: eight windows of the
/// base model, four of the small one.
const AUDIO_BYTES: usize = 256 << 20;

/// A window that is being heard.
pub(super) struct Hearing {
    pub(super) spans: Vec<Span>,
    /// Transcript of each span that is an utterance.
    pub(super) transcripts: Vec<Option<Transcript>>,
    together: Option<Together>,
    /// The utterance that is being heard by itself, by its index.
    alone: Option<(usize, Box<Transcription>)>,
    /// Options for an utterance that is heard by itself, with the language of the window.
    options: Option<DecodingOptions>,
}

/// The utterances of a window that are being heard together.
struct Together {
    joined: Joined,
    /// Index of each utterance among the spans.
    indices: Vec<usize>,
    transcription: Box<Transcription>,
}

/// Returns the number of windows whose keys and values of the audio fit into [`AUDIO_BYTES`].
pub(super) fn side_by_side(model: &Model) -> usize {
    let window = model.decoder.audio_bytes(FULL_WINDOW / 2);
    (AUDIO_BYTES / window.max(1)).clamp(1, MOST_WINDOWS)
}

impl Hearing {
    /// Begins to hear the utterances among the spans of a window.
    pub(super) fn new(spans: Vec<Span>, options: &DecodingOptions) -> Hearing {
        let (mut joined, mut indices) = (Joined::default(), Vec::new());
        for (at, span) in spans.iter().enumerate() {
            if let Span::Speech { pcm, lively: lively @ 1.., .. } = span {
                joined.push(pcm, *lively);
                indices.push(at);
            }
        }
        let together = (joined.len() > 1).then(|| {
            let (pcm, lively) = (joined.pcm.clone(), joined.lively);
            let transcription = Transcription::together(pcm, lively, options.clone(), joined.places());
            Together { joined, indices, transcription: Box::new(transcription) }
        });
        let transcripts = spans.iter().map(|_| None).collect();
        Hearing { spans, transcripts, together, alone: None, options: None }
    }
}

/// Does a bounded piece of the work on windows, in their order. Once all that are left decode token by token,
/// they do so side by side.
pub(super) fn step(
    model: &Model,
    kernels: &mut Kernels,
    buffers: &mut StepBuffers,
    hearings: &mut VecDeque<Hearing>,
    options: &DecodingOptions,
) {
    for hearing in hearings.iter_mut() {
        if hearing.transcription(options).is_some_and(|transcription| !transcription.is_token_by_token()) {
            return hearing.step(model, kernels, options);
        }
    }
    let transcriptions = hearings.iter_mut().filter_map(|hearing| hearing.transcription(options));
    let mut decodings: Vec<&mut Decoding> = transcriptions.filter_map(Transcription::decoding).collect();
    let ended = Decoding::advance_together(model, kernels, buffers, &mut decodings);
    let open = hearings.iter_mut().filter(|hearing| !hearing.is_done());
    // invariant: each window that is not done has a decoding.
    for (hearing, _) in open.zip(ended).filter(|(_, ended)| *ended) {
        hearing.end_text(model, kernels, options);
    }
}

impl Hearing {
    /// Returns whether all utterances are heard.
    pub(super) fn is_done(&self) -> bool {
        let mut spans = self.spans.iter().zip(&self.transcripts);
        spans.all(|(span, transcript)| transcript.is_some() || matches!(span, Span::Silence { .. }))
    }

    /// Returns the transcription in progress, or begins the next one; `None` if all utterances are heard.
    fn transcription(&mut self, options: &DecodingOptions) -> Option<&mut Transcription> {
        if let Some(together) = &mut self.together {
            return Some(&mut together.transcription);
        }
        if self.alone.is_none() {
            let mut spans = self.spans.iter().zip(&self.transcripts).enumerate();
            let (at, pcm, lively) = spans.find_map(|(at, pair)| match pair {
                (Span::Speech { pcm, lively, .. }, None) => Some((at, pcm.clone(), *lively)),
                _ => None,
            })?;
            let options = self.options.as_ref().unwrap_or(options);
            self.alone = Some((at, Box::new(Transcription::new(pcm, lively, options.clone()))));
        }
        self.alone.as_mut().map(|(_, transcription)| &mut **transcription)
    }

    /// Does a bounded piece of the work.
    fn step(&mut self, model: &Model, kernels: &mut Kernels, options: &DecodingOptions) {
        if let Some(together) = &mut self.together {
            if let Some(attempt) = together.transcription.attempt(model, kernels) {
                self.divide(model, &attempt, options);
            }
        } else if let Some(transcription) = self.transcription(options)
            && let Some(transcript) = transcription.step(model, kernels)
        {
            self.end_alone(transcript);
        }
    }

    /// Goes on after a decoding that has ended.
    fn end_text(&mut self, model: &Model, kernels: &mut Kernels, options: &DecodingOptions) {
        let transcription = self.transcription(options);
        let Some(attempt) = transcription.and_then(|transcription| transcription.take_attempt(model)) else {
            return;
        };
        if self.together.is_some() {
            self.divide(model, &attempt, options);
        } else if let Some((_, transcription)) = &mut self.alone
            && let Some(transcript) = transcription.conclude(model, kernels, attempt)
        {
            self.end_alone(transcript);
        }
    }

    /// Ends the utterance that was heard by itself.
    fn end_alone(&mut self, transcript: Transcript) {
        if let Some((at, _)) = self.alone.take() {
            self.transcripts[at] = Some(transcript);
        }
    }

    /// Divides the text of the window among its utterances.
    fn divide(&mut self, model: &Model, attempt: &Attempt, options: &DecodingOptions) {
        let Some(Together { joined, indices, transcription }) = self.together.take() else { return };
        let mut options = options.clone();
        if let (Language::Detect(detection), Some((written, detected))) =
            (&mut options.language, attempt.language.zip(attempt.detected))
        {
            detection.learn(written, detected, joined.pcm.len());
        }
        let languages = transcription.languages();
        let Division { transcripts, is_rejected } = joined.divide(model, attempt, languages, &options);
        for (at, transcript) in indices.into_iter().zip(transcripts) {
            self.transcripts[at] = transcript;
        }
        self.options = (!is_rejected).then_some(options);
    }
}
