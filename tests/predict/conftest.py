"""One process that decodes for all tests of the batch command: each would take a second to start its own."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from brainseg.inference.cases import Case
from brainseg.inference.decoding import Decoders
from brainseg.predict import batch


class SharedDecoders(Decoders):
    """Stays open when a run closes it."""

    def limit(self, _count: int, seconds: Callable[[int], float]) -> "SharedDecoders":
        self._seconds = seconds
        return self

    def read(self, path: Path, name: str, kind: str = "") -> Case:
        return super().read(path.absolute(), name, kind)  # it was started in another folder

    def close(self) -> None:
        pass


@pytest.fixture(scope="session")
def shared() -> Iterator[SharedDecoders]:
    decoders = SharedDecoders(1, lambda _: 60.0)
    yield decoders
    Decoders.close(decoders)


@pytest.fixture(autouse=True)
def use_shared(shared, monkeypatch):
    monkeypatch.setattr(batch, "Decoders", shared.limit)
