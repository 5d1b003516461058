//! Whisper on processors that lack the instructions of this one: the same text, by other kernels.
//!
//! A kernel is chosen by what the processor says of itself, so the tests run on an emulated one: `./dev prove
//! processors` runs this one and those of the kernels on [`PROCESSORS`].

use rten_gemm::GemmExecutor;

use voxline::engine::{Accuracy, RecognitionRequest, Recognizer};

use voxline_fixtures::clips;
use voxline_fixtures::whisper::whisper;

/// Processors that qemu emulates, and the kernel of integer products that each has to use.
const PROCESSORS: [(&str, &str); 2] = [("Haswell", "x86_64-u8i8i32-avx2"), ("Nehalem", "generic-u8i8i32")];

/// Returns the name of the emulated processor, if the test runs on one.
#[expect(clippy::disallowed_methods, reason = "an emulated processor does not say that it is one")]
fn processor() -> Option<String> {
    std::env::var("VOXLINE_PROCESSOR").ok()
}

#[test]
fn every_processor_hears_the_same() {
    let kernel = GemmExecutor::<u8, i8, i32>::default();
    if let Some(processor) = processor() {
        let known = PROCESSORS.iter().find(|(name, _)| *name == processor);
        let (_, expected) = known.unwrap_or_else(|| panic!("{processor} is none of {PROCESSORS:?}"));
        assert_eq!(kernel.kernel_name(), *expected, "{processor}");
    }
    let whisper = whisper();
    let pcm = clips::audio("en-16k", "goforward");
    for accuracy in [Accuracy::Fast, Accuracy::Best] {
        let request = RecognitionRequest::new().language("en").accuracy(accuracy);
        let mut stream = whisper.start(&request).unwrap();
        let mut segments = stream.push(&pcm).unwrap();
        segments.extend(stream.flush().unwrap());
        let heard: Vec<&str> = segments.iter().map(|segment| segment.text.trim()).collect();
        assert_eq!(heard.join(" ").trim(), "Go forward 10 meters.", "{accuracy} by {}", kernel.kernel_name());
    }
}
