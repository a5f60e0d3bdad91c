"""Counts for Prometheus, which fetches them from /metrics. None of them tells anything of a client or a file."""

from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector

SECONDS = (
    0.05,
    0.1,
    0.25,
    0.5,
    1,
    2.5,
    5,
    10,
    30,
    60,
    120,
)  # bounds; the last is JOB_SECONDS, a slow upload comes before


class Metrics:
    """The counts of one server. A registry of its own: tests start several servers in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "brainseg_requests", "Requests that were answered.", ["method", "route", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "brainseg_request_seconds", "From the header of a request to the end of its answer.", ["route"],
            buckets=SECONDS, registry=self.registry,
        )  # fmt: skip
        self._bytes = Counter("brainseg_bytes", "Bytes of bodies.", ["direction"], registry=self.registry)
        self.slices = Counter("brainseg_slices", "Slices that the model outlined.", registry=self.registry)
        ProcessCollector(registry=self.registry)

    def count(self, method: str, route: str, status: int, seconds: float, received: int, sent: int) -> None:
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)
        self._bytes.labels("in").inc(received)
        self._bytes.labels("out").inc(sent)

    def show(self, name: str, meaning: str, read: Callable[[], float]) -> None:
        """Have a number read whenever the metrics are fetched."""
        Gauge(name, meaning, registry=self.registry).set_function(read)

    def tell(self, name: str, meaning: str, facts: Mapping[str, str]) -> None:
        """Have facts, such as a digest, among the metrics."""
        Info(name, meaning, registry=self.registry).info(dict(facts))
