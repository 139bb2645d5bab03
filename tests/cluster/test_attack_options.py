"""Five hundred generated bodies by form, link, REST and as stored options: what starts is what the gate let through."""

import contextlib
import itertools
import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import urlencode

import pytest
import requests
from attack.anatomy import HOME, LABEL, dissect
from attack.options import CANARY, Bodies
from cluster.conftest import drained, jobs_of, on_head, queue_is_empty_within, shown
from support.hub import PASSWORD, server_path
from support.schedulers import EVERY

from hpcspawner.errors import RequestError
from hpcspawner.request.form import read
from hpcspawner.request.gate import make
from hpcspawner.request.model import LocalAccount
from hpcspawner.script.render import render
from hpcspawner.site.profile import load
from hpcspawner.units import Walltime

SEED = 20261122
# Each stored one makes a job: where it does not fit, the defaults take its place.
SHARES = {"form": 150, "link": 150, "rest": 150, "stored": 50}
# Each has one server at a time, so that its one job is the one that was just asked for.
USERS = [f"u{number:03}" for number in range(1, 11)]
# The Hub answers a REST start after 10 s where the job still waits; here every job does.
QUICK = 'c.JupyterHub.tornado_settings = {"slow_spawn_timeout": 1}'
# What the proxy takes as the head of a request; a longer link never reaches the Hub.
LONGEST_LINK = 8000


@dataclass
class Outcome:
    """One body that was sent: the answer's status and words, and the job that it made, if any."""

    body: object
    status: int
    words: str
    job_id: str = ""


@pytest.fixture(scope="module")
def field(make_hub):
    """A Hub whose jobs all wait, with browsers of its users."""
    reservations = ('title = "Test', 'reservation = "optional"\ntitle = "Test')
    _cancel_all()
    with drained("n1", "n2", "n3"), make_hub("slurm", extra=QUICK, change=reservations) as hub:
        for user in USERS:
            hub.api("POST", f"/users/{user}")
        yield Field(hub)
        _cancel_all()


