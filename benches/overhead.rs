//! Overhead of a session over a bare WebSocket: the CPU time of all threads, client and gateway together,
//! of a session with ledger, replay buffer and positions, and of a client that only sends the same frames
//! and reads the answers. Both are measured in the same run; the ratio of pairs is printed at the end.
#![allow(clippy::print_stdout, reason = "the ratio is what it is for")]

mod loopback;

use std::fs;
use std::time::Duration;

use bytes::Bytes;
use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tokio::sync::mpsc;
use voxline::audio::{AudioChunk, FRAME_BYTES, Feed, FramePos};

use crate::loopback::{Loopback, SAMPLE_RATE};

/// Ten minutes in chunks of 100 ms.
const FRAMES: u64 = 600 * SAMPLE_RATE as u64;
const CHUNK: u64 = SAMPLE_RATE as u64 / 10;
/// Number of pairs for the ratio.
const PAIRS: usize = 21;

/// CPU time of this process, as the scheduler has counted it.
struct CpuTime;

impl CpuTime {
    fn now() -> u64 {
        let tasks = fs::read_dir("/proc/self/task").expect("Linux tells of threads");
        let spent = |task: fs::DirEntry| -> Option<u64> {
            // A thread may end meanwhile.
            let line = fs::read_to_string(task.path().join("schedstat")).ok()?;
            line.split(' ').next()?.parse().ok()
        };
        tasks.filter_map(|task| spent(task.ok()?)).sum()
    }
}

impl Measurement for CpuTime {
    type Intermediate = u64;
    type Value = u64;

    fn start(&self) -> u64 {
        CpuTime::now()
    }

    fn end(&self, start: u64) -> u64 {
        CpuTime::now() - start
    }

    fn add(&self, one: &u64, other: &u64) -> u64 {
        one + other
    }

    fn zero(&self) -> u64 {
        0
    }

    fn to_f64(&self, nanos: &u64) -> f64 {
        *nanos as f64
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

fn chunks() -> impl Iterator<Item = AudioChunk> {
    let payload = Bytes::from(vec![0x55; CHUNK as usize * FRAME_BYTES]);
    (0..FRAMES / CHUNK).map(move |index| {
        let start = FramePos(index * CHUNK);
        AudioChunk::new(start.to(start + CHUNK), payload.clone())
    })
}

fn queued() -> mpsc::Receiver<Feed> {
    let (sender, audio) = mpsc::channel((FRAMES / CHUNK) as usize + 1);
    for feed in chunks().map(Feed::Audio).chain([Feed::End]) {
        sender.try_send(feed).expect("the channel holds all");
    }
    audio
}

fn session(loopback: &Loopback) {
    assert_eq!(loopback.session(queued()).recognised, FRAMES);
}

fn bare(loopback: &Loopback) {
    assert_eq!(loopback.bare(chunks()), FRAMES);
}

fn bench(c: &mut Criterion<CpuTime>) {
    let loopback = Loopback::start();
    let mut group = c.benchmark_group("overhead");
    group.sample_size(20).measurement_time(Duration::from_secs(5));
    group.throughput(Throughput::Bytes(FRAMES * FRAME_BYTES as u64));
    group.bench_function("session", |b| {
        b.iter(|| session(&loopback));
    });
    group.bench_function("bare", |b| b.iter(|| bare(&loopback)));
    group.finish();
    let spent = |run: fn(&Loopback)| {
        let start = CpuTime::now();
        run(&loopback);
        (CpuTime::now() - start) as f64
    };
    let mut ratios: Vec<f64> = (0..PAIRS).map(|_| spent(session) / spent(bare)).collect();
    ratios.sort_by(f64::total_cmp);
    let (least, median, most) = (ratios[0], ratios[PAIRS / 2], ratios[PAIRS - 1]);
    println!(
        "CPU of a session over that of a bare client: {median:.2} ({least:.2}-{most:.2}, {PAIRS} pairs)"
    );
}

criterion_group!(name = benches; config = Criterion::default().with_measurement(CpuTime); targets = bench);
criterion_main!(benches);
