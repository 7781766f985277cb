"""Counts what the server does, and shows it with the state of the fleet as Prometheus reads it.

Sums and shares only: no label names a device, so that 10,000 of them make no more lines than ten.
"""

from collections.abc import Callable, Iterator, Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from host_trainer.server import overview
from host_trainer.server.fleet import Fleet
from host_trainer.server.upkeep import Upkeep

PREFIX = "edge_cl"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """What is counted of a server; `text` is what Prometheus is given."""

    def __init__(self, fleet: Fleet, upkeep: Upkeep | None, clock: Callable[[], float]) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._requests = Counter(
            f"{PREFIX}_requests", "Requests answered.", ("route", "status"), registry=self._registry
        )
        self._bytes = Counter(f"{PREFIX}_bytes", "Bytes of bodies.", ("way",), registry=self._registry)
        self._refused = Counter(
            f"{PREFIX}_refusals", "Requests refused.", ("reason",), registry=self._registry
        )
        self._seconds = Histogram(
            f"{PREFIX}_request_seconds",
            "From a request's head to the end of its answer.",
            ("route",),
            buckets=SECONDS,
            registry=self._registry,
        )
        self._registry.register(_State(fleet, upkeep, clock))

    def answered(self, route: str, status: int, seconds: float, up: int, down: int) -> None:
        """Count a request; `route` is the pattern of its path, not the path."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)
        self._bytes.labels("up").inc(up)
        self._bytes.labels("down").inc(down)

    def refused(self, reason: str) -> None:
        """Count a refusal."""
        self._refused.labels(reason).inc()

    def text(self) -> bytes:
        """Return all counts and the state of the fleet; StoreError when the database does not answer."""
        return generate_latest(self._registry)


class _State(Collector):
    """Reads the state of the fleet when it is asked for."""

    def __init__(self, fleet: Fleet, upkeep: Upkeep | None, clock: Callable[[], float]) -> None:
        self._fleet, self._upkeep, self._clock = fleet, upkeep, clock

    def describe(self) -> list[GaugeMetricFamily]:
        """Return nothing, so that the database is not asked before it is needed."""
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the state as gauges."""
        now = int(self._clock())
        with self._fleet.database.reading() as session:
            count = overview.count(session, now)
            releases = overview.releases(session)
            rollouts = overview.rollouts(session, now)
            contents = overview.contents(session)
            jobs = overview.jobs(session)
        yield _gauge(
            "devices", "Devices by state.", ("state",), [("active", count.active), ("revoked", count.revoked)]
        )
        yield _gauge("devices_recent", "Active devices seen within a day.", (), [(count.recent,)])
        yield _gauge(
            "devices_rolled_back", "Active devices that rolled back last.", (), [(count.rolled_back,)]
        )
        yield _gauge("samples", "Samples taught to active devices.", (), [(count.samples,)])
        yield _gauge("suspects", "Samples set aside by label audits.", (), [(count.suspects,)])
        if count.accuracy is not None:
            mean = [(count.accuracy / 1000,)]
            yield _gauge("accuracy_ratio", "Mean running accuracy of active devices.", (), mean)
        running = {(each.model, str(each.number)): each.running for each in releases}
        yield _gauge(
            "bundle_devices",
            "Devices by bundle that runs.",
            ("model", "bundle"),
            [(*key, value) for key, value in running.items()],
        )
        yield _gauge(
            "rollout_ratio",
            "Share of the devices that are offered a bundle.",
            ("model", "channel", "bundle"),
            [
                (each.model, each.channel, str(each.number), 0.0 if each.reason else each.share / 1000)
                for each in rollouts
            ],
        )
        yield _gauge(
            "contents", "Contents held.", ("level", "state"), [(e.level, e.state, e.number) for e in contents]
        )
        yield _gauge(
            "contents_bytes",
            "Bytes of them.",
            ("level", "state"),
            [(e.level, e.state, e.bytes) for e in contents],
        )
        states = {each.state for each in jobs}
        yield _gauge(
            "last_jobs",
            "The last jobs by state.",
            ("state",),
            [(state, sum(each.state == state for each in jobs)) for state in sorted(states)],
        )
        faults = len(self._upkeep.faults) if self._upkeep else 0
        yield _gauge("upkeep_faults", "Duties that failed the last time.", (), [(faults,)])


def _gauge(
    name: str, words: str, labels: tuple[str, ...], rows: Sequence[tuple[str | float, ...]]
) -> GaugeMetricFamily:
    """Return a gauge; each row is the values of its labels, then its own."""
    family = GaugeMetricFamily(f"{PREFIX}_{name}", words, labels=labels)
    for *values, found in rows:
        family.add_metric([str(value) for value in values], float(found))
    return family
