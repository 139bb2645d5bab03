"""A cluster asked for what it has."""

import asyncio

from hpcspawner.errors import SchedulerNotSetUp, SchedulerUnreachable
from hpcspawner.schedulers.commands import Client
from hpcspawner.schedulers.inventory import Inventory


async def inventory(client: Client) -> Inventory:
    """What the cluster has. Raises SchedulerError, SchedulerNotSetUp where this scheduler can't be asked."""
    reader = client.scheduler.inventory
    if reader is None:
        name = client.scheduler.name
        raise SchedulerNotSetUp(f"{name} does not list its partitions.", "", "", "write the profile by hand")
    asked = [
        (client.quietly if name in reader.optional else client.output)(argv) for name, argv in reader.commands.items()
    ]
    outs = dict(zip(reader.commands, await asyncio.gather(*asked), strict=True))
    try:
        return await asyncio.to_thread(reader.parse, outs)
    except ValueError as error:
        raise SchedulerUnreachable(f"The cluster's partitions could not be read: {error}") from error
