//! `voxline probe`: shows the properties of recordings.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use crate::exit_code::{CliError, Exit};
use crate::input::Reading;
use crate::terminal::{complain, say};
use voxline::decode::{self, Decoder, StreamInfo};

#[derive(Args)]
pub(crate) struct Arguments {
    /// Recordings; `-` for standard input
    #[arg(required = true, value_name = "FILE")]
    inputs: Vec<PathBuf>,
    /// Print JSON, one object per line for each recording
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reading: Reading,
}

/// A line of JSON output.
#[derive(Serialize)]
struct ProbeRecord<'a> {
    name: &'a str,
    container: &'a str,
    codec: &'a str,
    /// Sample rate in Hz.
    sample_rate: u32,
    channels: usize,
    /// Length in frames, if the container states it.
    frames: Option<u64>,
    /// Duration in seconds.
    duration: Option<f64>,
}

pub(crate) fn run(arguments: Arguments) -> Result<Exit, CliError> {
    let Arguments { inputs, json, reading } = arguments;
    let mut exit = Exit::Done;
    let mut rows = vec![["CONTAINER", "CODEC", "RATE", "CHANNELS", "DURATION", "FILE"].map(str::to_owned)];
    for input in &inputs {
        let probed = reading.open(input).and_then(|source| {
            let name = source.name().to_owned();
            let wanted = decode::Options { channels: reading.channels, ..decode::Options::default() };
            Ok((name, Decoder::open(source, wanted)?.info().clone()))
        });
        match probed {
            Ok((name, info)) if json => say(&object(&name, &info))?,
            Ok((name, info)) => rows.push(row(name, &info)),
            Err(error) => {
                complain(&error);
                exit = error.exit;
            }
        }
    }
    if rows.len() > 1 {
        say(&table(&rows))?;
    }
    Ok(exit)
}

fn object(name: &str, info: &StreamInfo) -> String {
    let line = ProbeRecord {
        name,
        container: info.container,
        codec: info.codec,
        sample_rate: info.sample_rate,
        channels: info.channels,
        frames: info.frames,
        duration: info.frames.map(|frames| frames as f64 / f64::from(info.sample_rate)),
    };
    let mut text = serde_json::to_string(&line).expect("strings and numbers are JSON");
    text.push('\n');
    text
}

fn row(name: String, info: &StreamInfo) -> [String; 6] {
    let duration = match info.duration() {
        Some(duration) => {
            let seconds = duration.as_secs();
            format!("{}:{:02}.{:03}", seconds / 60, seconds % 60, duration.subsec_millis())
        }
        None => "unknown".to_owned(),
    };
    let (container, codec) = (info.container.to_owned(), info.codec.to_owned());
    [container, codec, format!("{} Hz", info.sample_rate), info.channels.to_string(), duration, name]
}

/// Pads columns to their widest entry, except the last.
fn table(rows: &[[String; 6]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 5] = std::array::from_fn(width);
    let line = |row: &[String; 6]| {
        let columns = row.iter().zip(widths).map(|(entry, width)| format!("{entry:width$}  "));
        format!("{}{}\n", columns.collect::<String>(), row[5])
    };
    rows.iter().map(line).collect()
}
