"""What Prometheus scrapes: how many requests with which answer, how long they waited and ran."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from deploy.serving.engine_threads import Run

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """The figures of one server, in a registry of its own."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self._registry = registry
        ProcessCollector(registry=registry)
        self._requests = Counter(
            "deploy_requests",
            "Inference requests answered.",
            ["protocol", "code"],
            registry=registry,
        )
        self._seconds = Histogram(
            "deploy_request_seconds",
            "From a request's first byte to its answer.",
            ["protocol"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._waited = Histogram(
            "deploy_queue_seconds",
            "How long a request waited for the engine.",
            buckets=_SECONDS,
            registry=registry,
        )
        self._ran = Histogram(
            "deploy_run_seconds", "One run of the engine.", buckets=_SECONDS, registry=registry
        )
        self._rows = Histogram(
            "deploy_run_rows",
            "Rows that one run of the engine computed.",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128),
            registry=registry,
        )
        self._version = Gauge(
            "deploy_model_version", "The version that is served.", ["model"], registry=registry
        )
        self._reloads = Counter(
            "deploy_reloads", "Attempts to load another version.", ["result"], registry=registry
        )
        self._waiting = Gauge(
            "deploy_queue_requests", "Requests that wait for the engine.", registry=registry
        )
        self._held = Gauge(
            "deploy_held_bytes", "Bytes of the requests under way.", registry=registry
        )

        # by protocol and code: looking them up by their labels costs as much as counting
        self._children: dict[tuple[str, str], tuple[Counter, Histogram]] = {}

    def watch(self, waiting: Callable[[], float], held: Callable[[], float]) -> None:
        """Figures that are read when they are scraped."""
        self._waiting.set_function(waiting)
        self._held.set_function(held)

    def answered(self, protocol: str, code: str, took_s: float) -> None:
        """One inference request is done."""
        children = self._children.get((protocol, code))
        if children is None:
            children = self._requests.labels(protocol, code), self._seconds.labels(protocol)
            self._children[protocol, code] = children
        children[0].inc()
        children[1].observe(took_s)

    def ran(self, run: Run) -> None:
        """The engine ran once; called from its threads."""
        self._ran.observe(run.took_s)
        self._rows.observe(run.rows)
        for waited_s in run.waited_s:
            self._waited.observe(waited_s)

    def serving(self, model: str, version: str) -> None:
        """This version is served from now on."""
        self._version.labels(model).set(int(version))

    def reloaded(self, ok: bool) -> None:
        """An attempt to load another version is over."""
        self._reloads.labels("ok" if ok else "failed").inc()

    def text(self) -> bytes:
        """All figures in Prometheus' text form."""
        return generate_latest(self._registry)
