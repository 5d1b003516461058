//! A recogniser that waits for the test.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use voxline::engine::{
    EngineError, PartialResult, RecognitionRequest, Recognizer, RecognizerStream, Segment,
};
use voxline_testing::DigestRecognizer;

/// A recogniser that takes each piece of German audio when the test allows it. All other audio is digested.
pub(super) struct Gated {
    digests: DigestRecognizer,
    shared: Arc<Gate>,
}

/// Returns a recogniser with segments of this many frames, its gate, and the sender that lets a piece pass.
pub(super) fn gated(segment: usize) -> (Gated, Arc<Gate>, Sender<()>) {
    let (allow, allowed) = channel();
    let gate = Arc::new(Gate { allowed: Mutex::new(allowed), pushes: AtomicUsize::new(0) });
    (Gated { digests: DigestRecognizer::new(segment), shared: gate.clone() }, gate, allow)
}

/// The gate of German audio.
pub(super) struct Gate {
    allowed: Mutex<Receiver<()>>,
    /// Number of pieces that have come to it.
    pub(super) pushes: AtomicUsize,
}

impl Recognizer for Gated {
    fn name(&self) -> &str {
        "gated"
    }

    fn start(&self, request: &RecognitionRequest) -> Result<Box<dyn RecognizerStream>, EngineError> {
        let stream = self.digests.start(request)?;
        if request.only_language() == Some("de") {
            return Ok(Box::new(GatedStream { stream, gate: self.shared.clone() }));
        }
        Ok(stream)
    }
}

struct GatedStream {
    stream: Box<dyn RecognizerStream>,
    gate: Arc<Gate>,
}

impl RecognizerStream for GatedStream {
    fn push(&mut self, pcm: &[i16]) -> Result<Vec<Segment>, EngineError> {
        self.gate.pushes.fetch_add(1, Ordering::SeqCst);
        // If the test has failed, the sender is gone.
        let _ = self.gate.allowed.lock().unwrap().recv();
        self.stream.push(pcm)
    }

    fn partial(&mut self) -> Result<PartialResult, EngineError> {
        Ok(PartialResult::Nothing)
    }

    fn flush(&mut self) -> Result<Vec<Segment>, EngineError> {
        self.stream.flush()
    }
}
