//! `decode`: any recording as PCM, in files and pipes.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use voxline::audio::sample as samples;
use voxline::resample::frames_at;

use super::{MULAW, STEREO, assert_done, assert_misused, data, wav};
use crate::cli::{Place, assert_fails, path};
use voxline_fixtures::samples::{SAMPLES, sample};

fn s16le(pcm: &[i16]) -> Vec<u8> {
    pcm.iter().flat_map(|value| value.to_le_bytes()).collect()
}

#[test]
fn every_sample_becomes_a_wav_with_all_its_frames() {
    let place = Place::new();
    for (name, _, _, rate, _, frames) in SAMPLES {
        assert_done(&place.run(&["decode", path(&sample(name)), "-o", "out.wav"]));
        let (out_rate, channels, pcm) = wav(&place.path("out.wav"));
        let expected = frames_at(frames as u64, rate, 16_000);
        assert_eq!((out_rate, channels, pcm.len() as u64), (16_000, 1, expected), "{name}");
        assert!(pcm.iter().any(|value| value.unsigned_abs() > 1_000), "{name} is silent");
    }
}

#[test]
fn pcm_at_its_own_rate_comes_out_as_it_went_in() {
    let place = Place::new();
    let source = sample("source.wav");
    assert_done(&place.run(&["decode", path(&source), "--rate", "24000", "-o", "same.wav"]));
    assert!(wav(&place.path("same.wav")) == wav(&source));
    for rate in [8_000, 44_100] {
        assert_done(&place.run(&["decode", path(&source), "--rate", &rate.to_string(), "-o", "other.wav"]));
        let (out_rate, _, pcm) = wav(&place.path("other.wav"));
        assert_eq!((out_rate, pcm.len() as u64), (rate, frames_at(101_146, 24_000, rate)));
    }
}

#[test]
fn channels_are_mixed_chosen_or_kept_side_by_side() {
    let place = Place::new();
    let decoded = |channels: &str| {
        let source = sample(STEREO);
        let rate = ["--rate", "44100", "-o", "out.wav", "--channels", channels];
        assert_done(&place.run(&[&["decode", path(&source)], &rate[..]].concat()));
        let (_, channels, pcm) = wav(&place.path("out.wav"));
        (channels, pcm)
    };
    let (_, _, both) = wav(&sample(STEREO));
    let one = |channel: usize| both.iter().skip(channel).step_by(2).copied().collect::<Vec<i16>>();
    let mean = both
        .as_chunks()
        .0
        .iter()
        .map(|&[left, right]| samples::to_s16((samples::to_f32(left) + samples::to_f32(right)) / 2.0));
    let mean: Vec<i16> = mean.collect();
    assert_ne!(one(0), one(1));
    for (channels, expected) in [
        ("mix", (1, &mean)),
        ("left", (1, &one(0))),
        ("1", (1, &one(0))),
        ("right", (1, &one(1))),
        ("2", (1, &one(1))),
        ("split", (2, &both)),
    ] {
        let (count, pcm) = decoded(channels);
        assert!((count, &pcm) == expected, "{channels}");
    }
    let third = place.run(&["decode", path(&sample(STEREO)), "--channels", "3", "-o", "third.wav"]);
    assert_fails(&third, 3, &[STEREO, "no channel 3, only 2"]);
    assert!(!place.path("third.wav").exists());
    let mono = place.run(&["decode", path(&sample(MULAW)), "--channels", "right"]);
    assert_fails(&mono, 3, &[MULAW, "no channel 2, only 1"]);
    assert_misused(&place.run(&["decode", "x.wav", "--channels", "both"]), "both");
}

#[test]
fn every_format_holds_the_same_audio_in_files_and_pipes() {
    let place = Place::new();
    let source = sample("speech-44k1-stereo-vorbis.ogg");
    for channels in ["mix", "split"] {
        let decode = ["decode", path(&source), "--channels", channels];
        let piped = |format: &str| {
            let output = place.run(&[&decode[..], &["--format", format]].concat());
            assert_done(&output);
            output.stdout
        };
        let filed = |format: &str| {
            assert_done(&place.run(&[&decode[..], &["--format", format, "-o", "out"]].concat()));
            fs::read(place.path("out")).unwrap()
        };
        let s16 = piped("s16le");
        let planes = if channels == "mix" { 1 } else { 2 };
        assert_eq!(s16.len() as u64, 2 * planes * frames_at(185_856, 44_100, 16_000), "{channels}");
        assert!(s16 == filed("s16le"), "{channels}");

        let f32s = piped("f32le");
        assert!(f32s == filed("f32le"), "{channels}");
        let floats = f32s.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes));
        assert!(s16 == s16le(&floats.map(samples::to_s16).collect::<Vec<_>>()), "{channels}");

        // A file's header states the length; a pipe's header means "up to the end".
        let (file, pipe) = (filed("wav"), piped("wav"));
        assert!(data(&file) == s16 && data(&pipe) == s16, "{channels}");
        let length = |wav: &[u8]| u32::from_le_bytes(wav[40..44].try_into().unwrap());
        assert_eq!((length(&file), length(&pipe)), (s16.len() as u32, u32::MAX));
    }
}

