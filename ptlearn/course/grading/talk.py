"""Lines of JSON to and from a confined process: bounded in time and size, and read as data, never as code."""

import json
import os
import select
import time

from ptlearn.course.grading.sandbox import Confined

MOST_BYTES = 8 << 20  # that a request may be answered with


class Lost(Exception):
    """The confined process is dead, silent or talks too much; the arguments are a status and a line."""


class Talk:
    """A confined process that is talked to."""

    def __init__(self, confined: Confined):
        self.confined, self.buffer, self.room = confined, b"", MOST_BYTES

    def end(self) -> None:
        """Kill it, and whatever it has started."""
        self.confined.end()

    def send(self, what: dict) -> None:
        """One line of JSON; a process that no longer reads is found out by what it does not say."""
        self.room = MOST_BYTES
        try:
            self.confined.process.stdin.write(json.dumps(what).encode() + b"\n")
            self.confined.process.stdin.flush()
        except BrokenPipeError:
            pass

    def hear(self, until: float) -> dict:
        """The next thing that happens before a time; lines that are no JSON object are passed over."""
        while True:
            line, found, self.buffer = self.buffer.partition(b"\n")
            if found:
                try:
                    said = json.loads(line)
                except (ValueError, RecursionError):
                    continue
                if isinstance(said, dict):
                    return said
            else:
                self.buffer = line + self.read(until)

    def read(self, until: float) -> bytes:
        """More bytes. Raises: Lost where none come."""
        pipe = self.confined.process.stdout.fileno()
        left = until - time.monotonic()
        if left <= 0 or not select.select([pipe], [], [], left)[0]:
            raise Lost("timeout", "takes too long")
        data = os.read(pipe, 1 << 16)
        self.room -= len(data)
        if not data:
            raise Lost("crashed", "ends the process that runs it")
        if self.room < 0:
            raise Lost("crashed", f"gives more than {MOST_BYTES >> 20} MB")
        return data
