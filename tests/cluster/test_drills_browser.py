"""What a person notices of the Hub's death: with real JupyterLab and a real browser."""

import asyncio
import re

import pytest
from cluster.drills.field import Field, Seat
from cluster.drills.ground import Ground
from support.browser import a_page, run_cell
from support.hub import PASSWORD, Kernel

LAB = {"interface": "lab", "memory": "1G"}


@pytest.fixture(scope="module")
def ground(lab, tmp_path_factory):
    with Ground(lab, tmp_path_factory.mktemp("drills-browser"), "slurm", ("u011", "u014")) as ground:
        yield ground


def test_a_kernel_keeps_its_variables_and_a_fresh_browser_gets_in_after_the_hub_was_killed(ground):
    field = Field([Seat(ground, "u014", "waiting", options={"partition": "gpu-shared", "gpus": 1, **LAB})])
    field.take_places()
    ground.hub.spawn("u011", LAB)
    kernel = Kernel(ground.hub, "u011")
    assert asyncio.run(kernel.run("x = 41; print(x)")) == "41"
    ground.hub.kill()
    ground.hub.start()
    ground.hub.wait_ready("u011", timeout_s=30)
    assert asyncio.run(kernel.run("print(x + 1)")) == "42"
    kernel.end()
    field.release()
    ground.hub.wait_ready("u014", timeout_s=60)
    # Each login goes to the server by way of the Hub: an OAuth client that is not known any more would refuse it.
    for user in ("u011", "u014"):
        with a_page() as page:
            page.goto(f"{ground.hub.url}/user/{user}/lab")
            page.fill("input[name=username]", user)
            page.fill("input[name=password]", PASSWORD)
            page.click("#login_submit, input[type=submit], button[type=submit]")
            page.wait_for_url(re.compile(f"/user/{user}/lab"), timeout=60_000)
            assert run_cell(page, "print(6 * 7)") == "42"
