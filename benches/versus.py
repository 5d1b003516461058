#!/usr/bin/env python3
"""voxline decode against ffmpeg and sox, in CPU time and memory.

    benches/versus.py [MINUTES [PAIRS]]      default: 30 minutes of audio, 7 pairs

Any recording to 16 kHz mono s16le, output thrown away. Commands of a pair run one after the other, so that both meet
the same machine; the median of their ratios is what counts, never an absolute time. First a control: voxline against
itself must give 0.95 to 1.05, or the machine is too restless and nothing is measured.

Needs a release build (cargo build --release -p voxline-cli) and the packages in PACKAGES. The recordings are human speech from one of
them, made stereo by a second channel that is later and quieter.
"""

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGES = "ffmpeg sox time pocketsphinx-testdata"
SPEECH = Path("/usr/share/pocketsphinx/test/data/librivox")
VOXLINE = os.environ.get("VOXLINE_BIN", str(Path(__file__).parent.parent / "target/release/voxline"))

STEREO = "[0:a]asplit[l][r];[r]adelay=3,volume=0.8[d];[l][d]join=inputs=2:channel_layout=stereo,aresample=44100:resampler=soxr"

# name, file, how ffmpeg makes it from the stereo (s) or mono (m) original
FORMATS = [
    ("WAV 44.1k stereo", "wav44s.wav", "s", "-c:a pcm_s16le"),
    ("mu-law 8k", "ulaw8k.wav", "m", "-ar 8000 -c:a pcm_mulaw"),
    ("MP3 128k stereo", "mp3.mp3", "s", "-c:a libmp3lame -b:a 128k"),
    ("FLAC 44.1k stereo", "flac.flac", "s", "-c:a flac"),
    ("AAC-LC 128k stereo", "aac.m4a", "s", "-c:a aac -b:a 128k"),
    ("Vorbis q4 stereo", "vorbis.ogg", "s", "-c:a libvorbis -q:a 4"),
    ("Opus 64k 48k stereo", "opus.opus", "s", "-ar 48000 -c:a libopus -b:a 64k"),
    ("Opus voip 24k mono", "voip.opus", "m", "-c:a libopus -b:a 24k -application voip"),
]


def ours(file):
    return [VOXLINE, "decode", file, "--format", "s16le"]


def ffmpeg(file):
    return f"ffmpeg -v error -nostdin -threads 1 -i {file} -ac 1 -ar 16000 -f s16le -".split()


def ffmpeg_soxr(file):
    """ffmpeg with a resampler of the same quality; its own lets everything alias."""
    return f"ffmpeg -v error -nostdin -threads 1 -i {file} -ac 1 -af aresample=16000:resampler=soxr:precision=20 -f s16le -".split()


def sox(file):
    return f"sox {file} -t raw -e signed -b 16 -c 1 -r 16000 -".split()


def cpu(command):
    """User and system seconds of one run."""
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = status
    if status:
        sys.exit(f"{command[0]} failed: {' '.join(command)}")
    return usage.ru_utime + usage.ru_stime


def paired(one, other, pairs):
    """The ratios of CPU time, each from two runs side by side."""
    cpu(one)
    return [cpu(one) / cpu(other) for _ in range(pairs)]


def peak_kib(command):
    """The most memory of one run. time(1) is small, and a child counts what its parent had."""
    run = subprocess.run(["/usr/bin/time", "-f", "%M"] + command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    return int(run.stderr.split()[-1])


def make(seconds):
    """The recordings, in the current directory."""
    clips = sorted(SPEECH.glob("*.wav"))
    if not clips:
        sys.exit(f"apt-get install {PACKAGES}")
    Path("clips.txt").write_text("".join(f"file '{clip}'\n" for clip in clips))
    quiet = "ffmpeg -v error -nostdin -y".split()
    run = lambda arguments: subprocess.run(quiet + arguments, check=True)
    run("-f concat -safe 0 -i clips.txt -c copy clips.wav".split())
    run(f"-stream_loop -1 -i clips.wav -t {seconds} -ar 48000 -ac 1 m.wav".split())
    run(["-i", "m.wav", "-filter_complex", STEREO, "-t", str(seconds), "s.wav"])
    for _, file, original, how in FORMATS:
        run(["-i", f"{original}.wav"] + how.split() + [file])


def row(ratios):
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"


def main():
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 30
    pairs = int(sys.argv[2]) if len(sys.argv) > 2 else 7
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        make(minutes * 60)
        control = statistics.median(paired(ours("mp3.mp3"), ours("mp3.mp3"), pairs))
        print(f"control: {control:.3f}, load {os.getloadavg()[0]:.1f}", flush=True)
        if not 0.95 <= control <= 1.05:
            sys.exit("void: the machine is too restless")
        print("| input | CPU / ffmpeg | CPU / ffmpeg with soxr | CPU / sox | memory / ffmpeg |\n|---|---|---|---|---|")
        for name, file, _, _ in FORMATS:
            by_sox = "-" if file.endswith((".m4a", ".opus")) else row(paired(ours(file), sox(file), 3))
            memory = peak_kib(ours(file)) / peak_kib(ffmpeg(file))
            print(
                f"| {name} | {row(paired(ours(file), ffmpeg(file), pairs))} "
                f"| {row(paired(ours(file), ffmpeg_soxr(file), 3))} | {by_sox} | {memory:.3f} |",
                flush=True,
            )
        quiet = "ffmpeg -v error -nostdin -y -stream_loop -1 -i ulaw8k.wav -c copy".split()
        subprocess.run(quiet + "-t 60 short.wav".split(), check=True)
        subprocess.run(quiet + "-t 10800 long.wav".split(), check=True)
        print(f"peak memory: {peak_kib(ours('short.wav'))} KiB for 1 minute, {peak_kib(ours('long.wav'))} KiB for 3 hours")


main()