class Field:
    """The Hub, what its gate should say, and what the scheduler has."""

    def __init__(self, hub):
        self.hub = hub
        self.profile = load(hub.folder / "site.toml")
        self.browsers = {user: _logged_in(hub, user) for user in USERS}
        self.jobs = set()

    # Doors: each sends one body as this user and tells what came of it.

    def form(self, user, body):
        browser, action = self.browsers[user]
        data = urlencode(_as_form(body), doseq=True, errors="replace")
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        answer = browser.post(action, data=data, headers=headers, allow_redirects=False, timeout=60)
        return self._came_of(user, "", read(_as_form(body)), answer)

    def link(self, user, body):
        browser, _ = self.browsers[user]
        query = urlencode(_as_form(body), doseq=True, errors="replace")
        answer = browser.get(f"{self.hub.url}/hub/spawn/{user}?{query}", allow_redirects=False, timeout=60)
        return self._came_of(user, "", body, answer)

    def rest(self, user, body):
        return self._came_of(user, "", body, self._sent("POST", server_path(user), body))

    def stored(self, user, body):
        name = f"s{next(_NUMBERS)}"
        kept = self._sent("PUT", server_path(user, name), {"display_name": name, "user_options": body})
        assert kept.status_code == 201, f"{kept.text}"
        return self._came_of(user, name, body, self.hub.api("POST", server_path(user, name)))

    def _sent(self, method, path, body):
        return self.hub.api(method, path, data=json.dumps(body).encode())

    # What came of it.

    def _came_of(self, user, name, body, answer):
        outcome = Outcome(body, answer.status_code, answer.text)
        if answer.status_code in (201, 202, 302):
            outcome.job_id = self._job(user, name)
            if outcome.job_id:
                self.jobs.add(outcome.job_id)
                self._is_as_the_gate_said(user, outcome)
            _until(lambda: self._is_gone(user, name))
        return outcome

    def _is_gone(self, user, name):
        """Whether neither server nor job is left; else it is stopped, again if need be.

        JupyterHub waits 1 s for a start to end that is cancelled, and answers 500 where a busy machine takes longer.
        """
        if not jobs_of(user) and self.hub.servers(user).get(name) is None:
            return True
        with contextlib.suppress(AssertionError):
            self.hub.stop_server(user, name)
        return False

    def _job(self, user, name):
        """The user's one job; "" where the scheduler has refused it, so that the server is gone."""
        found = _until(lambda: jobs_of(user) or ([""] if self.hub.servers(user).get(name) is None else []))
        assert len(found) == 1
        return found[0]

    def _is_as_the_gate_said(self, user, outcome):
        request = self.judge(user, outcome.body) or self.judge(user, {})
        theirs = dissect(on_head("scontrol", "write", "batch_script", outcome.job_id, "-"))
        ours = dissect(render(request, EVERY["slurm"], self.profile.job, LABEL, HOME))
        asked, seen = request.resources, shown(outcome.job_id)
        assert (seen["Partition"], seen["WorkDir"], seen["StdOut"]) == (asked.partition, "/", "/dev/null")
        assert seen["TimeLimit"] == Walltime(-(-asked.walltime.seconds // 60) * 60).clock()
        assert seen["Features"] == ("&".join(asked.features) or "(null)")
        assert _shell(theirs) == _shell(ours)
        assert theirs.settings["directory"] == request.directory
        assert theirs.settings["command"][0] == request.interface.command[0]

    def judge(self, user, body):
        """What the gate should make of it, asked without a Hub."""
        try:
            return make(body, self.profile, LocalAccount(user, f"/home/{user}"))
        except RequestError:
            return None


_NUMBERS = itertools.count()


def _logged_in(hub, user):
    """A session with the user's cookies, and where its form is to be sent."""
    session = requests.Session()
    session.trust_env = False  # an environment's own CA bundle would win over the Hub's
    session.verify = str(hub.folder / "ca.pem")
    # The proxy ends a connection that is idle for 5 s, perhaps just when the next request is on its way.
    session.headers["Connection"] = "close"
    session.get(f"{hub.url}/hub/login")
    data = {"username": user, "password": PASSWORD, "_xsrf": session.cookies.get("_xsrf", path="/hub/")}
    assert session.post(f"{hub.url}/hub/login", data=data).ok
    form = session.get(f"{hub.url}/hub/spawn").text
    return session, hub.url + re.search(r'action="([^"]*)"', form)[1].replace("&amp;", "&")


def _as_form(body):
    """The same as a browser would send it: names with lists of text, half characters replaced."""
    fields = {}
    for name, value in body.items():
        texts = [one if isinstance(one, str) else json.dumps(one) for one in (value if _is_list(value) else [value])]
        fields[_whole(str(name))] = [_whole(text) for text in texts]
    return fields


def _is_list(value):
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _whole(text):
    return text.encode("utf-8", "replace").decode()


def _shell(found):
    return [line for line in found.shell if not line.startswith("hpc_name=")]


def _cancel_all():
    for user in USERS:
        on_head("scancel", f"--user={user}", check=False)
    queue_is_empty_within(40, *USERS)


def _until(look, seconds=60):
    """What `look` finds, as soon as it finds something."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.3)
    return found


def _send(field, door, bodies):
    """All bodies, a share for each user, at the same time."""
    shares = [bodies[at :: len(USERS)] for at in range(len(USERS))]
    send = getattr(field, door)
    with ThreadPoolExecutor(len(USERS)) as pool:
        results = pool.map(lambda user, share: [send(user, body) for body in share], USERS, shares)
        return [outcome for share in results for outcome in share]


def _bodies(field, door, hostility=0.5):
    bodies = Bodies(f"{SEED} {door}", field.profile, hostility)
    fit = (body for body in bodies if door != "link" or len(urlencode(_as_form(body), doseq=True)) < LONGEST_LINK)
    return list(itertools.islice((body for body in fit if body), SHARES[door]))


def _recorded():
    """Id and time of submit of every job of these users that the accounting has heard of: ids may come again."""
    asked = ["--starttime=2000-01-01", f"--user={','.join(USERS)}", "--format=JobIDRaw,Submit"]
    return {tuple(line.split("|")) for line in on_head("sacct", "-XnP", "--duplicates", *asked).split()}


def _ids(recorded):
    return {job_id for job_id, _ in recorded}


def _no_secrets_of_the_inside(outcome):
    assert outcome.status < 500, f"{outcome.status} {outcome.words[:500]} for {outcome.body!r}"
    assert "Traceback" not in outcome.words
    if outcome.words.lstrip().startswith("<"):
        assert "<x-canary" not in outcome.words
        assert "<script>hpc" not in outcome.words


def test_five_hundred_bodies_start_what_the_gate_let_through_and_nothing_else(field, head):
    before = _recorded()
    outcomes = {door: _send(field, door, _bodies(field, door)) for door in SHARES}
    for door, sent in outcomes.items():
        assert len(sent) == SHARES[door]
        for outcome in sent:
            _no_secrets_of_the_inside(outcome)
            assert outcome.job_id or not _must_start(field, door, outcome), f"{door}: {outcome}"
            assert not outcome.job_id or _may_start(field, door, outcome), f"{door}: {outcome}"
    # By all doors that can start something, something was refused and something was not.
    assert {bool(outcome.job_id) for outcome in (*outcomes["form"], *outcomes["rest"])} == {True, False}
    assert not any(outcome.job_id for outcome in outcomes["link"])
    # The accounting hears of a job a moment later.
    _until(lambda: field.jobs <= _ids(_recorded() - before))
    assert _ids(_recorded() - before) == field.jobs
    log = field.hub.log()
    # Of our own DELETE: see `_is_gone`.
    assert set(re.findall(r"Uncaught exception (\w+)", log)) <= {"DELETE"}


def _may_start(field, door, outcome):
    """Whether the gate lets this body through here; a stored one that does not fit gives way to the defaults."""
    return door == "stored" or (door != "link" and field.judge("u001", outcome.body) is not None)


def _must_start(field, door, outcome):
    """Whether the scheduler has to take it as well: it alone knows which accounts, QOS and reservations there are."""
    if not _may_start(field, door, outcome):
        # A refusal that comes after `slow_spawn_timeout` stands on the server's page; there is no job either way.
        late = (201, 202, 302) if door != "link" and not outcome.job_id else ()
        # 413: the body was longer than any may be.
        assert outcome.status in ((200,) if door == "link" else (400, 413, *late)), f"{door}: {outcome}"
        return False
    request = field.judge("u001", outcome.body)
    asked = request.resources if request else None
    return asked is None or not (asked.account or asked.qos or asked.reservation)


def test_a_form_that_another_site_sends_starts_nothing(field):
    browser, action = field.browsers["u001"]
    for where in (action.partition("?")[0], f"{action.partition('?')[0]}?partition=compute&_xsrf=2|1|1|1"):
        answer = browser.post(where, data={"partition": "compute"}, allow_redirects=False)
        assert answer.status_code == 403
    assert jobs_of("u001") == []
    assert field.hub.servers("u001") == {}


def test_the_generated_bodies_are_hostile(field):
    for door, share in SHARES.items():
        assert sum(CANARY in json.dumps(body) for body in _bodies(field, door)) > share / 10
