"""What schemathesis can't make up: tokens of tasks, clients that exist, and recordings. And what speech looks like."""

import os
import random
import struct

import requests
import schemathesis

URL, TOKEN, CLIENT, SECRET = (os.environ["FUZZ_" + name] for name in ("URL", "TOKEN", "CLIENT", "SECRET"))
chance = random.Random(1)


def recording():
    """A WAV of noise: mono mostly, and up to a second and a bit."""
    channels, rate = chance.choice([1, 1, 1, 2]), chance.choice([4_000, 8_000, 16_000, 16_000, 44_100])
    data = chance.randbytes(2 * channels * chance.randrange(0, rate + 100))
    head = struct.pack("<HHIIHH", 1, channels, rate, rate * channels * 2, channels * 2, 16)
    return b"RIFF%bWAVEfmt \x10\0\0\0%bdata%b%b" % (
        struct.pack("<I", 36 + len(data)), head, struct.pack("<I", len(data)), data)


def task():
    bearer = {"Authorization": "Bearer " + TOKEN}
    return requests.post(URL + "/asr_stream/create_task", headers=bearer, timeout=10).json()["result"]


@schemathesis.auth(cache_by_key=lambda case, context: str(chance.random())).apply_to(path_regex="add_chunk|get_result")
class TaskToken:
    """A task for each request; now and then it is asked for by its own id."""

    def get(self, case, context):
        return task()

    def set(self, case, data, context):
        case.headers = {**(case.headers or {}), "Authorization": "Bearer " + data["task_token"]}
        if isinstance(case.query, dict) and chance.random() < 0.8:
            if "task_id" in case.query:
                case.query["task_id"] = data["task_id"]
            if "chunk_num" in case.query and chance.random() < 0.5:
                case.query["chunk_num"] = chance.choice([0, 1])


@schemathesis.auth().apply_to(path=["/asr", "/tts", "/asr_stream/create_task", "/asr_stream/ws"])
class ServiceToken:
    def get(self, case, context):
        return TOKEN

    def set(self, case, data, context):
        case.headers = {**(case.headers or {}), "Authorization": "Bearer " + data}


@schemathesis.serializer("audio/wave", "audio/wav", "audio/ogg; codecs=opus", "application/octet-stream")
def recorded(context, value):
    noise = value if isinstance(value, bytes) else str(value).encode()
    return chance.choice([noise, recording(), recording(), recording()[:chance.randrange(100)]])


@schemathesis.deserializer("audio/l16", "audio/mpeg", "audio/ogg")
def spoken(context, response):
    """Speech is of the form that was asked for."""
    start = {"audio/l16": b"", "audio/mpeg": b"\xff\xf3", "audio/ogg": b"OggS"}
    content_type = response.headers["content-type"][0].split(";")[0]
    assert response.content.startswith(start[content_type]), (content_type, response.content[:4])
    return "speech"


@schemathesis.hook
def map_body(context, body):
    if context.operation.path.startswith("/auth/") and isinstance(body, dict) and chance.random() < 0.5:
        real = {"client_id": CLIENT, "client_secret": SECRET}
        return {name: real.get(name, value) for name, value in body.items()}
    return body
