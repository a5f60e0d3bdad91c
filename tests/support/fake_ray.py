"""Ray's calls without Ray: a task runs in this process, or tells what a test has written down for it."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any


class RayError(Exception):
    pass


class NodeDiedError(RayError):
    pass


class TaskCancelledError(RayError):
    pass


class WorkerCrashedError(RayError):
    pass


class OutOfMemoryError(RayError):
    pass


class OutOfDiskError(RayError):
    pass


class RayTaskError(RayError):
    def __init__(self, cause: Exception):
        self.cause = cause
        super().__init__(str(cause))


class Reference:
    """What ``get`` gets."""

    def __init__(self, value: Any):
        self.value = value


class FakeRay:
    """``script``: for each call of ``run`` in turn what it tells, an exception where it ends so; without one it runs.

    ``calls``: the name, the options and the arguments of each call.
    """

    exceptions = SimpleNamespace(
        RayError=RayError,
        NodeDiedError=NodeDiedError,
        TaskCancelledError=TaskCancelledError,
        RayTaskError=RayTaskError,
        WorkerCrashedError=WorkerCrashedError,
        OutOfMemoryError=OutOfMemoryError,
    )
    util = SimpleNamespace(
        scheduling_strategies=SimpleNamespace(NodeAffinitySchedulingStrategy=lambda node, soft: (node, soft))
    )

    def __init__(self, *script: list[Any]):
        self.script, self.calls, self.cancelled, self.waited = list(script), [], [], []
        self.alive, self.is_shut_down = {"node1": True}, False

    def nodes(self) -> list[dict[str, Any]]:
        return [{"NodeID": name, "Alive": alive, "Resources": {"CPU": 2.0}} for name, alive in self.alive.items()]

    def put(self, value: Any) -> Any:
        return Reference(value)

    def get(self, reference: Any) -> Any:
        if isinstance(reference.value, Exception):
            raise reference.value
        return reference.value

    def cancel(self, task: Any, *, force: bool = False) -> None:
        self.cancelled.append(task)

    def wait(self, references: list[Any], timeout: float) -> tuple[list[Any], list[Any]]:
        self.waited += references
        return references, []

    def shutdown(self) -> None:
        self.is_shut_down = True

    def get_runtime_context(self) -> Any:
        return SimpleNamespace(get_node_id=lambda: "node1")

    def remote(self, function: Any) -> Any:
        def options(**given: Any) -> Any:
            return SimpleNamespace(remote=lambda *arguments: self._call(function, given, arguments))

        return SimpleNamespace(options=options)

    def _call(self, function: Any, options: dict[str, Any], arguments: tuple[Any, ...]) -> Any:
        self.calls.append((function.__name__, options, arguments))
        if function.__name__ == "run":
            return Task(self, self.script.pop(0) if self.script else function(*arguments))
        try:
            return self.put(function(*arguments))
        except Exception as error:
            return self.put(RayTaskError(error))

    def names(self) -> list[str]:
        return [name for name, _, _ in self.calls]


class Task:
    """What a call of a generator answers."""

    def __init__(self, ray: FakeRay, told: Any):
        self.ray, self.told = ray, told

    def completed(self) -> Any:
        return self

    def __iter__(self) -> Iterator[Any]:
        for each in self.told:
            yield self.ray.put(each)
            if self in self.ray.cancelled:
                if hasattr(self.told, "close"):
                    self.told.close()
                yield self.ray.put(TaskCancelledError())
                return
