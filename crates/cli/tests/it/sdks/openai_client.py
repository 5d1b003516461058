"""Calls the methods of OpenAI's client that the gateway serves. Prints their results as one JSON object.

Arguments: the gateway, a stereo recording, a recording with a pause, a Russian recording, a text to speak,
two files with PCM at 24 kHz.
"""

import base64
import json
import pathlib
import sys

import openai

gateway, stereo, pause, russian, text, *utterances = sys.argv[1:]
# Failures are not hidden by retries, and a field that is missing is an error, as it is not by default.
options = {"base_url": f"{gateway}/v1", "max_retries": 0, "_strict_response_validation": True}
client = openai.OpenAI(**options)
# Size of a tenth of a second.
PIECE = 4_800


def transcribe(recording, **fields):
    with open(recording, "rb") as file:
        return client.audio.transcriptions.create(file=file, model="whisper-1", **fields)


def translate(**fields):
    return client.audio.translations.create(file=pathlib.Path(russian), model="whisper-1", **fields)


def speak(response_format, **fields):
    """Writes a speech to a file, whose name is returned, while it arrives."""
    name = f"speech-{'-'.join(map(str, fields.values()))}.{response_format}"
    with client.audio.speech.with_streaming_response.create(
        model="gpt-4o-mini-tts", voice="onyx", input=text, response_format=response_format, **fields
    ) as answer:
        answer.stream_to_file(name)
    return name


def failure(call):
    """Returns the error that a call ends with."""
    try:
        call()
    except openai.APIStatusError as error:
        return {
            "class": type(error).__name__,
            "status": error.status_code,
            "param": error.param,
            "request": error.request_id,
        }
    return None


def realtime():
    """Sends two utterances by a short-lived key. It commits the first; the end of the second is detected."""
    secret = client.realtime.client_secrets.create(
        expires_after={"anchor": "created_at", "seconds": 60},
        session={
            "type": "transcription",
            "audio": {
                "input": {
                    "format": {"type": "audio/pcm", "rate": 24_000},
                    "transcription": {"model": "gpt-4o-transcribe", "language": "en"},
                    "turn_detection": None,
                }
            },
        },
    )
    page = openai.OpenAI(**options, api_key=secret.value)
    events = []

    def read_until(kind):
        events.append(connection.recv().to_dict())
        while events[-1]["type"] != kind:
            events.append(connection.recv().to_dict())

    def append(pcm):
        for start in range(0, len(pcm), PIECE):
            connection.input_audio_buffer.append(audio=base64.b64encode(pcm[start : start + PIECE]).decode())

    first, second = (pathlib.Path(name).read_bytes() for name in utterances)
    with page.realtime.connect(extra_query={"intent": "transcription"}) as connection:
        append(first)
        connection.input_audio_buffer.commit(event_id="whole")
        read_until("conversation.item.input_audio_transcription.completed")
        connection.input_audio_buffer.commit(event_id="empty")
        read_until("error")
        connection.session.update(
            session={"type": "transcription", "audio": {"input": {"turn_detection": {"type": "server_vad"}}}}
        )
        read_until("session.updated")
        append(second + bytes(20 * PIECE))
        read_until("conversation.item.input_audio_transcription.completed")
        append(first)
        connection.input_audio_buffer.clear()
        read_until("input_audio_buffer.cleared")
    return {"secret": secret.to_dict(), "events": events, "refusal": failure(page.models.list)}


models = [model.to_dict() for model in client.models.list()]
results = {
    "models": models,
    "model": client.models.retrieve(models[-1]["id"]).to_dict(),
    "default": transcribe(stereo).to_dict(),
    "json": transcribe(
        stereo, response_format="json", language="en", temperature=0, prompt="A meeting."
    ).to_dict(),
    "text": transcribe(stereo, response_format="text"),
    "srt": transcribe(pause, response_format="srt"),
    "vtt": transcribe(pause, response_format="vtt"),
    "verbose": transcribe(
        pause, response_format="verbose_json", timestamp_granularities=["word", "segment"]
    ).to_dict(),
    "diarized": transcribe(
        stereo, response_format="diarized_json", chunking_strategy="auto", known_speaker_names=["Ann"]
    ).to_dict(),
    "stream": [event.to_dict() for event in transcribe(pause, stream=True)],
    "translation": translate().to_dict(),
    "verbose_translation": translate(response_format="verbose_json").to_dict(),
    "speech": {name: speak(name) for name in ["mp3", "opus", "flac", "wav", "pcm"]},
    "fast_speech": speak("wav", speed=2.0),
    "default_speech": client.audio.speech.create(model="tts-1", voice="nova", input=text).read()[:2].hex(),
    "realtime": realtime(),
    "failures": {
        "key": failure(lambda: openai.OpenAI(**options, api_key="wrong").models.list()),
        "model": failure(lambda: client.models.retrieve("none")),
        "file": failure(lambda: client.audio.transcriptions.create(file=b"no recording", model="whisper-1")),
        "format": failure(lambda: speak("aac")),
    },
}
results["heard"] = transcribe(results["speech"]["wav"]).text
print(json.dumps(results))
