#!/usr/bin/env python3
"""voxline's recogniser against faster-whisper int8 (CTranslate2), on the same weights: CPU time and word errors.

    benches/whisper.py [--runs N] [--model NAME] [--sets SET,SET] [--voxline PATH]

Human recordings from Debian packages (samples/transcripts.tsv), each engine on one and the same core, with one thread, whole
recordings, language given. A run has every engine hear every set, one engine right after the other, so that they meet the
same machine; what counts is the median over the runs of their ratio, never an absolute time. CPU time is of reading and
recognising, without start and loading. Words are compared here as voxline does, which is checked against what it says itself.

Needs a release build (cargo build --release -p voxline-cli, or --voxline), the models (voxline models pull) and the packages of
recordings. faster-whisper comes from its package, into target/whisper-bench.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import wave
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / "target/whisper-bench"
FASTER_WHISPER = "faster-whisper==1.2.1"
MODELS = Path(os.environ.get("VOXLINE_MODELS") or Path.home() / ".cache/voxline/models")
SOUNDS = "/usr/share/asterisk/sounds"
POCKETSPHINX = Path("/usr/share/pocketsphinx/test/data")
LANGUAGES = {"en-16k": "en", "en-telephone": "en", "ru-telephone": "ru"}
# As a user who wants it fast would call it, and as it comes.
OPTIONS = {"greedy": {"beam_size": 1}, "defaults": {}}


def recording(name, clip, place):
    """The path of a clip; one without a header gets one."""
    if name == "en-telephone":
        return f"{SOUNDS}/en_US_f_Allison/{clip}.wav"
    if name == "ru-telephone":
        return f"{SOUNDS}/ru_RU_f_IvrvoiceRU/{clip}.wav"
    if clip.startswith("austen_"):
        return str(POCKETSPHINX / f"librivox/sense_and_sensibility_01_austen_64kb-{clip[7:]}.wav")
    path = place / f"{clip}.wav"
    with wave.open(str(path), "wb") as out:
        out.setparams((1, 2, 16_000, 0, "NONE", ""))
        out.writeframes((POCKETSPHINX / f"{clip}.raw").read_bytes())
    return str(path)


def make_sets(place, names):
    """A directory for each set, as `voxline bench asr` takes it."""
    for line in (ROOT / "samples/transcripts.tsv").read_text().splitlines():
        name, clip, text = (line.split("\t") + ["", ""])[:3]
        if name in names:
            (place / name).mkdir(exist_ok=True)
            with open(place / name / "transcripts.tsv", "a") as out:
                out.write(f"{recording(name, clip, place)}\t{text}\n")
    return [(name, place / name) for name in names]


ENGLISH = "zero one two three four five six seven eight nine ten eleven twelve".split()
RUSSIAN = "ноль один два три четыре пять шесть семь восемь девять десять одиннадцать двенадцать".split()


def words(text):
    """As voxline::wer::normal."""
    text = text.lower()
    names = RUSSIAN if re.search("[а-я]", text) else ENGLISH
    text = text.replace("ё", "е").replace("'", "").replace("’", "")
    plain = "".join(c if c.isalnum() else " " for c in text).split()
    spelt = {"mr": "mister", "mrs": "missus"} | {str(number): name for number, name in enumerate(names)}
    return [spelt.get(word, word) for word in plain]


def errors(said, heard):
    """The least number of words to change."""
    said, heard = words(said), words(heard)
    row = list(range(len(heard) + 1))
    for i, word in enumerate(said, 1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(heard, 1):
            diagonal, row[j] = row[j], min(diagonal + (word != other), row[j] + 1, row[j - 1] + 1)
    return row[-1]


def ours(arguments, core, directory, language, *flags):
    """What voxline hears: CPU seconds, and the text of each recording."""
    command = f"taskset -c {core} {arguments.voxline} bench asr {directory} --language {language} --json --threads 1".split()
    command += ["--model", arguments.model, "--models", str(MODELS), *flags]
    run = subprocess.run(command, stdout=subprocess.PIPE)
    if run.returncode:
        sys.exit(f"failed: {' '.join(command)}")
    told = json.loads(run.stdout)
    heard = {file["file"]: file["heard"] for file in told["files"]}
    counted = sum(errors(file["said"], file["heard"]) for file in told["files"])
    if counted != told["errors"]:
        sys.exit(f"{directory}: voxline counts {told['errors']} errors, this program {counted}")
    return told["cpu_s"], told["duration_s"], heard


class Theirs:
    """A process with faster-whisper loaded, on one core."""

    def __init__(self, model, core):
        command = ["taskset", "-c", str(core), str(ENVIRONMENT / "bin/python"), __file__, "--theirs", str(model)]
        # Its libraries have pools of threads of their own.
        environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)

    def hear(self, files, language, options):
        request = {"files": files, "language": language, "options": options}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            sys.exit("faster-whisper failed")
        answer = json.loads(answer)
        return answer["cpu_s"], answer["heard"]


def serve_theirs(model):
    """Inside that process: a line of JSON in, a line out."""
    from faster_whisper import WhisperModel, decode_audio

    whisper = WhisperModel(model, device="cpu", compute_type="int8", cpu_threads=1, local_files_only=True)
    for line in sys.stdin:
        request = json.loads(line)
        begun, heard = time.process_time(), {}
        for file in request["files"]:
            segments, _ = whisper.transcribe(decode_audio(file), language=request["language"], **request["options"])
            heard[file] = " ".join(segment.text.strip() for segment in segments)
        print(json.dumps({"cpu_s": time.process_time() - begun, "heard": heard}), flush=True)


def directory_for_theirs(model, place):
    """The model's directory, with the tokenizer.json that it lacks: faster-whisper would ask the hub for it."""
    directory = place / model
    directory.mkdir()
    for file in (MODELS / model).iterdir():
        (directory / file.name).symlink_to(file.resolve())
    if not (directory / "tokenizer.json").exists():
        made = ENVIRONMENT / f"{model}.tokenizer.json"
        if not made.exists():
            program = [str(ENVIRONMENT / "bin/python"), __file__, "--tokenizer", str(directory / "vocabulary.txt"), str(made)]
            subprocess.run(program, check=True)
        (directory / "tokenizer.json").symlink_to(made)
    return directory


