//! `voxline bench asr`: measures the accuracy and speed of recognition on recordings with known transcripts.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use futures::{StreamExt, TryStreamExt, stream};

use super::corpus::{self, Item};
use super::live;
use super::recording::{self, SAMPLE_RATE};
use super::score::{Cost, Heard, Score};
use crate::arguments::{Common, RecognitionOptions};
use crate::config::{Config, Service};
use crate::exit_code::{CliError, Exit};
use crate::hints::{HintOptions, Hints};
use crate::service::{Connection, Need, load_recognizer};
use crate::terminal::say;
use crate::typed::whole;
use voxline::audio::{AudioChunk, FRAME_BYTES, FramePos};
use voxline::engine::{Latency, RecognitionRequest, Recognizer};
use voxline::session::Settings;
use voxline_gateway::Options;
use voxline_support::clock::{cpu_time, now};

/// Frames in a packet as sent by a telephone or browser: 100 ms.
const PACKET: usize = SAMPLE_RATE as usize / 10;
/// Frames of silence after a live recording, so that endpointing ends its last utterance: 2 s.
const SILENCE: usize = 2 * SAMPLE_RATE as usize;

#[derive(Args)]
pub(super) struct Arguments {
    /// Directory of recordings: NAME.wav (or mp3, flac, ...) with the transcript in NAME.txt, empty for
    /// silence; or transcripts.tsv with a line per recording: its file, a tab, its text
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    #[command(flatten)]
    recognition: RecognitionOptions,
    #[command(flatten)]
    hints: HintOptions,
    /// Number of recordings recognised at once
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = whole(1..=u16::MAX))]
    threads: u16,
    /// Send the recordings to the service in real time, and measure the latency of their text
    #[arg(long)]
    live: bool,
    /// Show the errors in each transcript: [-said-] {+heard+}
    #[arg(short, long)]
    verbose: bool,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(arguments: Arguments, common: Common) -> Result<Exit, CliError> {
    let Arguments { directory, recognition, hints, threads, live, verbose, json } = arguments;
    let hints = hints.settle()?;
    let config = common.load(Some(recognition))?;
    let embedded = matches!(config.service()?, Service::Embedded);
    if !embedded && !live {
        let reason = "a remote service is measured with --live only";
        return Err(CliError::new(Exit::Setup, reason));
    }
    let corpus = corpus::read(&directory)?;
    let threads = usize::from(threads);
    let (heard, cost) = if live {
        by_service(&config, &hints, &corpus, threads, embedded).await?
    } else {
        tokio::task::block_in_place(|| by_recognizer(&config, &hints, &corpus, threads))?
    };
    let model = embedded.then_some(config.model.as_str());
    let score =
        Score { model, language: config.language.as_deref(), threads, live, cost, corpus: &corpus, heard };
    if json {
        say(&format!("{}\n", score.json()))?;
    } else {
        say(&score.text(verbose))?;
    }
    Ok(Exit::Done)
}

/// Recognises all recordings in this process, as fast as possible.
fn by_recognizer(
    config: &Config,
    hints: &Hints,
    corpus: &[Item],
    threads: usize,
) -> Result<(Vec<Heard>, Cost), CliError> {
    let begun = now();
    let recognizer = load_recognizer(config)?;
    let loading = Some(begun.elapsed());
    let request = RecognitionRequest::from(&config.languages).latency(Latency::Relaxed);
    let request = hints.request(request);

    let (begun, cpu) = (now(), cpu_time());
    let next = AtomicUsize::new(0);
    let work = || {
        let mut heard = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = corpus.get(at) else { break };
            let listened = listen(&*recognizer, &request, item);
            // Stop the other threads.
            if listened.is_err() {
                next.store(corpus.len(), Ordering::Relaxed);
            }
            heard.push((at, listened?));
        }
        Ok::<_, CliError>(heard)
    };
    let heard = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut heard = Vec::new();
        for worker in workers {
            let panicked = |_| CliError::new(Exit::Setup, "a thread panicked");
            heard.extend(worker.join().map_err(panicked)??);
        }
        Ok::<_, CliError>(heard)
    });
    let cpu = cpu_time().zip(cpu).map(|(after, before)| after - before);
    let cost = Cost { loading, cpu, wall: Some(begun.elapsed()) };
    let mut heard = heard?;
    heard.sort_by_key(|(at, _)| *at);
    Ok((heard.into_iter().map(|(_, heard)| heard).collect(), cost))
}

