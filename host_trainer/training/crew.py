"""Brings the processes of one training on Ray together: each says where it is, and hears where all are."""

import asyncio
from typing import Any

from host_trainer.training.workers import config, free_ports


class Meeting:
    """Holds where the members of a crew are; lives on Ray as an actor."""

    def __init__(self, count: int) -> None:
        self._places = [""] * count
        self._complete = asyncio.Event()

    async def places(self, index: int, place: str) -> list[str]:
        """Take note of where a member is, wait for all others, and return where each is."""
        self._places[index] = place
        if all(self._places):
            self._complete.set()
        await self._complete.wait()
        return self._places


def joined(meeting: Any, index: int) -> str:
    """Say on which node and port this member is, wait for all others, and return what TF_CONFIG has to be."""
    import ray

    place = f"{ray.util.get_node_ip_address()}:{free_ports(1)[0]}"
    return config(ray.get(meeting.places.remote(index, place)), index)
