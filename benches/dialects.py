#!/usr/bin/env python3
"""Latency of live dialects beside our own protocol: the same speech, at its own pace, to one gateway.

    benches/dialects.py [--speakers 1,8] [--rounds N] [--voxline PATH] [--packages DIR]

Each round plays the readings of pocketsphinx' test data, with a second of silence after each, by `voxline.asr.v1`, by Deepgram's
`/v1/listen` and by OpenAI's Realtime, one protocol after the other. A final is counted from the end of its utterance, a first text
(partial, interim result or delta) from the beginning; the utterances and their ends are those of our own protocol. Without another
count, 1 speaker and 8 at once.

Exits with 1 where the median of the finals, or of Deepgram's first texts, comes more than 50 ms later than by our own protocol, or
where that of Realtime's first deltas comes more than 50 ms later than the second hypotheses by our own: append-only text needs two that
agree.

Needs a release build (or --voxline), whisper-base, the package pocketsphinx-testdata, and the clients that `./dev test` installs, for
their WebSockets.
"""

import argparse
import asyncio
import base64
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import wave
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
READINGS = sorted(Path("/usr/share/pocketsphinx/test/data/librivox").glob("*.wav"))
RATE = 16_000
# Length of a packet in seconds, and of the silence after each reading.
PACKET, SILENCE = 0.1, 1.0
# Time within which a dialect shall follow our own protocol, in seconds.
SLACK = 0.05


def speech():
    """All readings at 16 kHz, as bytes."""
    pcm = b""
    for path in READINGS:
        with wave.open(str(path), "rb") as file:
            assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (RATE, 1, 2), path
            pcm += file.readframes(file.getnframes())
        pcm += bytes(2 * int(SILENCE * RATE))
    return pcm


async def play(pcm, send):
    """Sends the audio at its own pace. Returns the time at which it began."""
    began, size = time.monotonic(), int(PACKET * RATE) * 2
    for number, at in enumerate(range(0, len(pcm), size), 1):
        # A packet is complete when its last sample has been spoken.
        await asyncio.sleep(max(0, began + number * PACKET - time.monotonic()))
        await send(pcm[at : at + size])
    return began