fn listen(recognizer: &dyn Recognizer, request: &RecognitionRequest, item: &Item) -> Result<Heard, CliError> {
    let pcm = recording::samples(&recording::pcm(&item.path)?);
    let mut stream = recognizer.start(request)?;
    let mut heard = Heard { length: length(pcm.len()), ..Heard::default() };
    for packet in pcm.chunks(PACKET).map(Some).chain([None]) {
        let begun = now();
        let segments = match packet {
            Some(packet) => stream.push(packet)?,
            None => stream.flush()?,
        };
        let waited = begun.elapsed();
        for segment in segments.iter().filter(|segment| !segment.text.is_empty()) {
            heard.add(&segment.text);
            heard.waits.push(waited);
        }
    }
    Ok(heard)
}

/// Streams all recordings to the service, `threads` at once.
async fn by_service(
    config: &Config,
    hints: &Hints,
    corpus: &[Item],
    threads: usize,
    embedded: bool,
) -> Result<(Vec<Heard>, Cost), CliError> {
    let options = Options { max_sessions: threads, ..Options::default() };
    let connection = Connection::open_with(config, Need::Recognition, options).await?;
    let cpu = cpu_time().filter(|_| embedded);
    let speaking = stream::iter(corpus).map(|item| speak(&connection, config, hints, item));
    let heard = speaking.buffered(threads).try_collect().await;
    let cpu = cpu_time().zip(cpu).map(|(after, before)| after - before);
    connection.close().await;
    Ok((heard?, Cost { loading: None, cpu, wall: None }))
}

async fn speak(
    connection: &Connection,
    config: &Config,
    hints: &Hints,
    item: &Item,
) -> Result<Heard, CliError> {
    let path = item.path.clone();
    let read = tokio::task::spawn_blocking(move || recording::pcm(&path)).await;
    let mut pcm = read.map_err(|panic| CliError::new(Exit::Input, panic.to_string()))??;
    let mut heard = Heard { length: length(pcm.len() / FRAME_BYTES), ..Heard::default() };
    pcm.resize(pcm.len() + SILENCE * FRAME_BYTES, 0);
    let settings = |settings: &mut Settings| {
        settings.request.language.clone_from(&config.language);
        hints.set(&mut settings.request);
    };
    let Some(told) = live::speak(connection, settings, chunks(pcm.into())).await? else {
        return Err(CliError::new(Exit::Limit, "the service refuses more sessions: use fewer --threads"));
    };
    for (segment, late) in told.finals.iter().filter(|(segment, _)| !segment.text.is_empty()) {
        heard.add(&segment.text);
        heard.waits.push(*late);
    }
    heard.first_partials = told.first_partials;
    Ok(heard)
}

fn chunks(pcm: Bytes) -> impl Iterator<Item = AudioChunk> {
    let mut start = FramePos::ZERO;
    (0..pcm.len()).step_by(PACKET * FRAME_BYTES).map(move |at| {
        let payload = pcm.slice(at..pcm.len().min(at + PACKET * FRAME_BYTES));
        let range = start.to(start + (payload.len() / FRAME_BYTES) as u64);
        start = range.end;
        AudioChunk::new(range, payload)
    })
}

fn length(frames: usize) -> Duration {
    FramePos(frames as u64).time(SAMPLE_RATE)
}
