//! The answer to `describe`: what the gateway recognises and speaks.

use serde_json::{Value, json};

use crate::authority::Identity;
use crate::gateway::Gateway;
use voxline::engine::VoiceInfo;

/// Name of the programs that the gateway describes itself as.
const PROGRAM: &str = "voxline";

/// Returns the data of `info`. Languages of a recogniser that has no list are those of the client's project.
pub(super) fn info(gateway: &Gateway, identity: &Identity) -> Value {
    let recognizer = gateway.recognizer().ok().map(|recognizer| {
        let mut languages = recognizer.capabilities().languages;
        if languages.is_empty() {
            languages = gateway.recognition_request(Some(identity), None).languages;
        }
        program_of_recognizer(recognizer.name(), &languages)
    });
    let voices: Vec<Value> = gateway.voices.list().iter().map(voice).collect();
    let speaker = (!voices.is_empty()).then(|| {
        let mut program = artifact(PROGRAM, "speech synthesis");
        program["voices"] = voices.into();
        program["supports_synthesize_streaming"] = true.into();
        program
    });
    json!({ "asr": Vec::from_iter(recognizer), "tts": Vec::from_iter(speaker) })
}

fn program_of_recognizer(name: &str, languages: &[String]) -> Value {
    let mut model = artifact(name, "speech recognition");
    model["languages"] = json!(languages);
    let mut program = artifact(PROGRAM, "speech recognition");
    program["models"] = json!([model]);
    program["supports_transcript_streaming"] = true.into();
    // The client says where a command ends, by the end of its audio.
    program["requires_external_vad"] = true.into();
    program
}

fn voice(info: &VoiceInfo) -> Value {
    let VoiceInfo { name, language, quality, speakers, .. } = info;
    let mut voice = artifact(name, &quality.to_string());
    voice["languages"] = json!([language]);
    let speakers: Vec<Value> = speakers.iter().map(|name| json!({ "name": name })).collect();
    voice["speakers"] = if speakers.is_empty() { Value::Null } else { speakers.into() };
    voice
}

/// Returns the fields of every entry, all of which clients read.
fn artifact(name: &str, description: &str) -> Value {
    json!({
        "name": name,
        "attribution": { "name": PROGRAM, "url": "" },
        "installed": true,
        "description": description,
        "version": env!("CARGO_PKG_VERSION"),
    })
}
