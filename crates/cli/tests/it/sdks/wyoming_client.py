"""Calls a Wyoming server by Home Assistant's package. Prints the results as one JSON object.

Arguments: the address of the server, two WAV files, a text to speak.
"""

import asyncio
import json
import pathlib
import sys
import wave

from wyoming.asr import Transcribe, Transcript, TranscriptChunk, TranscriptStart, TranscriptStop, VadSensitivity
from wyoming.audio import AudioChunk, AudioChunkConverter, AudioStart, AudioStop, wav_to_chunks
from wyoming.client import AsyncClient
from wyoming.error import Error
from wyoming.info import Describe, Info, SelectProgram
from wyoming.ping import Ping, Pong
from wyoming.tts import (
    Synthesize,
    SynthesizeChunk,
    SynthesizeStart,
    SynthesizeStop,
    SynthesizeStopped,
    SynthesizeTextFormat,
    SynthesizeVoice,
)

server, first, second, text = sys.argv[1:]
# Size of a tenth of a second, and of the pause that ends an utterance.
PIECE, PAUSE = 1_600, 24_000
KINDS = [
    Transcript, TranscriptStart, TranscriptChunk, TranscriptStop, AudioStart, AudioChunk, AudioStop,
    SynthesizeStopped, Error, Info, Pong,
]


def client():
    return AsyncClient.from_uri(server, connect_timeout=10, read_timeout=60)


async def read(connection):
    """Returns the next event as its class, or None at the end of the connection."""
    event = await connection.read_event()
    if event is None:
        return None
    return next(kind for kind in KINDS if kind.is_type(event.type)).from_event(event)


async def read_until(connection, kind):
    """Returns all events until the first of a kind."""
    events = [await read(connection)]
    while not isinstance(events[-1], (kind, Error, type(None))):
        events.append(await read(connection))
    return events


def told(events):
    return [{"class": type(event).__name__} | event.event().data for event in events]


def audio_of(recording):
    """Returns the events of a recording, without the end of the audio."""
    with wave.open(recording, "rb") as file:
        return list(wav_to_chunks(file, PIECE, start_event=True))


async def describe():
    async with client() as connection:
        await connection.write_event(SelectProgram("voxline").event())
        await connection.write_event(Ping("there?").event())
        pong = await read(connection)
        await connection.write_event(Describe().event())
        info = await read(connection)
    return {"pong": pong.text, "info": info.event().data}


async def transcribe():
    """Transcribes both recordings by one connection: as they are, and converted by the package."""
    async with client() as connection:
        request = Transcribe(
            language="en", context={"any": 1}, vad_sensitivity=VadSensitivity.RELAXED, transcript_names=["Ann"]
        )
        await connection.write_event(request.event())
        for event in audio_of(first):
            await connection.write_event(event.event())
        silence = AudioChunk(16_000, 2, 1, bytes(2 * PAUSE))
        await connection.write_event(silence.event())
        # The pause ends an utterance, whose text comes before the rest of the audio is sent.
        early = await read_until(connection, TranscriptChunk)
        for event in audio_of(second)[1:]:
            await connection.write_event(event.event())
        await connection.write_event(AudioStop().event())
        streamed = early + await read_until(connection, TranscriptStop)
        await connection.write_event(Transcribe(name="any").event())
        converter = AudioChunkConverter(rate=48_000, width=2, channels=2)
        for event in audio_of(second)[1:]:
            await connection.write_event(converter.convert(event).event())
        await connection.write_event(AudioStop().event())
        converted = await read_until(connection, TranscriptStop)
        await connection.write_event(AudioStart(16_000, 2, 1).event())
        await connection.write_event(silence.event())
        await connection.write_event(AudioStop().event())
        silent = await read_until(connection, Transcript)
    return {
        "early": told(early), "streamed": told(streamed), "converted": told(converted), "silent": told(silent)
    }


def written(name, events):
    """Writes the speech of these events to a file. Returns the file and what was told beside the audio."""
    start = events[0]
    assert isinstance(start, AudioStart), start
    chunks = [event for event in events if isinstance(event, AudioChunk)]
    with wave.open(name, "wb") as file:
        file.setframerate(start.rate)
        file.setsampwidth(start.width)
        file.setnchannels(start.channels)
        file.writeframes(b"".join(chunk.audio for chunk in chunks))
    others = [event for event in events if not isinstance(event, AudioChunk)]
    times = [(chunk.timestamp, chunk.milliseconds, chunk.rate) for chunk in chunks]
    return {"file": name, "rate": start.rate, "others": told(others), "times": times}


async def synthesize(voice):
    """Speaks a text by one connection: in a voice by its name, by its language, and in pieces."""
    async with client() as connection:
        named = Synthesize(text, voice=SynthesizeVoice(name=voice), text_format=SynthesizeTextFormat.TEXT)
        await connection.write_event(named.event())
        by_name = await read_until(connection, AudioStop)
        await connection.write_event(Synthesize(text, voice=SynthesizeVoice(language="en")).event())
        by_language = await read_until(connection, AudioStop)
        await connection.write_event(SynthesizeStart(voice=SynthesizeVoice(name=voice)).event())
        for word in text.split(" "):
            await connection.write_event(SynthesizeChunk(f"{word} ").event())
        # Home Assistant sends the whole text once more, for programs that take no pieces.
        await connection.write_event(Synthesize(text, voice=SynthesizeVoice(name=voice)).event())
        await connection.write_event(SynthesizeStop().event())
        in_pieces = await read_until(connection, SynthesizeStopped)
    return {
        "name": written("by_name.wav", by_name),
        "language": written("by_language.wav", by_language),
        "pieces": written("in_pieces.wav", in_pieces),
    }


async def heard(recording):
    """Returns the transcript of a speech."""
    async with client() as connection:
        for event in audio_of(recording) + [AudioStop()]:
            await connection.write_event(event.event())
        events = await read_until(connection, Transcript)
    return events[-1].text


async def failure(request):
    """Returns the error that a request ends with, and whether the connection ends after it."""
    async with client() as connection:
        await connection.write_event(request.event())
        error = await read(connection)
        return {"code": error.code, "text": error.text, "is_over": await read(connection) is None}


async def main():
    results = {
        "described": await describe(),
        "transcribed": await transcribe(),
        "spoken": await synthesize("joe"),
        "failures": {
            "voice": await failure(Synthesize(text, voice=SynthesizeVoice(name="none"))),
            "format": await failure(Synthesize(text, text_format=SynthesizeTextFormat.SSML)),
            "width": await failure(AudioStart(16_000, 4, 1)),
        },
    }
    results["heard"] = await asyncio.gather(
        *(heard(results["spoken"][name]["file"]) for name in ["name", "pieces"])
    )
    print(json.dumps(results))


asyncio.run(main())
