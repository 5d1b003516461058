//! The Python package `wyoming-openai`, which offers OpenAI's API to clients of Wyoming.

use super::{SENTENCE, Stage, assert_words, human, list, sentence, string};
use crate::cli::path;
use voxline_fixtures::gateway::audio::wav_of;

#[test]
#[ignore = "its packages are many: ./dev prove dialects fetches them"]
fn wyoming_openai_bridge() {
    let stage = Stage::new(&[]);
    let human = human();
    let files = [("first.wav", sentence()), ("second.wav", human.pcm)];
    let files = files.map(|(name, pcm)| stage.place.file(name, wav_of(&pcm)));
    let arguments = [&stage.serving.endpoint, path(&files[0]), path(&files[1]), SENTENCE.trim()];
    let results = stage.run_with(&["client-sdks-bridge", "client-sdks"], "bridge_client.py", &arguments);

    let models = ["whisper-1", "gpt-4o-transcribe", "gpt-live-transcribe"];
    let mut known: Vec<&str> = list(&results["models"]).iter().map(string).collect();
    known.sort_unstable();
    assert_eq!(known, ["gpt-4o-transcribe", "gpt-live-transcribe", "whisper-1"]);
    for model in models {
        let transcripts = list(&results["transcribed"][model]);
        assert_eq!(transcripts.len(), 2, "{model}");
        for (transcript, said) in transcripts.iter().zip([SENTENCE, &human.text]) {
            assert_words(string(&transcript["text"]), said);
            // Only these models tell pieces of a transcript.
            let said = if model == "whisper-1" { "" } else { said };
            assert_words(transcript["pieces"].as_str().unwrap_or_default(), said);
        }
    }
    for heard in list(&results["heard"]) {
        assert_words(string(&heard["text"]), SENTENCE);
    }
    for name in ["whole", "pieces"] {
        let seconds = stage.seconds_of(&results["spoken"][name]);
        assert!((3.0..6.0).contains(&seconds), "{name}: {seconds}");
    }
}