def make_tokenizer(vocabulary, path):
    """A tokenizer out of its vocabulary. Byte-pair encodings number their pieces in the order in which they were joined, so a
    piece was joined of the two into which the earlier joins bring its characters."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    pieces = Path(vocabulary).read_text().split("\n")[:-1]
    ids = {piece: number for number, piece in enumerate(pieces)}
    end = ids["<|endoftext|>"]
    ranks, merges = {}, []
    for piece in pieces[:end]:
        parts = list(piece)
        while len(parts) > 2:
            rank, at = min((ranks.get(pair, end), at) for at, pair in enumerate(zip(parts, parts[1:])))
            if rank == end:
                break
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        if len(parts) == 2:
            ranks[tuple(parts)] = len(merges)
            merges.append(tuple(parts))
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(piece, normalized=False, special=True) for piece in pieces[end:]])
    assert all(tokenizer.token_to_id(piece) == number for piece, number in ids.items())
    tokenizer.save(path)


def install():
    """faster-whisper, in an environment of its own."""
    python = ENVIRONMENT / "bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(ENVIRONMENT)], check=True)
    quiet = "-m pip install --quiet --disable-pip-version-check".split()
    subprocess.run([str(python), *quiet, FASTER_WHISPER], check=True)


def row(name, seconds, said, runs, heard):
    """A line of the table: CPU time of a second of speech and word error rate of each, and the ratios."""
    total = sum(len(words(text)) for text in said.values())
    rate = lambda texts: 100 * sum(errors(text, texts[file]) for file, text in said.items()) / total
    median = lambda engine: statistics.median(run[engine] / seconds for run in runs if engine in run)
    ratios = [run["voxline"] / run["greedy"] for run in runs]
    cells = [f"{median(engine):.3f}, {rate(heard[engine]):.1f} %" for engine in ("voxline", "greedy", "defaults")]
    ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
    return f"| {name} | {seconds:.0f} s, {total} words | {' | '.join(cells)} | {ratio} |"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=5, help="how often each engine hears each set (5)")
    parser.add_argument("--model", default="whisper-base", help="a model in VOXLINE_MODELS (whisper-base)")
    parser.add_argument("--sets", help="sets of samples/transcripts.tsv (all; without ru-telephone for an English model)")
    parser.add_argument("--voxline", default=str(ROOT / "target/release/voxline"), help="the program (target/release/voxline)")
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)), help="the core to run on (the last)")
    arguments = parser.parse_args()
    install()
    names = arguments.sets.split(",") if arguments.sets else list(LANGUAGES)
    if arguments.model.endswith(".en") and not arguments.sets:
        names.remove("ru-telephone")
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        sets = make_sets(place, names)
        theirs = Theirs(directory_for_theirs(arguments.model, place), arguments.core)
        said = {name: dict(line.split("\t") for line in (directory / "transcripts.tsv").read_text().splitlines())
                for name, directory in sets}
        runs, seconds, heard = {name: [] for name in names}, {}, {name: {} for name in names}
        # The first run of each finds its caches cold; the beam search is no contender, and is measured once.
        for run in range(arguments.runs + 1):
            for name, directory in sets:
                files, language, costs = list(said[name]), LANGUAGES[name], {}
                costs["voxline"], seconds[name], heard[name]["voxline"] = ours(arguments, arguments.core, directory, language)
                costs["greedy"], heard[name]["greedy"] = theirs.hear(files, language, OPTIONS["greedy"])
                if run == 1:
                    costs["defaults"], heard[name]["defaults"] = theirs.hear(files, language, OPTIONS["defaults"])
                if run > 0:
                    runs[name].append(costs)
        theirs.process.stdin.close()
        print(f"{arguments.model}, {arguments.runs} runs, load {os.getloadavg()[0]:.1f}")
        print("| set | speech | voxline: CPU, WER | faster-whisper int8, greedy | its defaults (beam 5) | CPU / greedy |")
        print("|---|---|---|---|---|---|")
        for name in names:
            print(row(name, seconds[name], said[name], runs[name], heard[name]))
        pooled = [{engine: sum(runs[name][at][engine] for name in names) for engine in runs[names[0]][at]}
                  for at in range(arguments.runs)]
        merge = lambda parts: {file: text for part in parts for file, text in part.items()}
        everything = {engine: merge(heard[name][engine] for name in names) for engine in ("voxline", "greedy", "defaults")}
        print(row("all", sum(seconds.values()), merge(said.values()), pooled, everything))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--theirs", model]:
            serve_theirs(model)
        case ["--tokenizer", vocabulary, path]:
            make_tokenizer(vocabulary, path)
        case _:
            main()
