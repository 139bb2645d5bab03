"""A cluster asked for what it has."""

import asyncio
from collections.abc import Mapping

from hpcspawner.errors import SchedulerNotSetUp, SchedulerUnreachable
from hpcspawner.schedulers.commands import Client
from hpcspawner.schedulers.inventory import Inventory, InventoryReader


async def inventory(client: Client) -> Inventory:
    """What the cluster has. Raises SchedulerError, SchedulerNotSetUp where this scheduler can't be asked."""
    reader = client.scheduler.inventory
    if reader is None:
        name = client.scheduler.name
        raise SchedulerNotSetUp(
            f"{name} does not list its partitions.", "", "", "write the profile by hand", "partitions"
        )
    asked = [
        (client.quietly if name in reader.optional else client.output)(argv) for name, argv in reader.commands.items()
    ]
    outs = dict(zip(reader.commands, await asyncio.gather(*asked), strict=True))
    return await asyncio.to_thread(read, reader, outs)


def read(reader: InventoryReader, outs: Mapping[str, str]) -> Inventory:
    """What these answers say. Raises SchedulerUnreachable for all that can't be read, whatever it is."""
    try:
        return reader.parse(outs)
    except Exception as error:
        # JSON and XML of another shape fail in many ways.
        raise SchedulerUnreachable(f"The cluster's partitions could not be read: {error}") from error