#[test]
fn a_pipe_decodes_like_a_file() {
    let place = Place::new();
    for (name, ..) in SAMPLES {
        let file = place.run(&["decode", path(&sample(name))]);
        let mut pipe = place.command(&["decode", "-"]);
        let pipe = pipe.stdin(fs::File::open(sample(name)).unwrap()).output().unwrap();
        assert_done(&pipe);
        assert!(pipe.stdout == file.stdout, "{name}");
    }
    // The output pipe of one program is the input of another. A stream of unknown length is read to its
    // end.
    let wav = place.run(&["decode", path(&sample(MULAW))]).stdout;
    let mut again =
        place.command(&["decode", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = again.stdin.take().unwrap();
    let writer = std::thread::spawn({
        let wav = wav.clone();
        move || input.write_all(&wav).unwrap()
    });
    let again = again.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(again.stdout == wav);
}

#[test]
fn headerless_audio_is_what_it_is_said_to_be() {
    let place = Place::new();
    let telephone = fs::read(sample(MULAW)).unwrap();
    place.file("call.raw", data(&telephone));
    let raw = place.run(&["decode", "call.raw", "--raw", "mulaw"]);
    assert_done(&raw);
    assert!(raw.stdout == place.run(&["decode", path(&sample(MULAW))]).stdout);

    let stereo = fs::read(sample(STEREO)).unwrap();
    let mut piped = place.command(&["decode", "-", "--raw", "s16le:44100:2", "--channels", "right"]);
    place.file("stereo.raw", data(&stereo));
    let piped = piped.stdin(fs::File::open(place.path("stereo.raw")).unwrap()).output().unwrap();
    assert_done(&piped);
    assert!(piped.stdout == place.run(&["decode", path(&sample(STEREO)), "--channels", "right"]).stdout);

    assert_fails(&place.run(&["decode", "call.raw"]), 3, &["call.raw", "not a known audio format"]);
    assert_misused(&place.run(&["decode", "call.raw", "--raw", "s16le"]), "it has no rate");
    assert_misused(
        &place.run(&["decode", "call.raw", "--raw", "mp3:8000"]),
        "expected ENCODING:RATE:CHANNELS",
    );
}

#[test]
fn what_came_before_a_cut_is_written() {
    let place = Place::new();
    let whole = fs::read(sample("source.wav")).unwrap();
    place.file("cut.wav", &whole[..whole.len() / 2]);
    let frames = (data(&whole[..whole.len() / 2]).len() / 2) as u64;
    let stated = format!("cut.wav: is cut short at {:.3} s (frame {frames})", frames as f64 / 24_000.0);
    let cut = place.run(&["decode", "cut.wav", "--rate", "24000", "-o", "out.wav"]);
    assert_fails(&cut, 3, &[&stated, "expected 101146 frames"]);
    let (.., pcm) = wav(&place.path("out.wav"));
    let (.., original) = wav(&sample("source.wav"));
    assert!(pcm == original[..frames as usize]);
    // At another rate, the resampler's last frames are also written.
    let cut = place.run(&["decode", "cut.wav", "-o", "slow.wav"]);
    assert_fails(&cut, 3, &[&stated]);
    assert_eq!(wav(&place.path("slow.wav")).2.len() as u64, frames_at(frames, 24_000, 16_000));
}

#[test]
fn a_rate_nobody_can_use_is_a_mistake_in_the_command() {
    let place = Place::new();
    for rate in ["0", "7999", "192001", "16k"] {
        assert_misused(&place.run(&["decode", path(&sample(STEREO)), "--rate", rate]), "--rate");
    }
}

#[test]
fn silence_is_left_out_when_asked() {
    let place = Place::new();
    let sentence = data(&fs::read(sample("speech-16k-mono-s16.wav")).unwrap()).to_vec();
    let silence = vec![0; 3 * 32_000];
    place.file("slow.raw", [&silence[..], &sentence, &silence].concat());
    let slow = ["decode", "slow.raw", "--raw", "s16le:16000", "--skip-silence", "--format", "s16le"];
    let spoken = place.run(&slow);
    assert_done(&spoken);
    // Silence is left out except around speech: a chunk before it, and 0.3 s and the rest of a chunk
    // after it.
    let kept = spoken.stdout.len() - sentence.len().min(spoken.stdout.len());
    assert!(kept <= 32_000 / 2, "{kept} bytes of silence");
    assert!(spoken.stdout.len() * 10 >= sentence.len() * 9, "{} bytes", spoken.stdout.len());
    let slice = &sentence[32_000..64_000];
    assert!(
        spoken.stdout.windows(slice.len()).step_by(2).any(|window| window == slice),
        "speech is as it was"
    );

    assert_fails(&place.run(&[&slow[..], &["--rate", "8000"]].concat()), 2, &["--skip-silence", "16000 Hz"]);
}

#[test]
fn decoding_onto_the_recording_itself_is_refused() {
    let place = Place::new();
    let recording = fs::read(sample("source.wav")).unwrap();
    place.file("in.wav", &recording);
    std::os::unix::fs::symlink("in.wav", place.path("link.wav")).unwrap();
    for output in ["in.wav", "./in.wav", "link.wav"] {
        for format in ["wav", "s16le"] {
            let refused = place.run(&["decode", "in.wav", "-o", output, "--format", format]);
            assert_fails(&refused, 2, &[output, "recording itself"]);
        }
    }
    assert!(fs::read(place.path("in.wav")).unwrap() == recording);
    let full = place.run(&["decode", "in.wav", "-o", "/dev/full", "--format", "s16le"]);
    assert_fails(&full, 7, &["/dev/full", "No space left"]);
}
