"""Hundreds of servers, started and stopped by ten users at once while this and that fails; nothing is left of them."""

import contextlib
import itertools
import os
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from cluster.conftest import jobs_of
from cluster.drills.ground import Ground
from support.faults import locked, within
from support.hub import server_path

USERS = tuple(f"u{number:03}" for number in range(11, 21))
CYCLES = int(os.environ.get("SOAK_CYCLES", "100"))
ROUNDS = max(2, CYCLES // len(USERS))
# Only the first rounds kill the Hub: what grows in a process shows in one that lives.
KILLS_UNTIL = ROUNDS // 2
ONE_CYCLE_S = 120

COUNT_TASKS = """
import asyncio
from jupyterhub.apihandlers.base import APIHandler

class Tasks(APIHandler):
    def get(self):
        self.write({"tasks": sorted(task.get_coro().__qualname__ for task in asyncio.all_tasks())})

c.JupyterHub.extra_handlers.append((r"/api/drills/tasks", Tasks))
"""


def _hub_killed(ground):
    ground.hub.kill()
    time.sleep(1)
    ground.hub.start()


def _controller_stopped(ground):
    with ground.lab.controller_stopped():
        time.sleep(8)


def _listing_garbled(ground):
    with ordered(ground, "list-garbage"):
        time.sleep(5)


def _cancels_fail(ground):
    for user in USERS[:3]:
        ground.order(f"cancel-fails-{user}", "3")


def _submits_slow(ground):
    with ordered(ground, *(f"submit-before-{user}" for user in USERS)):
        time.sleep(5)


def _node_cut(ground):
    with ground.lab.cut("n1"):
        time.sleep(5)


def _database_locked(ground):
    with locked(ground.hub.folder / "hpcspawner.sqlite"):
        time.sleep(5)


FAULTS = (_hub_killed, _controller_stopped, _listing_garbled, _cancels_fail, _submits_slow, _node_cut, _database_locked)


@contextlib.contextmanager
def ordered(ground, *names):
    for name in names:
        ground.order(name)
    try:
        yield
    finally:
        ground.release(*names)


@pytest.fixture(scope="module")
def ground(lab, tmp_path_factory):
    with Ground(lab, tmp_path_factory.mktemp("soak"), "slurm", USERS, extra=COUNT_TASKS) as ground:
        yield ground


def test_nothing_is_left_of_many_servers(ground, capsys):
    began = time.monotonic()
    faults, seen, before = itertools.cycle(FAULTS), Counter(), {}
    ground.begin()
    tokens = len(tokens_left(ground))
    with ThreadPoolExecutor(len(USERS) + 1) as pool:
        for round_ in range(ROUNDS):
            if round_ == KILLS_UNTIL + 1:
                before = measures(ground)
            act = next(faults)
            while act is _hub_killed and round_ >= KILLS_UNTIL:
                act = next(faults)
            fault = pool.submit(act, ground)
            for outcome in pool.map(lambda user: one_cycle(ground, user), USERS):
                seen += outcome
            fault.result(60)
    seconds = time.monotonic() - began
    within(60, lambda: not any(jobs_of(user) for user in USERS), "jobs are left")
    # The Hub looks after itself for a moment: confirms, sweeps, lets connections go.
    within(60, lambda: not ground.live_rows(), lambda: f"rows are left: {ground.live_rows()}")
    within(60, lambda: len(tokens_left(ground)) <= tokens, lambda: f"tokens are left: {tokens_left(ground)}")
    within(
        60, lambda: not more(before, measures(ground)), lambda: f"more than before: {more(before, measures(ground))}"
    )
    after = measures(ground)
    with capsys.disabled():
        print(f"\nsoak: {ROUNDS * len(USERS)} servers, {ROUNDS} faults, {seconds:.0f} s; answers: {dict(seen)}")
        for when, found in (("after warm-up", before), ("in the end", after)):
            print(f"{when}: {found['rss_mib']} MiB, {found['files']} files, {found['tasks'].total()} tasks")
    assert seen["served"] == ROUNDS * len(USERS)
    assert after["rss_mib"] - before["rss_mib"] < 40
    for user in USERS:
        ground.never_two_at_once(user)


def one_cycle(ground, user):
    """Start a server until there is one, as a patient user would; look at it; stop it."""
    seen, deadline = Counter(), time.monotonic() + ONE_CYCLE_S
    while not served(ground, user):
        assert time.monotonic() < deadline, f"{user} gets no server: {seen}\n{ground.log()[-20_000:]}"
        if ground.server(user) is None:
            seen[asked(ground, "POST", user)] += 1
        time.sleep(0.5)
    seen["served"] += 1
    while ground.server(user) is not None or not ground.answers():
        assert time.monotonic() < deadline, f"{user} keeps a server: {ground.server(user)}\n{ground.log()[-20_000:]}"
        asked(ground, "DELETE", user)
        time.sleep(0.5)
    return seen


def served(ground, user):
    server = ground.server(user)
    answer = ground.whoami(user) if server and server["ready"] else None
    return answer is not None and answer["token_ok"]


def asked(ground, method, user):
    """The Hub's answer in a word; none while it is away."""
    try:
        status = ground.hub.api(method, server_path(user)).status_code
    except requests.RequestException:
        return "no Hub"
    return {201: "started", 202: "starting", 204: "stopped", 400: "not now", 503: "no Hub"}.get(status, str(status))


def tokens_left(ground):
    return [(user, token["note"]) for user in USERS for token in ground.tokens(user)]


def measures(ground):
    """What the Hub's process holds."""
    process = Path(f"/proc/{ground.hub.process.pid}")
    rss = next(line for line in (process / "status").read_text().splitlines() if line.startswith("VmRSS"))
    return {
        "rss_mib": int(rss.split()[1]) // 1024,
        "files": len(list((process / "fd").iterdir())),
        "tasks": Counter(ground.hub.api("GET", "/drills/tasks").json()["tasks"]),
    }


def more(before, after):
    """What there is more of than there was; a few connections that the proxy keeps for its next request may differ."""
    tasks = after["tasks"] - before["tasks"]
    # Tornado has one for each open connection, which are counted among the files.
    del tasks["HTTP1ServerConnection._server_request_loop"]
    files = after["files"] - before["files"]
    return {"tasks": dict(tasks), "files": files} if tasks or files > 10 else {}
