//! Bytes of PCM carried to a gateway per second, over a WebSocket on loopback, for telephone packets and
//! for the chunks of the default pipeline. A measurement goes from the upgrade to the close of a session of
//! ten minutes: long enough that the fixed cost of a session weighs little.

mod loopback;

use bytes::Bytes;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tokio::sync::mpsc;
use voxline::audio::{AudioChunk, FRAME_BYTES, Feed, FramePos};

use crate::loopback::{Loopback, SAMPLE_RATE};

/// Ten minutes.
const FRAMES: u64 = 600 * SAMPLE_RATE as u64;

/// Returns the audio of a session, all in the channel before the session starts: only the sink is at work.
fn queued(chunk_frames: u64) -> mpsc::Receiver<Feed> {
    let payload = Bytes::from(vec![0x55; chunk_frames as usize * FRAME_BYTES]);
    let chunks = FRAMES / chunk_frames;
    let (sender, audio) = mpsc::channel(chunks as usize + 1);
    let queue = |feed| sender.try_send(feed).expect("the channel holds all");
    for start in (0..chunks).map(|index| FramePos(index * chunk_frames)) {
        queue(Feed::Audio(AudioChunk::new(start.to(start + chunk_frames), payload.clone())));
    }
    queue(Feed::End);
    audio
}

fn bench(c: &mut Criterion) {
    let loopback = Loopback::start();
    let mut group = c.benchmark_group("sink");
    group.sample_size(20);
    group.throughput(Throughput::Bytes(FRAMES * FRAME_BYTES as u64));
    for milliseconds in [20, 100] {
        let chunk_frames = u64::from(SAMPLE_RATE) * milliseconds / 1_000;
        group.bench_function(BenchmarkId::from_parameter(format!("{milliseconds} ms")), |b| {
            b.iter_batched(
                || queued(chunk_frames),
                |audio| assert_eq!(loopback.session(audio).recognised, FRAMES),
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
