"""Calls the methods of Deepgram's client that the gateway serves. Prints their results as one JSON object.

Arguments: the gateway, a recording with two channels, two files with PCM at 16 kHz, a text to speak.
"""

import asyncio
import contextlib
import json
import pathlib
import sys
import threading

from deepgram import AsyncDeepgramClient, DeepgramClient
from deepgram.core.api_error import ApiError
from deepgram.core.events import EventType
from deepgram.environment import DeepgramClientEnvironment
from deepgram.listen.v1.types.listen_v1configure import ListenV1Configure
from deepgram.speak.v1.types.speak_v1text import SpeakV1Text
from websockets.exceptions import InvalidStatus

gateway = sys.argv[1]
recording, first, second = (pathlib.Path(name).read_bytes() for name in sys.argv[2:5])
text = sys.argv[5]
sockets = gateway.replace("http", "ws", 1)
environment = DeepgramClientEnvironment(base=gateway, production=sockets, agent=sockets, agent_rest=gateway)
client = DeepgramClient(environment=environment)
# Size of a tenth of a second.
PIECE = 3_200


def checked(answer):
    """Returns a message or an answer as a dictionary. The client itself accepts those that lack fields."""
    type(answer).model_validate(answer.model_dump())
    return {"class": type(answer).__name__} | answer.model_dump(mode="json")


def pieces(pcm, size=PIECE):
    return [pcm[start : start + size] for start in range(0, len(pcm), size)]


@contextlib.contextmanager
def kept_alive(socket):
    """Sends a KeepAlive every three seconds, as the service recommends: results may take longer than ten."""
    ended = threading.Event()

    def keep_alive():
        while not ended.wait(3):
            socket.send_keep_alive()

    thread = threading.Thread(target=keep_alive)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def live():
    """Sends two utterances to a socket that is read between them. Returns all messages."""
    messages = []

    def read_until(is_awaited):
        while True:
            messages.append(checked(socket.recv()))
            if is_awaited(messages[-1]):
                return

    with client.listen.v1.connect(
        model="nova-3", encoding="linear16", sample_rate=16_000, channels=1, interim_results=True,
        smart_format=True, vad_events=True, endpointing=300, utterance_end_ms=1_000, language="en-US",
    ) as socket:
        socket.send_keep_alive()
        socket.send_configure(ListenV1Configure(features={"numerals": True}))
        read_until(lambda message: message["class"] == "ListenV1ConfigureSuccess")
        audio = pieces(first)
        middle = len(audio) // 2
        for piece in audio[:middle]:
            socket.send_media(piece)
        with kept_alive(socket):
            read_until(lambda message: message["type"] == "Results" and not message["is_final"])
        for piece in audio[middle:]:
            socket.send_media(piece)
        with kept_alive(socket):
            socket.send_finalize()
            read_until(lambda message: message.get("from_finalize"))
            # Nothing is left to be said, which is answered, too.
            socket.send_finalize()
            read_until(lambda message: message.get("from_finalize"))
        # A pause ends the second utterance.
        for piece in pieces(second + bytes(20 * PIECE)):
            socket.send_media(piece)
        socket.send_close_stream()
        messages.extend(checked(message) for message in socket)
    return messages


async def multichannel():
    """Sends two channels, and hears of the messages by handlers."""
    messages, events = [], []
    frames = max(len(first), len(second)) // 2
    planes = [plane.ljust(2 * frames, b"\0") for plane in (first, second)]
    interleaved = b"".join(
        plane[2 * frame : 2 * frame + 2] for frame in range(frames) for plane in planes
    )
    async with AsyncDeepgramClient(environment=environment).listen.v1.connect(
        model="nova-3", encoding="linear16", sample_rate=16_000, channels=2, multichannel=True, punctuate=True
    ) as socket:
        for event in EventType:
            socket.on(event, lambda _, name=event.name: events.append(name))
        socket.on(EventType.MESSAGE, lambda message: messages.append(checked(message)))
        listening = asyncio.create_task(socket.start_listening())
        for piece in pieces(interleaved, 2 * PIECE):
            await socket.send_media(piece)
        await socket.send_close_stream()
        await listening
    return {"messages": messages, "events": list(dict.fromkeys(events))}


def container():
    """Sends a recording as it is, with a token as such."""
    bearer = DeepgramClient(environment=environment, access_token=client._client_wrapper.api_key)
    with bearer.listen.v1.connect(model="nova-3") as socket:
        for piece in pieces(recording):
            socket.send_media(piece)
        socket.send_close_stream()
        return [checked(message) for message in socket]


