#!/usr/bin/env python3
"""Long recordings and real repetitions: voxline at each accuracy against faster-whisper, on the same weights.

    benches/hearing.py [--seed N] [--minutes M] [--recordings N] [--repetitions N] [--languages en,ru] [--keep DIR]
                       [--voxline PATH] [--only NAME,NAME]

Long recordings: two speakers in turn, with pauses of 0.1 to 3 s between their sentences and faint noise throughout. English is
of the readings and the telephone prompts of samples/transcripts.tsv, Russian of its telephone prompts and of the sentences that
the voice of festvox-ru was made of. Repetitions: clips joined with themselves once and twice, with gaps of 0.05 to 1 s.

All engines hear the same recordings by turns, on one and the same core with one thread: voxline at the accuracies fast,
balanced and best, faster-whisper with a greedy search and with its beam of 5, each as it comes and with its filter by voice
activity. CPU time is of reading and recognising, without start and loading.

Errors are words as voxline counts them; a word is misheard unless it is only spelt otherwise, as "touchtone" and "touch tone",
"I'm" and "I am" are.

Exits with 1 where `balanced` mishears more words than the greedy search or takes more than half of its CPU time, where `best`
mishears more words than the beam of 5 or takes more than half of its CPU time, or where a repetition is told too few or too many
times. `./dev prove hearing` sees to the build, the models and the packages; the seed repeats a run.
"""

import argparse
import os
import random
import re
import sys
import tempfile
from pathlib import Path

import noise
import whisper as bench

RATE = noise.RATE
FESTVOX = Path("/usr/share/festival/voices/russian/msu_ru_nsh_clunits")
# The speakers of each language.
SPEAKERS = {"en": ("en-16k", "en-telephone"), "ru": ("festvox-ru", "ru-telephone")}
ACCURACIES = ("fast", "balanced", "best")
THEIRS = {
    "greedy": {"beam_size": 1},
    "greedy VAD": {"beam_size": 1, "vad_filter": True},
    "beam 5": {"beam_size": 5},
    "beam 5 VAD": {"beam_size": 5, "vad_filter": True},
}
# What each accuracy is measured by.
PEERS = {"balanced": "greedy", "best": "beam 5"}
# Pauses between sentences and gaps of repetitions, in seconds; noise throughout, in dB of full scale.
PAUSES = (0.1, 3.0)
GAPS = (0.05, 1.0)
HISS = -66
# Endings that are written with an apostrophe or as a word of their own, as in the normaliser of OpenAI's Whisper.
CONTRACTED = {"n't": " not", "'re": " are", "'s": " is", "'d": " would", "'ll": " will", "'ve": " have", "'m": " am"}


def festvox():
    """The sentences of the Russian voice that are of letters alone, with their recordings."""
    lines = (FESTVOX / "etc/txt.done.data").read_text().splitlines()
    for name, text in re.findall(r'\( (\S+) "(.*)" \)', "\n".join(lines)):
        path = FESTVOX / "wav" / f"{name}.wav"
        # A plus marks the stress.
        text = text.replace("+", "")
        if path.exists() and not re.search("[0-9a-zA-Z]", text):
            yield path, text


def speakers(place):
    """The clips of each speaker: (path, text)."""
    clips = {}
    for name, directory in bench.make_sets(place, list(bench.LANGUAGES)):
        lines = (directory / "transcripts.tsv").read_text().splitlines()
        clips[name] = [(Path(path), text) for path, text in (line.split("\t") for line in lines)]
    clips["festvox-ru"] = list(festvox())
    return clips


def long_recording(clips, minutes, dice):
    """Samples and text of the speakers in turn."""
    import numpy as np

    samples, said, length, turns, decks = [], [], 0, 0, [[] for _ in clips]
    while length < minutes * 60 * RATE:
        who = turns % len(clips)
        turns += 1
        # One to three sentences, of a deck that is shuffled when it is used up.
        for _ in range(dice.randint(1, 3)):
            if not decks[who]:
                decks[who] = dice.sample(clips[who], len(clips[who]))
            path, text = decks[who].pop()
            # As many short pauses as long ones.
            pause = PAUSES[0] * (PAUSES[1] / PAUSES[0]) ** dice.random()
            part = [noise.load(path), np.zeros(int(pause * RATE))]
            samples += part
            length += sum(len(piece) for piece in part)
            said.append(text)
    return np.concatenate(samples), " ".join(said)


def repetition(clip, rounds, dice):
    """Samples and text of a clip joined with itself."""
    import numpy as np

    path, text = clip
    samples, gap = noise.load(path), np.zeros(int(dice.uniform(*GAPS) * RATE))
    return np.concatenate([samples, *[gap, samples] * (rounds - 1), np.zeros(RATE)]), " ".join([text] * rounds)


def make(place, options):
    """The directory of each group, with the language and a dictionary of file to (text, rounds)."""
    import numpy as np

    clips, groups = speakers(place), {}
    for language in options.languages:
        # Each group has its own dice, so that one can be repeated without the others.
        names = SPEAKERS[language]
        dice = random.Random(f"long {language} {options.seed}")
        said = [(*long_recording([clips[name] for name in names], options.minutes, dice), 1) for _ in range(options.recordings)]
        groups[f"long {language}"] = language, said
        dice = random.Random(f"repetitions {language} {options.seed}")
        pool = [clip for name in names for clip in clips[name]]
        chosen = dice.sample(pool, min(options.repetitions, len(pool)))
        groups[f"repetitions {language}"] = language, [
            (*repetition(clip, rounds, dice), rounds) for clip in chosen for rounds in (2, 3)
        ]
    made = {}
    for name, (language, recordings) in groups.items():
        directory = place / name.replace(" ", "-")
        directory.mkdir()
        noises, texts = np.random.default_rng(options.seed), {}
        with open(directory / "transcripts.tsv", "w") as out:
            for at, (samples, text, rounds) in enumerate(recordings):
                file = directory / f"{at:02}.wav"
                noise.save(file, samples + noise.at_level(noises.standard_normal(len(samples)), HISS))
                out.write(f"{file}\t{text}\n")
                texts[str(file)] = text, rounds
        made[name] = directory, language, texts
    return made


