"""Who hears every packet of a node's cable does not get to know what its users do."""

import asyncio
import re
import secrets
from dataclasses import dataclass
from urllib.parse import urlsplit

from cluster.conftest import jobs_of, queue_is_empty_within
from support.browser import a_page, fill, log_in, press_start, run_cell
from support.processes import Processes
from support.wire import Wiretap, unmasked

CABLE = "v1"
OPEN = """\
import hpcspawner

c = get_config()
hpcspawner.configure(c, "site.toml", callback_url="https://head", tls_to_nodes=False)
"""


@dataclass
class Heard:
    """What was said on a node's cable while somebody worked there: to and from the server, the Hub, and in all."""

    server: list
    hub: list
    everything: list
    secrets: dict

    def found(self):
        """Which secrets were said in clear, however they were put."""
        said = b"\0".join(self.everything)
        clear = {name for name, secret in self.secrets.items() if secret in said}
        # What a browser says through a WebSocket is masked, which hides nothing.
        shapes = b"\0".join(unmasked(text) for text in self.server)
        return clear | {f"{name}, masked" for name, secret in self.secrets.items() if unmasked(secret) in shapes}


async def hear(lab, hub, work):
    """What is said while alice starts a server on a node and has it print a marker, by `work`."""
    marker = f"hpc-marker-{secrets.token_hex(8)}"
    with Wiretap(CABLE) as wire:
        cookies = await work(hub, marker)
        environment = Processes(lab, "n1", *jobs_of("alice")).environment
        hub.stop_server("alice")
        queue_is_empty_within(40, "alice")
    her = {f"cookie {name}": value.strip('"') for name, value in cookies.items()}
    her |= {"marker": marker, "API token": environment["JUPYTERHUB_API_TOKEN"], "a line of HTTP": " HTTP/1.1\r\n"}
    ports = [urlsplit(environment[f"JUPYTERHUB_{name}_URL"]).port for name in ("SERVICE", "API")]
    said = [wire.said(port) for port in ports]
    return Heard(*said, wire.said(), {name: secret.encode() for name, secret in her.items()})


async def in_a_browser(hub, marker):
    """She types it into a cell of a notebook."""
    return await asyncio.to_thread(_in_a_browser, hub, marker)


def _in_a_browser(hub, marker):
    with a_page() as page:
        log_in(page, hub, "alice")
        page.goto(f"{hub.url}/hub/spawn")
        fill(page, partition="debug")
        press_start(page)
        page.wait_for_url(re.compile("/user/alice/lab"), timeout=120_000)
        assert run_cell(page, f"print('{marker}')") == marker
        return {cookie["name"]: cookie["value"] for cookie in page.context.cookies()}


async def by_the_same_requests(hub, marker):
    """A browser's login, and a kernel's WebSocket: the same on the cable, in half the time."""
    hub.spawn("alice", {"partition": "debug"})
    session = hub.log_in("alice")
    assert session.get(f"{hub.url}/user/alice/lab", timeout=60).ok
    assert await hub.run("alice", f"print('{marker}')") == marker
    return {cookie.name: cookie.value for cookie in session.cookies}


async def test_nothing_that_is_typed_or_signed_in_with_is_heard(lab, make_hub):
    with make_hub("slurm") as hub:
        heard = await hear(lab, hub, in_a_browser)
    assert heard.found() == set()
    # It was there to be heard: JupyterLab's files and a notebook, and the server's own calls of the Hub.
    assert sum(map(len, heard.server)) > 1_000_000
    assert sum(map(len, heard.hub)) > 1_000


async def test_without_tls_to_the_nodes_it_is_heard(lab, make_hub):
    with make_hub("slurm", config=OPEN) as hub:
        found = (await hear(lab, hub, by_the_same_requests)).found()
    assert {"marker", "marker, masked", "API token", "a line of HTTP"} <= found
    assert any(name.startswith("cookie jupyterhub-user-alice") for name in found)
