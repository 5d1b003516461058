"""Runs the transcriber of Vosk's package against servers. Prints its results as one JSON object.

Arguments: the program that decodes recordings, the servers, and the recordings, each separated by commas.
"""

import argparse
import asyncio
import json
import logging
import pathlib
import queue
import shlex
import sys
import types

# The package has it for subtitles alone, and the registry has no wheel of it.
sys.modules["srt"] = types.ModuleType("srt")

from vosk.transcriber.transcriber import SAMPLE_RATE, Transcriber  # noqa: E402

program, servers, recordings = sys.argv[1], sys.argv[2].split(","), sys.argv[3].split(",")


class Remote(Transcriber):
    """The transcriber without a model of its own, which it would load and not use."""

    def __init__(self, server):
        self.args = argparse.Namespace(server=server, output_type="txt", tasks=len(recordings))
        self.queue = queue.Queue()

    async def resample_ffmpeg_async(self, infile):
        """Decodes by voxline instead of ffmpeg."""
        assert SAMPLE_RATE == 16_000
        command = f"{shlex.quote(program)} decode {shlex.quote(infile)} --format s16le"
        return await asyncio.create_subprocess_shell(command, stdout=asyncio.subprocess.PIPE)


class Replies(logging.Handler):
    """Collects the replies of the server, which the transcriber logs."""

    def emit(self, record):
        if isinstance(record.msg, dict):
            replies.append(record.msg)


logging.getLogger().setLevel(logging.INFO)
logging.getLogger().addHandler(Replies())
results = []
for server in servers:
    replies = []
    outputs = [f"{index}.txt" for index in range(len(recordings))]
    Remote(server).process_task_list(list(zip(recordings, outputs)))
    texts = [pathlib.Path(output).read_text(encoding="utf-8") for output in outputs]
    results.append({"replies": replies, "texts": texts})
print(json.dumps(results))