async def own(address, token, pcm):
    import websockets

    headers = {"Authorization": f"Bearer {token}"}
    async with websockets.connect(f"ws://{address}/asr_stream/ws", additional_headers=headers,
                                  subprotocols=["voxline.asr.v1"], max_size=None) as peer:
        await peer.send(json.dumps({"type": "start", "sample_rate": RATE, "language": "en"}))
        assert json.loads(await peer.recv())["type"] == "ready"
        heard = []

        async def listen():
            async for message in peer:
                now, message = time.monotonic(), json.loads(message)
                if message["type"] in ("partial", "final") and message["text"].strip():
                    heard.append((message["type"] == "final", now, message["start"] / RATE, message["end"] / RATE))
                if message["type"] == "done":
                    return

        position = [0]

        async def send(packet):
            await peer.send(position[0].to_bytes(8, "little") + packet)
            position[0] += len(packet) // 2

        listening = asyncio.create_task(listen())
        began = await play(pcm, send)
        await peer.send(json.dumps({"type": "finish", "through": len(pcm) // 2}))
        await listening
        return began, heard


async def deepgram(address, token, pcm):
    import websockets

    query = f"encoding=linear16&sample_rate={RATE}&interim_results=true&language=en"
    headers = {"Authorization": f"Token {token}"}
    async with websockets.connect(f"ws://{address}/v1/listen?{query}", additional_headers=headers, max_size=None) as peer:
        heard = []

        async def listen():
            async for message in peer:
                now, message = time.monotonic(), json.loads(message)
                if message["type"] == "Results" and message["channel"]["alternatives"][0]["transcript"].strip():
                    start = message["start"]
                    heard.append((message["is_final"], now, start, start + message["duration"]))

        listening = asyncio.create_task(listen())
        began = await play(pcm, peer.send)
        await peer.send(json.dumps({"type": "CloseStream"}))
        await listening
        return began, heard


async def realtime(address, token, pcm):
    import websockets

    headers = {"Authorization": f"Bearer {token}"}
    async with websockets.connect(f"ws://{address}/v1/realtime?intent=transcription", additional_headers=headers,
                                  max_size=None) as peer:
        audio = {"input": {"format": {"type": "audio/pcm", "rate": RATE}, "transcription": {"language": "en"}}}
        await peer.send(json.dumps({"type": "session.update", "session": {"type": "transcription", "audio": audio}}))
        heard, spoken, done = [], {}, asyncio.Event()
        kind = "conversation.item.input_audio_transcription."

        async def listen():
            async for message in peer:
                now, message = time.monotonic(), json.loads(message)
                assert message["type"] != "error", message
                if message["type"] == "input_audio_buffer.speech_started":
                    spoken.setdefault(message["item_id"], message["audio_start_ms"] / 1e3)
                if message["type"] in (kind + "delta", kind + "completed"):
                    is_final, start = message["type"].endswith("completed"), spoken.get(message["item_id"], 0)
                    if (message.get("transcript") if is_final else message.get("delta") or "").strip():
                        heard.append((is_final, now, start, None))
                    # The last reading has been told.
                    if is_final and now - began[0] > len(pcm) / 2 / RATE - SILENCE:
                        done.set()

        began = [time.monotonic()]
        listening = asyncio.create_task(listen())

        async def send(packet):
            append = {"type": "input_audio_buffer.append", "audio": base64.b64encode(packet).decode()}
            await peer.send(json.dumps(append))

        start = await play(pcm, send)
        await asyncio.wait_for(done.wait(), 30)
        listening.cancel()
        return start, heard


def latencies(began, heard, utterances):
    """Times of the finals after the ends of their utterances, and of the first and the second texts after the beginnings, in
    seconds."""
    finals, firsts, seconds, texts = [], [], [], []
    for is_final, at, *_ in heard:
        if not is_final:
            texts.append(at - began)
            continue
        if len(finals) == len(utterances):
            return [], [], []
        start, end = utterances[len(finals)]
        finals.append(at - began - end)
        firsts += [texts[0] - start] if texts else []
        seconds += [texts[1] - start] if len(texts) > 1 else []
        texts = []
    return (finals, firsts, seconds) if len(finals) == len(utterances) else ([], [], [])


PROTOCOLS = {"voxline.asr.v1": own, "Deepgram": deepgram, "Realtime": realtime}


async def measure(address, token, speakers, rounds):
    pcm = speech()
    measured = {name: ([], [], []) for name in PROTOCOLS}
    for _ in range(rounds):
        utterances = None
        for name, protocol in PROTOCOLS.items():
            streams = await asyncio.gather(*[protocol(address, token, pcm) for _ in range(speakers)])
            # Of our own protocol, which comes first. All hear the same, so their finals are as many.
            utterances = utterances or [ends for is_final, _, *ends in streams[0][1] if is_final]
            for began, heard in streams:
                parts = latencies(began, heard, utterances)
                assert parts[0], f"{name}: other finals than by our own protocol"
                for times, more in zip(measured[name], parts):
                    times += more
    return measured


def judge(speakers, measured):
    failed, base = [], [statistics.median(times) for times in measured["voxline.asr.v1"]]
    for name, parts in measured.items():
        medians = [statistics.median(times) for times in parts]
        last = [sorted(times)[len(times) * 19 // 20] for times in parts]
        print(f"| {speakers} | {name} | {medians[0]:.2f} s, {last[0]:.2f} s | {medians[1]:.2f} s, {last[1]:.2f} s | "
              f"{medians[2]:.2f} s | {len(parts[0])}, {len(parts[1])} |", flush=True)
        followed = (base[0], base[2] if name == "Realtime" else base[1])
        for what, median, own_median in zip(("finals", "first texts"), medians, followed):
            if median > own_median + SLACK:
                failed.append(f"{speakers} speakers, {name}: {what} after {median:.2f} s, ours after {own_median:.2f} s")
    return failed


def main(options):
    sys.path.insert(0, str(options.packages))
    failed = []
    with tempfile.TemporaryDirectory() as place, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = "127.0.0.1:%d" % free.getsockname()[1]
        free.close()
        run = lambda *words: subprocess.run([options.voxline, *words, "--state", place], check=True, capture_output=True, text=True)
        run("gateway", "project", "create", "bench")
        token = run("gateway", "service-token", "create", "bench").stdout.split()[-1]
        serving = subprocess.Popen([options.voxline, "serve", "--state", place, "--listen", address], stderr=subprocess.DEVNULL)
        try:
            while True:
                assert serving.poll() is None, "the gateway ended"
                try:
                    urllib.request.urlopen(f"http://{address}/readyz").close()
                    break
                except (urllib.error.URLError, ConnectionError):
                    time.sleep(0.1)
            print("| speakers | protocol | finals: median, 95 % | first text: median, 95 % | second | of |")
            print("|---|---|---|---|---|---|")
            for speakers in options.speakers:
                failed += judge(speakers, asyncio.run(measure(address, token, speakers, options.rounds)))
        finally:
            serving.terminate()
            serving.wait()
    for line in failed:
        print(f"FAILED {line}")
    sys.exit(bool(failed))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--speakers", type=lambda text: [int(part) for part in text.split(",")], default=[1, 8], help="at once (1,8)")
    parser.add_argument("--rounds", type=int, default=3, help="times that all is played (3)")
    parser.add_argument("--voxline", default=str(ROOT / "target/release/voxline"), help="the program (target/release/voxline)")
    parser.add_argument("--packages", type=Path, default=ROOT / "target/client-sdks", help="where websockets is (target/client-sdks)")
    main(parser.parse_args())
