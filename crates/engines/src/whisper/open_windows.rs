//! Windows of a recording in progress: the utterances of each are heard together, and doubtful ones by
//! themselves.
//!
//! Windows are decoded side by side, as the beams of a search are: a step reads a token of each, and the
//! weights once for all. If there are idle threads, a step divides the windows among them.

use super::attempt::{Attempt, Transcript};
use super::decoder::StepBuffers;
use super::decoding::Decoding;
use super::joined::{Division, Joined};
use super::model::Model;
use super::ops::Kernels;
use super::options::{DecodingOptions, Language};
use super::thread_pool::ThreadPools;
use super::transcribe::{FULL_WINDOW, Transcription};
use crate::endpoint::Span;
use voxline::engine::EngineError;

/// Largest number of windows that are heard side by side. The weights are then read once for eight tokens,
/// and a kernel for 8-bit integers multiplies as many rows at once.
const MOST_WINDOWS: usize = 8;

/// Memory for the keys and values of windows that are heard side by side: eight windows of the base model,
/// four of the small one.
const AUDIO_BYTES: usize = 256 << 20;

/// A window that is being heard.
pub(super) struct OpenWindow {
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

impl OpenWindow {
    /// Begins to hear the utterances among the spans of a window.
    pub(super) fn new(spans: Vec<Span>, options: &DecodingOptions) -> OpenWindow {
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
        OpenWindow { spans, transcripts, together, alone: None, options: None }
    }

    /// Begins to hear the utterances anew.
    pub(super) fn begin_again(&mut self, options: &DecodingOptions) {
        *self = OpenWindow::new(std::mem::take(&mut self.spans), options);
    }
}

/// Windows that one thread works on in a step.
enum Part<'a> {
    /// A window whose next step is not to decode token by token.
    One(&'a mut OpenWindow),
    /// Windows that decode token by token, side by side.
    SideBySide(Vec<&'a mut OpenWindow>),
}

/// Does a bounded piece of the work on windows, in their order, on at most `threads` threads.
///
/// # Errors
/// Returns [`EngineError::Inference`] if the system refuses another thread.
pub(super) fn step(
    model: &Model,
    pools: &ThreadPools,
    buffers: &mut Vec<StepBuffers>,
    open_windows: &mut [OpenWindow],
    options: &DecodingOptions,
    threads: usize,
) -> Result<(), EngineError> {
    let parts = parts(open_windows, options, threads);
    if buffers.len() < parts.len() {
        buffers.resize_with(parts.len(), StepBuffers::default);
    }
    let mut parts: Vec<_> = parts.into_iter().zip(buffers).collect();
    pools.run_each(&mut parts, &|(part, buffers), kernels| part.step(model, kernels, buffers, options))
}

/// Divides windows among threads. Windows that do not decode yet come first, so that more decode side by
/// side.
fn parts<'a>(open_windows: &'a mut [OpenWindow], options: &DecodingOptions, threads: usize) -> Vec<Part<'a>> {
    let (mut parts, mut decoding) = (Vec::new(), Vec::new());
    for window in open_windows {
        match window.transcription(options).map(|transcription| transcription.is_token_by_token()) {
            Some(true) => decoding.push(window),
            Some(false) if parts.len() < threads => parts.push(Part::One(window)),
            Some(false) | None => {}
        }
    }
    let idle = threads - parts.len();
    if idle > 0 {
        let size = decoding.len().div_ceil(idle);
        while !decoding.is_empty() {
            parts.push(Part::SideBySide(decoding.drain(..size.min(decoding.len())).collect()));
        }
    }
    parts
}

impl Part<'_> {
    fn step(
        &mut self,
        model: &Model,
        kernels: &mut Kernels,
        buffers: &mut StepBuffers,
        options: &DecodingOptions,
    ) {
        let open_windows = match self {
            Part::One(window) => return window.step(model, kernels, options),
            Part::SideBySide(open_windows) => open_windows,
        };
        let transcriptions = open_windows.iter_mut().filter_map(|window| window.transcription(options));
        let mut decodings: Vec<&mut Decoding> = transcriptions.filter_map(Transcription::decoding).collect();
        // invariant: each of these windows has a decoding.
        let ended = Decoding::advance_together(model, kernels, buffers, &mut decodings);
        for (window, _) in open_windows.iter_mut().zip(ended).filter(|(_, ended)| *ended) {
            window.end_text(model, kernels, options);
        }
    }
}

impl OpenWindow {
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
