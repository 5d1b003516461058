#!/usr/bin/env python3
"""Speech in noise, and noise without speech: what voxline and faster-whisper (greedy) make of them, on the same weights.

    benches/noise.py [--seed N] [--ratios 20,15,10,5,0] [--noises white,pink] [--clips N] [--voxline PATH]

With speech: each recording of samples/transcripts.tsv, with a second of noise before and after it, in noise that has its mean
power divided by the ratio. A clip is lost where voxline hears nothing and faster-whisper something. Without speech: noise,
telephone tones and music, 60 s of each, loud and faint, and the tones on a line that hisses, too; there shall be no words.

Exits with 1 where a clip is lost at 5 dB or more, where more are at 0 dB than faster-whisper loses, where voxline makes more
errors in white noise, babble or beside one other speaker at 10 and 5 dB, or where a word is made up.

Needs a release build (or --voxline), the models and the packages of recordings; `./dev prove noise` sees to all of that.
faster-whisper and numpy come from their packages (noise-requirements.txt), into target/noise.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import wave
from pathlib import Path

import whisper as bench

ENVIRONMENT = bench.ROOT / "target/noise"
RATE = 16_000
MUSIC = Path("/usr/share/asterisk/moh")
# Speakers of Debian's telephone prompts.
ENGLISH, RUSSIAN = "en_US_f_Allison", "ru_RU_f_IvrvoiceRU"
# Noises and ratios in dB at which voxline shall make no more errors than faster-whisper.
JUDGED_NOISES, JUDGED_RATIOS = ("white", "babble", "speaker"), (10, 5)
# Seconds of each sound without speech.
SECONDS = 60
# Mean levels of these, in dB of full scale.
LEVELS = {"loud": -12, "faint": -30}
# The hiss of a line, in dB of full scale.
HISS = -50


def load(path):
    """The samples of a recording at 16 kHz, from -1 to 1."""
    import numpy as np

    with wave.open(str(path), "rb") as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32_768
        rate = file.getframerate()
    if rate == RATE:
        return samples
    # Band-limited: the spectrum, with silence above the old Nyquist frequency.
    wanted = len(samples) * RATE // rate
    return np.fft.irfft(np.fft.rfft(samples), wanted) * wanted / len(samples)


def save(path, samples):
    import numpy as np

    loudest = max(1.0, float(np.abs(samples).max()) / 0.98)
    with wave.open(str(path), "wb") as out:
        out.setparams((1, 2, RATE, 0, "NONE", ""))
        out.writeframes((samples / loudest * 32_767).astype("<i2").tobytes())


def shaped(gain):
    """White noise through a gain by frequency in Hz."""

    def noise(count, random):
        import numpy as np

        spectrum = np.fft.rfft(random.standard_normal(count))
        return np.fft.irfft(spectrum * gain(np.maximum(np.fft.rfftfreq(count, 1 / RATE), 20)), count)

    return noise


def tones(*partials, turns=(1,)):
    """Partials (Hz, level), on and off by turns in seconds."""

    def sound(count, random):
        import numpy as np

        time = np.arange(count) / RATE
        ends = np.cumsum(turns)
        is_on = np.searchsorted(ends, time % ends[-1], side="right") % 2 == 0
        return sum(level * np.sin(2 * np.pi * hz * time) for hz, level in partials) * is_on

    return sound


def fan(count, random):
    """Air, and the passing of blades with its harmonics."""
    air = shaped(lambda hz: 1 / (1 + hz / 400))(count, random)
    return air / air.std() + tones((118, 0.6), (236, 0.35), (354, 0.2))(count, random)


def people(number, *voices):
    """People at once, each saying prompts of these voices."""
    prompts = [path for voice in voices for path in sorted(Path(bench.SOUNDS, voice).glob("*.wav"))]
    prompts = [path for path in prompts if path.stat().st_size > 40_000]

    def sound(count, random):
        import numpy as np

        together = np.zeros(count)
        for _ in range(number):
            said = np.zeros(0)
            while len(said) < count:
                prompt = load(prompts[random.integers(len(prompts))])
                said = np.concatenate([said, prompt / prompt.std()])
            together += said[:count]
        return together

    return sound


def music(path):
    def sound(count, random):
        samples = load(path)
        start = int(random.integers(max(1, len(samples) - count)))
        return samples[start : start + count]

    return sound


def in_turn(seconds, *sounds):
    """One sound after the other."""

    def sound(count, random):
        import numpy as np

        each = int(seconds * RATE)
        parts = [sounds[at % len(sounds)](each, random) for at in range(-(-count // each))]
        return np.concatenate(parts)[:count]

    return sound


HUM = tones((50, 1), (100, 0.5), (150, 0.6), (250, 0.3), (350, 0.2), (450, 0.1))
NOISES = {
    "white": shaped(lambda hz: 1),
    "pink": shaped(lambda hz: hz**-0.5),
    "brown": shaped(lambda hz: 1 / hz),
    "fan": fan,
    "hum": HUM,
}
# ITU-T E.180, E.182 and Q.23, T.30.
TONES = {
    "dial US": tones((350, 1), (440, 1)),
    "dial Europe": tones((425, 1)),
    "busy US": tones((480, 1), (620, 1), turns=(0.5, 0.5)),
    "busy Europe": tones((425, 1), turns=(0.5, 0.5)),
    "busy Russia": tones((425, 1), turns=(0.35, 0.35)),
    "ringing US": tones((440, 1), (480, 1), turns=(2, 4)),
    "ringing Europe": tones((425, 1), turns=(1, 4)),
    "ringing UK": tones((400, 1), (450, 1), turns=(0.4, 0.2, 0.4, 2)),
    "special information": in_turn(1 / 3, tones((950, 1)), tones((1_400, 1)), tones((1_800, 1)), *[tones((1_000, 0))] * 3),
    "push buttons": in_turn(0.1, *[part for low, high in ((697, 1_209), (770, 1_336), (852, 1_477), (941, 1_336))
                                   for part in (tones((low, 1), (high, 1)), tones((1_000, 0)))]),
    "fax": tones((1_100, 1), turns=(0.5, 3)),
}


def pieces():
    return {f"music {path.stem}": music(path) for path in sorted(MUSIC.glob("*.wav"))}


def at_level(samples, decibels):
    return samples / max(samples.std(), 1e-9) * 10 ** (decibels / 20)


def with_speech(place, options):
    """Directories of recordings in noise, by language: (noise, ratio, file, what is said) of each."""
    import numpy as np

    noises = NOISES | {"tone": TONES["dial Europe"], "music": next(iter(pieces().values())), "babble": people(6, ENGLISH, RUSSIAN)}
    made = {}
    for name, directory in bench.make_sets(place, list(bench.LANGUAGES)):
        lines = (directory / "transcripts.tsv").read_text().splitlines()[: options.clips]
        # Not the speaker of the prompts themselves.
        noises["speaker"] = people(1, RUSSIAN if name == "en-telephone" else ENGLISH)
        for at, line in enumerate(lines):
            path, text = line.split("\t")
            speech = load(path)
            padded = np.concatenate([np.zeros(RATE), speech, np.zeros(RATE)])
            for noise in options.noises or noises:
                for ratio in options.ratios:
                    random = np.random.default_rng([options.seed, at])
                    sound = noises[noise](len(padded), random)
                    sound *= np.sqrt(np.mean(speech**2) / np.mean(sound**2)) * 10 ** (-ratio / 20)
                    target = place / f"noisy-{bench.LANGUAGES[name]}"
                    target.mkdir(exist_ok=True)
                    file = target / f"{noise}_{ratio}_{name}_{Path(path).stem}.wav"
                    save(file, padded + sound)
                    with open(target / "transcripts.tsv", "a") as out:
                        out.write(f"{file}\t{text}\n")
                    made.setdefault(bench.LANGUAGES[name], []).append((noise, ratio, str(file), text))
    return made


def without_speech(place, options):
    """A directory of recordings in which nobody speaks."""
    import numpy as np

    target = place / "nobody"
    target.mkdir()
    for name, sound in (NOISES | TONES | pieces()).items():
        for loudness, level in LEVELS.items():
            random = np.random.default_rng([options.seed, 99])
            samples = at_level(sound(SECONDS * RATE, random), level)
            save(target / f"{name}, {loudness}.wav", samples)
            if name in TONES and loudness == "loud":
                hiss = at_level(random.standard_normal(len(samples)), HISS)
                save(target / f"{name}, on a line.wav", samples + hiss)
    with open(target / "transcripts.tsv", "w") as out:
        for file in sorted(target.glob("*.wav")):
            out.write(f"{file}\t\n")
    return target


def rate(pairs):
    """The word error rate in percent."""
    total = sum(len(bench.words(said)) for said, _ in pairs)
    return 100 * sum(bench.errors(said, heard) for said, heard in pairs) / total


def main(options):
    failed = []
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        theirs = bench.Theirs(bench.directory_for_theirs(options.model, place), options.core)
        cells = {}
        for language, clips in with_speech(place, options).items():
            _, _, ours = bench.ours(options, options.core, place / f"noisy-{language}", language)
            _, other = theirs.hear([file for _, _, file, _ in clips], language, bench.OPTIONS["greedy"])
            for noise, ratio, file, text in clips:
                cells.setdefault((noise, ratio), []).append((text, ours[file], other[file]))
        theirs.process.stdin.close()
        print("| noise | dB | clips | lost | empty: voxline | empty: faster-whisper | WER: voxline | WER: faster-whisper |")
        print("|---|---|---|---|---|---|---|---|")
        for (noise, ratio), heard in cells.items():
            lost = sum(1 for _, ours, other in heard if not ours.strip() and other.strip())
            empty = [sum(1 for clip in heard if not clip[engine].strip()) for engine in (1, 2)]
            rates = [rate([(clip[0], clip[engine]) for clip in heard]) for engine in (1, 2)]
            print(f"| {noise} | {ratio} | {len(heard)} | {lost} | {empty[0]} | {empty[1]} | {rates[0]:.1f} % | {rates[1]:.1f} % |")
            if lost > (0 if ratio >= 5 else empty[1]):
                failed.append(f"{noise} at {ratio} dB: {lost} lost")
        for noise in JUDGED_NOISES:
            heard = [clip for ratio in JUDGED_RATIOS for clip in cells.get((noise, ratio), [])]
            ours, other = (sum(bench.errors(clip[0], clip[engine]) for clip in heard) for engine in (1, 2))
            print(f"{noise} at {' and '.join(map(str, JUDGED_RATIOS))} dB: {ours} errors, faster-whisper {other}")
            if ours > other:
                failed.append(f"{noise}: {ours} errors, faster-whisper {other}")
        if not options.noises:
            _, seconds, ours = bench.ours(options, options.core, without_speech(place, options), "auto")
            invented = {Path(file).stem: text for file, text in ours.items() if text.strip()}
            print(f"without speech: {len(ours)} sounds, {seconds:.0f} s, {sum(len(bench.words(text)) or 1 for text in invented.values())} words")
            failed += [f"{name}: {text}" for name, text in invented.items()]
    for line in failed:
        print(f"FAILED {line}")
    sys.exit(bool(failed))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1, help="of the noise (1)")
    parser.add_argument("--ratios", type=lambda text: [int(part) for part in text.split(",")], default=[20, 15, 10, 5, 0],
                        help="of speech to noise, in dB (20,15,10,5,0)")
    parser.add_argument("--noises", type=lambda text: text.split(","), help="only these, and nothing without speech (all)")
    parser.add_argument("--clips", type=int, help="only so many of each set (all)")
    parser.add_argument("--model", default="whisper-base", help="a model in VOXLINE_MODELS (whisper-base)")
    parser.add_argument("--voxline", default=str(bench.ROOT / "target/release/voxline"), help="the program (target/release/voxline)")
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)), help="the core to run on (the last)")
    return parser.parse_args()


def install():
    """faster-whisper and numpy, each file checked by its hash; then this program runs there."""
    python = ENVIRONMENT / "bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(ENVIRONMENT)], check=True)
    requirements = Path(__file__).with_name("noise-requirements.txt")
    quiet = "-m pip install --quiet --disable-pip-version-check --require-hashes -r".split()
    subprocess.run([str(python), *quiet, str(requirements)], check=True)
    os.execv(python, [str(python), *sys.argv])


if __name__ == "__main__":
    bench.ENVIRONMENT = ENVIRONMENT
    if Path(sys.prefix).resolve() != ENVIRONMENT.resolve():
        arguments()
        install()
    main(arguments())
