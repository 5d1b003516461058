//! Events per second through the session's state machine, without sockets: audio in, frames out,
//! acknowledgements and finals back, with positions, replay buffer and ledger kept, as in any session.

use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use voxline::audio::{AudioChunk, FramePos};
use voxline::auth::{AccessToken, TokenGeneration};
use voxline::protocol::{Final, Ready, Secret, ServerMessage};
use voxline::session::Settings;
use voxline::session::machine::{ConnectionId, Input, Machine, Output};

const CONNECTION: ConnectionId = ConnectionId(0);
/// 20 ms of telephone audio.
const CHUNK: u64 = 160;
/// A final every 5 s.
const CHUNKS_A_FINAL: u64 = 250;
/// Ten minutes.
const CHUNKS: u64 = 30_000;

/// Returns the inputs of an undisturbed session: every chunk is acknowledged, and every five seconds become
/// final.
fn happenings() -> Vec<Input> {
    let payload = Bytes::from(vec![0x55; 2 * CHUNK as usize]);
    let token = AccessToken::new(&"token".to_owned().into(), TokenGeneration(1)).expect("fits a header");
    let mut ready = Ready::new(FramePos::ZERO, 64 * 1024, 240_000).resumable(
        "session",
        Secret::from("key".to_owned()),
        Duration::from_secs(60),
    );
    ready.token_expires_in_ms = Some(3_600_000);
    ready.auth = true;
    let mut inputs = vec![
        Input::Tick,
        Input::Token(token),
        Input::Connected(CONNECTION),
        Input::Peer(CONNECTION, ServerMessage::Ready(ready)),
    ];
    let mut final_ = FramePos::ZERO;
    for number in 1..=CHUNKS {
        let end = FramePos(number * CHUNK);
        let range = FramePos(end.0 - CHUNK).to(end);
        inputs.push(Input::Audio(AudioChunk::new(range, payload.clone())));
        inputs.push(Input::Peer(CONNECTION, ServerMessage::Ack { received: end, final_ }));
        if number % CHUNKS_A_FINAL == 0 {
            let segment = Final::new(number / CHUNKS_A_FINAL - 1, final_.to(end), "");
            final_ = end;
            inputs.push(Input::Peer(CONNECTION, ServerMessage::Final(segment)));
        }
    }
    inputs
}

fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("machine");
    group.throughput(Throughput::Elements(happenings().len() as u64));
    group.bench_function("undisturbed", |b| {
        b.iter_batched(
            || (Machine::new(Settings::new(8_000).with_seed(0)), happenings()),
            |(mut machine, inputs)| {
                for (index, input) in inputs.into_iter().enumerate() {
                    machine.handle(input, Duration::from_millis(index as u64));
                    while let Some(output) = machine.poll_output() {
                        assert!(!matches!(output, Output::End(_)));
                        black_box(output);
                    }
                }
                assert_eq!(machine.ledger().recognised, CHUNKS * CHUNK);
            },
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