def times_told(once, rounds, heard):
    """How often a text is told: as often as it has to be repeated to resemble what was heard most."""
    return min(range(rounds + 3), key=lambda times: bench.errors(" ".join([once] * times), heard))


def misheard(said, heard):
    """The least number of words to change, where "touchtone" is "touch tone" and "I'm" is "I am"."""
    for ending, word in CONTRACTED.items():
        said, heard = (re.sub(rf"{ending}\b", word, text.lower().replace("’", "'")) for text in (said, heard))
    said, heard = bench.words(said), bench.words(heard)
    rows = [list(range(len(heard) + 1))]
    for i, word in enumerate(said, 1):
        row = [i]
        for j, other in enumerate(heard, 1):
            least = min(rows[-1][j - 1] + (word != other), rows[-1][j] + 1, row[j - 1] + 1)
            if i > 1 and said[i - 2] + word == other:
                least = min(least, rows[-2][j - 1])
            if j > 1 and heard[j - 2] + other == word:
                least = min(least, rows[-1][j - 2])
            row.append(least)
        rows = [*rows[-1:], row]
    return rows[-1][-1]


def misjudged(texts, heard):
    """The repetitions that are told too few or too many times."""
    wrong = []
    for file, (text, rounds) in texts.items():
        spoken = text.split(" ")
        once = " ".join(spoken[: len(spoken) // rounds])
        if rounds > 1 and times_told(once, rounds, heard[file]) != rounds:
            wrong.append(file)
    return wrong


def main(options):
    failed = []
    with tempfile.TemporaryDirectory() as place:
        place = options.keep or Path(place)
        place.mkdir(exist_ok=True)
        theirs = bench.Theirs(bench.directory_for_theirs(options.model, place), options.core)
        print(f"benches/hearing.py --seed {options.seed} --minutes {options.minutes:g} --recordings {options.recordings} "
              f"--repetitions {options.repetitions} --languages {','.join(options.languages)}")
        print("| recordings | engine | WER | misheard | CPU / second | wrong repetitions |")
        print("|---|---|---|---|---|---|")
        for name, (directory, language, texts) in make(place, options).items():
            results, files = {}, list(texts)
            for accuracy in ACCURACIES:
                if accuracy in options.only:
                    cpu, seconds, heard = bench.ours(options, options.core, directory, language, "--accuracy", accuracy)
                    results[accuracy] = cpu / seconds, heard
            for engine, settings in THEIRS.items():
                if engine in options.only:
                    cpu, heard = theirs.hear(files, language, settings)
                    results[engine] = cpu / seconds, heard
            counted = {}
            for engine, (cost, heard) in results.items():
                wrong = misjudged(texts, heard)
                count = lambda errors: sum(errors(text, heard[file]) for file, (text, _) in texts.items())
                wer, counted[engine] = count(bench.errors), count(misheard)
                total = sum(len(bench.words(text)) for text, _ in texts.values())
                rate = f"{100 * wer / total:.1f} % ({wer} of {total}) | {counted[engine]}"
                print(f"| {name}, {seconds:.0f} s | {engine} | {rate} | {cost:.4f} | {len(wrong)} |", flush=True)
                if engine in ACCURACIES:
                    failed += [f"{engine}: {file}: {heard[file]}" for file in wrong]
                if options.keep:
                    (directory / f"heard-{engine}.tsv").write_text("".join(f"{file}\t{text}\n" for file, text in heard.items()))
            for accuracy, peer in PEERS.items():
                if name.startswith("long") and accuracy in results and peer in results:
                    share = results[accuracy][0] / results[peer][0]
                    print(f"{name}: {accuracy} takes {share:.2f} of the CPU time of {peer}")
                    if share > 0.5:
                        failed.append(f"{name}: {accuracy} takes {share:.2f} of the CPU time of {peer}")
                    if counted[accuracy] > counted[peer]:
                        failed.append(f"{name}: {accuracy} mishears {counted[accuracy]} words, {peer} {counted[peer]}")
        theirs.process.stdin.close()
    for line in failed:
        print(f"FAILED {line}")
    sys.exit(bool(failed))


def arguments():
    names = lambda text: text.split(",")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1, help="of the recordings (1)")
    parser.add_argument("--minutes", type=float, default=4, help="length of a long recording (4)")
    parser.add_argument("--recordings", type=int, default=3, help="long recordings of each language (3)")
    parser.add_argument("--repetitions", type=int, default=15, help="clips of each language that are repeated, as far as there are as many (15)")
    parser.add_argument("--languages", type=names, default=list(SPEAKERS), help="en,ru")
    parser.add_argument("--only", type=names, default=[*ACCURACIES, *THEIRS], help="engines by their names in the table (all)")
    parser.add_argument("--keep", type=Path, help="an empty directory in which to keep the recordings and what was heard")
    parser.add_argument("--model", default="whisper-base", help="a model in VOXLINE_MODELS (whisper-base)")
    parser.add_argument("--voxline", default=str(bench.ROOT / "target/release/voxline"), help="the program (target/release/voxline)")
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)), help="the core to run on (the last)")
    return parser.parse_args()


if __name__ == "__main__":
    bench.ENVIRONMENT = noise.ENVIRONMENT
    if Path(sys.prefix).resolve() != noise.ENVIRONMENT.resolve():
        arguments()
        noise.install()
    main(arguments())
