"""/metrics, /healthz, /readyz: what a monitoring system asks for."""

import time
from collections.abc import Callable

from flask import Flask, Response, g, request
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from flask_app.api.resource import as_json
from flask_app.database import Stores, opened, stores
from flask_app.errors import respond
from flask_app.live import live
from flask_app.parking import BEGUN
from scada.errors import LinkError

_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_TEXT = "text/plain; version=0.0.4; charset=utf-8"
# A method that nobody defined would be a new time series for each request of a scanner.
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# What the server in front of Flask answers by itself; shown from the start, so that an alert has something to look at.
_REFUSALS = (400, 408, 413, 431, 501, 503)
_EXTENSION = "tagwire_http_refused"


def register(app: Flask) -> None:
    """Count requests, and answer the three paths."""
    registry = CollectorRegistry()
    requests = Counter("tagwire_http_requests", "Requests", ["method", "route", "status"], registry=registry)
    seconds = Histogram(
        "tagwire_http_seconds", "Time to answer", ["method", "route"], registry=registry, buckets=_BUCKETS
    )

    refused = Counter(_EXTENSION, "Requests refused before the application saw them", ["status"], registry=registry)
    for status in _REFUSALS:
        refused.labels(status)
    app.extensions[_EXTENSION] = refused

    @app.before_request
    def start() -> None:
        g.started = request.environ.get(BEGUN, time.perf_counter())

    @app.after_request
    def count(response: Response) -> Response:
        method = request.method if request.method in _METHODS else "other"
        route = request.url_rule.rule if request.url_rule is not None else "none"
        requests.labels(method, route, response.status_code).inc()
        if "started" in g:
            seconds.labels(method, route).observe(time.perf_counter() - g.started)
        return response

    @app.get("/healthz")
    def health() -> Response:
        found = opened()  # a database that cannot be opened is not waited for here: the process is well
        return as_json({"status": "ok"} | (_degraded(found) if found is not None else {}))

    @app.get("/readyz")
    def ready() -> Response:
        try:
            found = stores()
            revision = found.config.revision()
        except LinkError as error:
            return respond(503, str(error), headers={"Retry-After": "2"})
        return as_json({"status": "ready", "revision": revision} | _degraded(found))

    @app.get("/metrics")
    def metrics() -> Response:
        return Response(generate_latest(registry) + generate_latest(_gathered()), content_type=_TEXT)


def refusal_counter(app: Flask) -> Callable[[int], None]:
    """What the server in front of `app` calls with the status of each request that it refused by itself."""
    refused: Counter = app.extensions[_EXTENSION]
    return lambda status: refused.labels(status).inc()


def _degraded(found: Stores) -> dict[str, str]:
    """What an operator must still see to, although everything is served."""
    moved = found.set_aside()
    if not moved:
        return {}
    return {
        "status": "degraded",
        "detail": f"the database was damaged and moved to {moved[-1]}; an empty one took its place. Restore the "
        "configuration, then move that file elsewhere: the gateway waits for it",
    }


def _gathered() -> CollectorRegistry:
    """What the database tells, only that it does not answer when it does not; and the programs on the bus."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_DatabaseCollector())
    registry.register(_BusCollector())
    return registry


class _DatabaseCollector:
    def collect(self) -> list[GaugeMetricFamily | CounterMetricFamily]:
        up = GaugeMetricFamily("tagwire_database_up", "Whether the database answers")
        try:
            found = stores()
            aside = GaugeMetricFamily(
                "tagwire_database_set_aside", "Damaged databases moved aside", value=len(found.set_aside())
            )
            objects = GaugeMetricFamily("tagwire_config_objects", "Configured objects", labels=["kind"])
            for kind, listed in (
                ("device", found.config.list_devices),
                ("term", found.config.list_terms),
                ("item", found.config.list_items),
                ("tag", found.config.list_tags),
                ("binding", found.config.list_bindings),
            ):
                objects.add_metric([kind], listed(1, 1)[1])
            revision = GaugeMetricFamily("tagwire_config_revision", "Revision", value=found.config.revision())
            rejects = CounterMetricFamily("tagwire_rejects", "Messages and values not written", labels=["code"])
            for code, number in found.rejects.counts().items():
                rejects.add_metric([code], number)
            outbox = GaugeMetricFamily(
                "tagwire_outbox_values", "Values waiting for their device", value=found.outbox.count()
            )
        except LinkError:
            up.add_metric([], 0)
            return [up]
        up.add_metric([], 1)
        return [up, aside, objects, revision, rejects, outbox]


class _BusCollector:
    def collect(self) -> list[GaugeMetricFamily | CounterMetricFamily]:
        samples = CounterMetricFamily(
            "tagwire_bus_samples", "Samples that programs brought to the bus, or did not", labels=["owner", "kind"]
        )
        buffered = GaugeMetricFamily(
            "tagwire_bus_buffered_samples", "Samples that wait for the broker", labels=["owner"]
        )
        for owner, counters in live().counters.by_owner().items():
            for kind in ("published", "late", "dropped", "poisoned"):
                samples.add_metric([owner, kind], counters[kind])
            buffered.add_metric([owner], counters["buffered"])
        return [samples, buffered]
