"""What the server counts, for Prometheus."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

# Seconds: from a model call without a queue to the default of the limit.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
OTHER = "other"  # requests that are no prediction


class Metrics:
    """Counters of one server. An unknown model has no name here: whoever asks could fill the memory with names."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def of(kind: type, name: str, told: str, labels: tuple[str, ...] = (), **more: object):
            return kind(f"heaviside_{name}", told, labels, registry=self.registry, **more)

        by = ("model", "version", "protocol", "status")
        self.requests = of(Counter, "requests", "Requests that were answered", by)
        self.latency = of(
            Histogram,
            "request_seconds",
            "From the request's head to the answer",
            ("model", "protocol"),
            buckets=BUCKETS,
        )
        self.rows = of(Counter, "rows", "Rows that were computed", ("model",))
        self.computing = of(Gauge, "computing", "Requests that compute now")
        self.waiting = of(Gauge, "waiting", "Requests that wait to compute")
        self.ready = of(Gauge, "ready", "1 if all models are loaded and warm")
        self.version = of(Gauge, "model_info", "1 for the version that is served", ("model", "version", "sha256"))
        self.swaps = of(Counter, "swaps", "Champions that replaced another one", ("model",))
        self.failed_loads = of(Counter, "failed_loads", "New champions that could not be loaded", ("model",))
        self.failed_looks = of(Counter, "failed_looks", "Times that the registry could not be read")

    def watch(self, computing: Callable[[], float], waiting: Callable[[], float], ready: Callable[[], float]) -> None:
        """Take the gauges from functions, when they are asked for."""
        self.computing.set_function(computing)
        self.waiting.set_function(waiting)
        self.ready.set_function(ready)

    def count(self, model: str, version: str, protocol: str, status: int, seconds: float, rows: int) -> None:
        """Count an answer.

        Args:
            model: that is served, else "".
            version: that has computed, else "".
            protocol: v1, v2 or OTHER.
            status: of HTTP.
            seconds: that it took.
            rows: that were computed.
        """
        self.requests.labels(model, version, protocol, str(status)).inc()
        self.latency.labels(model, protocol).observe(seconds)
        if rows:
            self.rows.labels(model).inc(rows)

    def text(self) -> bytes:
        return generate_latest(self.registry)
