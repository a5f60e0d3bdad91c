"""How far requests are, for clients that ask while they wait: /v1/progress."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

Stage = Literal["uploading", "waiting", "reading", "outlining", "answering"]


class Progress:
    """How far one request is. The event loop and the thread that works on it write, others read single values."""

    def __init__(self, size: int | None = None):
        self.stage: Stage = "uploading"
        self.received = 0  # bytes of the upload
        self.size = size  # bytes that it has in all; None if the client did not say
        self.slices = 0  # of the case; 0 until it is read
        self.slices_done = 0

    def outline(self, done: int, slices: int) -> None:
        self.stage, self.slices_done, self.slices = "outlining", done, slices


class ProgressBoard:
    """The requests in work by their ids, each as long as it lasts."""

    def __init__(self) -> None:
        self._known: dict[str, Progress] = {}

    @contextmanager
    def follow(self, identity: str, progress: Progress) -> Iterator[None]:
        """Show ``progress`` for the block. If two requests have one id, the first one is shown."""
        shown = self._known.setdefault(identity, progress)
        try:
            yield
        finally:
            if shown is progress:
                del self._known[identity]

    def find(self, identity: str) -> Progress | None:
        return self._known.get(identity)