def granted():
    """Sends a recording with a short-lived key, which is of no use for anything but streams."""
    grants = [client.auth.v1.tokens.grant(), client.auth.v1.tokens.grant(ttl_seconds=60.0)]
    page = DeepgramClient(environment=environment, access_token=grants[1].access_token)
    with page.listen.v1.connect(model="nova-3", encoding="linear16", sample_rate=16_000) as socket:
        for piece in pieces(second):
            socket.send_media(piece)
        socket.send_close_stream()
        messages = [checked(message) for message in socket]
    refusal = failure(lambda: page.listen.v1.media.transcribe_file(request=recording, model="nova-3"))
    return {"grants": [checked(grant) for grant in grants], "messages": messages, "refusal": refusal}


def speak_live():
    """Speaks a text that comes in pieces: up to a flush, up to a clear, and up to the end."""
    messages = []

    def read(audio, message):
        if isinstance(message, bytes):
            audio.append(message)
        else:
            messages.append(checked(message))

    def read_until(kind):
        audio = []
        while not messages or messages[-1]["type"] != kind:
            read(audio, socket.recv())
        return b"".join(audio)

    with client.speak.v1.connect(
        model="aura-2-thalia-en", encoding="linear16", sample_rate=24_000
    ) as socket:
        for word in text.split(" "):
            socket.send_text(SpeakV1Text(type="Speak", text=f"{word} "))
        socket.send_flush()
        flushed = read_until("Flushed")
        socket.send_text(SpeakV1Text(type="Speak", text="Nobody should hear the end of this sentence"))
        socket.send_clear()
        cleared = read_until("Cleared")
        socket.send_text(SpeakV1Text(type="Speak", text=text))
        socket.send_close()
        audio = []
        for message in socket:
            read(audio, message)
    speeches = {"flushed": flushed, "closed": b"".join(audio)}
    rate = {"additional_query_parameters": {"sample_rate": 24_000}}
    heard = [
        checked(transcribe(request=pcm, model="nova-3", encoding="linear16", request_options=rate))
        for pcm in speeches.values()
    ]
    seconds = {name: len(pcm) / 48_000 for name, pcm in (speeches | {"cleared": cleared}).items()}
    return {"messages": messages, "heard": heard, "seconds": seconds}


def speak(encoding, **fields):
    """Writes a speech to a file, whose name is returned."""
    name = f"spoken-{'-'.join(map(str, fields.values()))}.{encoding}"
    speech = client.speak.v1.audio.generate(text=text, model="aura-2-thalia-en", encoding=encoding, **fields)
    pathlib.Path(name).write_bytes(b"".join(speech))
    return name


def failure(call):
    """Returns the error that a call ends with."""
    try:
        call()
    except ApiError as error:
        return {"status": error.status_code, "body": error.body}
    except InvalidStatus as error:
        # The client lets it through, unless websockets is older.
        return {"status": error.response.status_code, "body": json.loads(error.response.body)}
    return None


def connect_with(**fields):
    with DeepgramClient(environment=environment, api_key="wrong").listen.v1.connect(**fields):
        pass


transcribe = client.listen.v1.media.transcribe_file
results = {
    "live": live(),
    "multichannel": asyncio.run(multichannel()),
    "container": container(),
    "granted": granted(),
    "speak_live": speak_live(),
    "file": checked(
        transcribe(request=recording, model="nova-3", smart_format=True, utterances=True, paragraphs=True)
    ),
    "channels": checked(transcribe(request=iter(pieces(recording)), model="nova-3", multichannel=True)),
    "speech": {
        "wav": speak("linear16", container="wav", sample_rate=16_000),
        "pcm": speak("linear16", container="none", sample_rate=24_000),
        "mp3": speak("mp3"),
        "opus": speak("opus", container="ogg"),
        "flac": speak("flac", sample_rate=24_000),
    },
    "failures": {
        "key": failure(lambda: connect_with(model="nova-3")),
        "address": failure(lambda: client.listen.v1.media.transcribe_url(url="http://127.0.0.1/a.wav")),
        "voice": failure(lambda: list(client.speak.v1.audio.generate(text=text, model="none"))),
    },
}
spoken = pathlib.Path(results["speech"]["wav"]).read_bytes()
results["heard"] = checked(transcribe(request=spoken, model="nova-3"))
print(json.dumps(results))
