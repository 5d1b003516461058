"""Starts the bridge wyoming-openai, a client of OpenAI's API, and calls it by Home Assistant's Wyoming client.
Prints the results as one JSON object.

Arguments: the gateway, two WAV files, a text to speak.
"""

import __future__
import asyncio
import importlib.machinery
import json
import os
import re
import sys
import wave

from wyoming.asr import Transcribe, Transcript, TranscriptChunk, TranscriptStart, TranscriptStop
from wyoming.audio import AudioChunk, AudioStart, AudioStop, wav_to_chunks
from wyoming.client import AsyncClient
from wyoming.info import Describe, Info
from wyoming.server import AsyncUnixServer
from wyoming.tts import (
    Synthesize,
    SynthesizeChunk,
    SynthesizeStart,
    SynthesizeStop,
    SynthesizeStopped,
    SynthesizeVoice,
)

gateway, *recordings, text = sys.argv[1:]
# One model for each way in which the bridge transcribes: by a request, by events, and by the Realtime API.
PLAIN, STREAMING, REALTIME = "whisper-1", "gpt-4o-transcribe", "gpt-live-transcribe"
VOICE = "nova"
SOCKET = os.path.abspath("bridge.sock")


class Untyped(importlib.machinery.SourceFileLoader):
    """Removes the type parameters of functions, which have no effect and which Python 3.11 can't parse."""

    def source_to_code(self, data, path, *, _optimize=-1):
        data = re.sub(rb"(def \w+)\[[^\]]+\]\(", rb"\1(", data)
        flags = __future__.annotations.compiler_flag
        return compile(data, path, "exec", flags, dont_inherit=True, optimize=_optimize)


if sys.version_info < (3, 12):
    hook = importlib.machinery.FileFinder.path_hook((Untyped, [".py"]))
    places = [os.path.join(place, "wyoming_openai") for place in sys.path]
    [package] = [place for place in places if os.path.isdir(place)]
    sys.path_importer_cache[package] = hook(package)

from wyoming_openai.__main__ import main as bridge  # noqa: E402


def start_bridge():
    """Returns the task of the bridge, and an event that tells that it listens."""
    is_ready = asyncio.Event()

    async def run(self, handler_factory):
        await self.start(handler_factory)
        is_ready.set()
        await asyncio.Event().wait()

    AsyncUnixServer.run = run
    address, key = f"{gateway}/v1", os.environ["OPENAI_API_KEY"]
    sys.argv = [
        "wyoming_openai", "--uri", f"unix://{SOCKET}", "--languages", "en",
        "--stt-openai-url", address, "--stt-openai-key", key,
        "--stt-models", PLAIN, "--stt-streaming-models", STREAMING, "--stt-realtime-models", REALTIME,
        "--tts-openai-url", address, "--tts-openai-key", key,
        "--tts-models", "gpt-4o-mini-tts", "--tts-streaming-models", "tts-1", "--tts-voices", VOICE,
    ]
    return asyncio.create_task(bridge()), is_ready


def client():
    return AsyncClient.from_uri(f"unix://{SOCKET}", read_timeout=60)


async def read_until(connection, *kinds):
    """Returns all events until the first of one of these kinds."""
    events = []
    while not events or not any(kind.is_type(events[-1].type) for kind in kinds):
        event = await connection.read_event()
        assert event is not None and event.type != "error", event
        events.append(event)
    return events


def audio_of(recording):
    with wave.open(recording, "rb") as file:
        return list(wav_to_chunks(file, 1_600, start_event=True, stop_event=True))


async def transcribe(model, recording):
    """Returns the transcript, and what its pieces add up to, if it comes in pieces."""
    async with client() as connection:
        await connection.write_event(Transcribe(name=model, language="en").event())
        for event in audio_of(recording):
            await connection.write_event(event.event())
        events = await read_until(connection, Transcript)
        pieces = None
        if any(TranscriptStart.is_type(event.type) for event in events):
            events += await read_until(connection, TranscriptStop)
            chunks = [event for event in events if TranscriptChunk.is_type(event.type)]
            pieces = "".join(TranscriptChunk.from_event(event).text for event in chunks)
        [whole] = [Transcript.from_event(event).text for event in events if Transcript.is_type(event.type)]
    return {"text": whole, "pieces": pieces}


def written(name, events):
    """Writes the speech of these events to a file, whose name is returned."""
    [start] = [AudioStart.from_event(event) for event in events if AudioStart.is_type(event.type)][:1]
    with wave.open(name, "wb") as file:
        file.setframerate(start.rate)
        file.setsampwidth(start.width)
        file.setnchannels(start.channels)
        for event in events:
            if AudioChunk.is_type(event.type):
                file.writeframes(AudioChunk.from_event(event).audio)
    return name


async def synthesize(voices):
    async with client() as connection:
        await connection.write_event(Synthesize(text, voice=SynthesizeVoice(name=voices[0])).event())
        whole = await read_until(connection, AudioStop)
    async with client() as connection:
        await connection.write_event(SynthesizeStart(voice=SynthesizeVoice(name=voices[-1])).event())
        for word in text.split(" "):
            await connection.write_event(SynthesizeChunk(f"{word} ").event())
        await connection.write_event(SynthesizeStop().event())
        in_pieces = await read_until(connection, SynthesizeStopped)
    return {"whole": written("whole.wav", whole), "pieces": written("pieces.wav", in_pieces)}


async def main():
    server, is_ready = start_bridge()
    await asyncio.wait({server, asyncio.create_task(is_ready.wait())}, return_when=asyncio.FIRST_COMPLETED)
    assert not server.done(), server.result()
    async with client() as connection:
        await connection.write_event(Describe().event())
        info = Info.from_event((await read_until(connection, Info))[0])
    models = [model.name for program in info.asr for model in program.models]
    voices = [voice.name for program in info.tts for voice in program.voices]
    results = {
        "models": models,
        "voices": voices,
        "transcribed": {
            model: [await transcribe(model, recording) for recording in recordings]
            for model in [PLAIN, STREAMING, REALTIME]
        },
        "spoken": await synthesize(voices),
    }
    results["heard"] = [await transcribe(PLAIN, file) for file in results["spoken"].values()]
    server.cancel()
    print(json.dumps(results))


asyncio.run(main())
