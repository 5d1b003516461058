//! Chunks are contiguous, of equal length, and hold the samples that were pushed.

use voxline::audio::{FramePos, sample};
use voxline::chunk::Chunker;

use voxline_fixtures::random::Random;

#[test]
fn chunks_are_equal_contiguous_and_complete_for_any_split() {
    let mut random =
        Random::for_test("front_end::chunk::chunks_are_equal_contiguous_and_complete_for_any_split");
    for _ in 0..200 {
        let size = 1 + random.below(700);
        let samples: Vec<i16> = (0..random.below(5_000)).map(|_| random.next() as i16).collect();
        let floats: Vec<f32> = samples.iter().map(|&s| sample::to_f32(s)).collect();
        let expected: Vec<u8> = samples.iter().flat_map(|s| s.to_le_bytes()).collect();

        let mut chunker = Chunker::new(size);
        let (mut chunks, mut at) = (Vec::new(), 0);
        while at < samples.len() {
            let end = (at + random.below(1_500)).min(samples.len());
            if random.below(2) == 0 {
                let mut rest = &floats[at..end];
                chunks.extend(std::iter::from_fn(|| chunker.push(&mut rest)));
                assert!(rest.is_empty());
            } else {
                let mut rest = &samples[at..end];
                chunks.extend(std::iter::from_fn(|| chunker.push_s16(&mut rest)));
                assert!(rest.is_empty());
            }
            assert_eq!(chunker.position(), FramePos(end as u64));
            at = end;
        }
        assert!(chunks.iter().all(|chunk| chunk.range().len() == size as u64));
        chunks.extend(chunker.finish());
        assert!(chunker.finish().is_none());

        assert_eq!(chunks.len(), samples.len().div_ceil(size));
        let mut position = FramePos::ZERO;
        for chunk in &chunks {
            assert_eq!(chunk.range().start, position);
            position = chunk.range().end;
        }
        assert_eq!(position, FramePos(samples.len() as u64));
        let payload: Vec<u8> = chunks.iter().flat_map(|chunk| chunk.payload().to_vec()).collect();
        assert!(payload == expected);
    }
}

#[test]
fn a_stream_of_whole_chunks_ends_without_an_empty_one() {
    let mut chunker = Chunker::new(3);
    let mut samples: &[f32] = &[0.0; 6];
    assert!(chunker.push(&mut samples).is_some());
    assert_eq!(samples.len(), 3);
    assert!(chunker.push(&mut samples).is_some());
    assert!(chunker.push(&mut samples).is_none());
    assert!(chunker.finish().is_none());
}

#[test]
fn a_chunk_that_is_kept_is_not_written_over() {
    let mut chunker = Chunker::new(4);
    let mut kept = Vec::new();
    for round in 0..200_i16 {
        let mut samples: &[i16] = &[round; 4];
        let chunk = chunker.push_s16(&mut samples).unwrap();
        // Some chunks live long, but most do not: their buffers are used again.
        if round % 7 == 0 {
            kept.push((round, chunk));
        }
    }
    for (round, chunk) in kept {
        assert_eq!(chunk.payload(), &[round; 4].map(i16::to_le_bytes).concat());
    }
}
