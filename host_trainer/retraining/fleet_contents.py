"""Reads what devices sent from the server's database and store, and tells it what became of each content."""

from collections.abc import Iterable, Mapping

from edge_cl.wire.labels import Edits
from host_trainer.retraining.contents import ContentKey, Received
from host_trainer.server import bundles, classes
from host_trainer.server.contents import Contents as Held
from host_trainer.server.fleet import Fleet


class FleetContents:
    """What the devices of one model sent to the server of a fleet; see `contents.Contents`.

    Args:
        fleet: opened.
        model: whose devices are heard.
    """

    def __init__(self, fleet: Fleet, model: str) -> None:
        self._fleet, self._model = fleet, model
        self._contents = Held(fleet.database, fleet.objects)

    def committed(self, known: frozenset[str]) -> Iterable[Received]:
        """See `Contents`."""
        for held in self._contents.listed(self._model):
            if held.id not in known:
                data = self._contents.read(held)
                yield Received(held.device, held.id, held.level, data, held.key != held.id)

    def edits(self) -> Edits:
        """See `Contents`."""
        with self._fleet.database.reading() as session:
            return classes.edits(session)

    def announce(self, model: str, bundle: int, taken: Mapping[str, str]) -> None:
        """See `Contents`; the server then offers the bundle to nobody as if it knew less of them."""
        with self._fleet.database.writing() as session:
            bundles.know(session, model, bundle, taken)

    def close(self, taken: Iterable[ContentKey], quarantined: Mapping[ContentKey, str]) -> None:
        """See `Contents`."""
        held = {(each.device, each.id): each for each in self._contents.listed(self._model)}
        self._contents.take([held[key] for key in taken if key in held])
        for key, reason in quarantined.items():
            if key in held:
                self._contents.quarantine([held[key]], reason)
