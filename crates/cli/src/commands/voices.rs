//! `voxline voices`: lists the available voices.

use clap::Args;
use serde_json::json;

use crate::arguments::Common;
use crate::exit_code::{CliError, Exit};
use crate::terminal::say;

#[derive(Args)]
pub(crate) struct Arguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: Arguments, common: Common) -> Result<Exit, CliError> {
    let voices = voxline_engines::voices::discover(&common.load(None)?.models).list();
    if arguments.json {
        let voices: Vec<_> = voices
            .iter()
            .map(|voice| {
                json!({
                    "name": voice.name,
                    "language": voice.language,
                    "sample_rate": voice.sample_rate,
                    "quality": voice.quality.to_string(),
                    "license": voice.license,
                    "speakers": voice.speakers,
                })
            })
            .collect();
        say(&format!("{}\n", json!(voices)))?;
        return Ok(Exit::Done);
    }
    for voice in voices {
        let quality = voice.quality.to_string();
        let (name, language, license) = (voice.name, voice.language, voice.license);
        say(&format!("{name:<14} {language:<4} {quality:<12} licence: {license}\n"))?;
        for speaker in voice.speakers {
            say(&format!("  {name}:{speaker}\n"))?;
        }
    }
    Ok(Exit::Done)
}
