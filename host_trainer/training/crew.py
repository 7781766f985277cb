"""Brings the processes of one training on Ray together: each says where it is, and hears where all are."""

import time
from typing import Any

from host_trainer.training.workers import config, free_ports

POLL_S = 0.2  # between two questions whether all have come


class Meeting:
    """Holds where the members of a crew are; lives on Ray as an actor."""

    def __init__(self, count: int) -> None:
        self._places = [""] * count

    def come(self, index: int, place: str) -> None:
        """Take note of where a member is."""
        self._places[index] = place

    def places(self) -> list[str]:
        """Return where each is; nothing while some have not come."""
        return self._places if all(self._places) else []


def joined(meeting: Any, index: int) -> str:
    """Say on which node and port this member is, wait for all others, and return what TF_CONFIG has to be."""
    import ray

    ray.get(meeting.come.remote(index, f"{ray.util.get_node_ip_address()}:{free_ports(1)[0]}"))
    while not (places := ray.get(meeting.places.remote())):
        time.sleep(POLL_S)
    return config(places, index)
