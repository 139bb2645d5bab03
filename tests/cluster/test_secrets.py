"""Another user of the cluster searches everything that can be read and finds nothing of use; nor does the Hub's log."""

import base64
import contextlib
import json
import re
import secrets
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
import requests
from cluster.conftest import cancel_all, drained, jobs_of, on_head, queue_is_empty_within, script_of, shown
from support import attacker
from support.faults import within
from support.hub import PASSWORD, Hub, server_path
from support.processes import Processes, environment
from support.schedulers import torque

DEBUG = """
c.JupyterHub.log_level = "DEBUG"
c.ConfigurableHTTPProxy.debug = True
"""
HEAD = "10.77.0.1"
WAITS = "waits"
TICKET = "ticket of the waiting job"
_SLEEPS = ("/usr/bin/python3", "-c", "import time; time.sleep(600)")


@dataclass
class Victim:
    """Alice, who works on a server while another one waits in the queue. `needles` are her and the Hub's secrets."""

    scheduler: str
    lab: Path
    hub: Hub
    job: str
    node: str
    waiting: str
    processes: Processes
    session: requests.Session
    needles: dict
    since: float


@pytest.fixture(autouse=True)
def nothing_left():
    """The servers of this module stay from test to test; the fixture below takes them away."""


@pytest.fixture(scope="module")
def alice(lab, make_hub, scheduler):
    cancel_all()
    queue_is_empty_within(40, "alice", "bob")
    since = time.time()
    with make_hub(scheduler, extra=DEBUG) as hub:
        hub.spawn("alice", {"partition": "debug"})
        (job,) = jobs_of("alice")
        with drained("n3"):
            hub.api("POST", server_path("alice", WAITS), json={"partition": "gpu-shared"})
            within(20, lambda: len(jobs_of("alice")) == 2, hub.log)
            yield at_work(scheduler, lab, hub, job, since)
            hub.stop_server("alice", WAITS)
            hub.stop_server("alice")
        queue_is_empty_within(40, "alice")


def at_work(scheduler, lab, hub, job, since):
    (waiting,) = set(jobs_of("alice")) - {job}
    record = shown(job)
    node = record["BatchHost"] if scheduler == "slurm" else record["exec_host"].partition("/")[0]
    session = hub.log_in("alice")
    # The way through the Hub's login leaves cookies of the server as well.
    assert session.get(f"{hub.url}/user/alice/lab", timeout=60).ok
    kernel = session.post(
        f"{hub.url}/user/alice/api/kernels",
        headers={"X-XSRFToken": session.cookies.get("_xsrf", path="/user/alice/")},
        json={},
        timeout=60,
    )
    assert kernel.ok, kernel.text
    processes = Processes(lab, node, job)
    alice = Victim(scheduler, lab, hub, job, node, waiting, processes, session, {}, since)
    alice.needles = dict(secrets_of(alice))
    return alice


def secrets_of(alice):
    """What nobody else may know, each proven to be what it is called."""
    hub = alice.hub
    token = alice.processes.environment["JUPYTERHUB_API_TOKEN"]
    assert hub.get("/hub/api/user", headers={"Authorization": f"token {token}"}).json()["name"] == "alice"
    yield "API token, which is her OAuth secret too", token
    yield TICKET, ticket_in(script_of(alice.waiting))
    assert exchange(alice, ticket_in(script_of(alice.waiting)), alice.waiting).status_code == 503
    (key,) = alice.processes.in_launchers_memory(rb"hpcr_[\w-]{43}")
    assert hub.post("/hub/api/hpcspawner/report", {"report_key": key, "event": "warned"}).ok
    yield "report key", key
    yield "the Hub's cookie secret", (hub.folder / "cookie_secret").read_text().strip()
    yield "the Hub's own secret", (hub.folder / "hpcspawner_secret").read_text().strip()
    yield "the proxy's token", environment(int((hub.folder / "proxy.pid").read_text()))["CONFIGPROXY_AUTH_TOKEN"]
    for cookie in alice.session.cookies:
        yield f"cookie {cookie.name} of {cookie.path}", cookie.value.strip('"')
    # By its id: a server of hers in another lab, with the same home, may have kernels too.
    (kernel,) = alice.session.get(f"{hub.url}/user/alice/api/kernels", timeout=60).json()
    connection = Path(f"/home/alice/.local/share/jupyter/runtime/kernel-{kernel['id']}.json")
    yield "key of her kernel", json.loads(connection.read_text())["key"]
    key_file = alice.processes.environment.get("JUPYTERHUB_SSL_KEYFILE")
    if key_file:
        lines = Path(key_file).read_text().splitlines()
        yield "private key of her server", max(lines, key=len)


def ticket_in(text):
    (ticket,) = set(re.findall(r"hpct_[\w-]{43}", text))
    return ticket


def log_of(alice):
    return Path(environment(alice.processes.launcher)["HPC_LOG"])


def exchange(alice, ticket, job):
    body = {"ticket": ticket, "job": job, "run": secrets.token_urlsafe(24)}
    return alice.hub.post("/hub/api/hpcspawner/ticket", body)


def forms(secret):
    """How a secret may be written down, in hex."""
    raw = secret.encode()
    return [form.hex() for form in {raw, quote(secret, safe="").encode(), base64.b64encode(raw), raw.hex().encode()}]


def commands(alice):
    """What asks the system and the scheduler; for each job, as they are."""
    yield ["ps", "auxeww"]
    yield ["ps", "-eLo", "pid,user,comm,args,environ", "-ww"]
    yield from of_slurm(alice) if alice.scheduler == "slurm" else of_torque(alice)


def of_torque(alice):
    for words in ((), (alice.job,), (alice.waiting,)):
        yield [torque("qstat"), "-f", *words]
        yield [torque("qstat"), "-x", *words]
    yield [torque("qstat"), "-Q", "-f"]
    yield [torque("qstat"), "-B", "-f"]
    yield [torque("pbsnodes"), "-x"]


def of_slurm(alice):
    yield ["squeue", "-a", "-o", "%all"]
    yield ["squeue", "-a", "--json"]
    yield ["scontrol", "show", "job", "-d", "-o"]
    yield ["scontrol", "show", "step"]
    yield ["scontrol", "show", "config"]
    yield ["sacct", "-a", "-P", "-o", "ALL"]
    yield ["sacct", "-a", "--json"]
    for job in (alice.job, alice.waiting):
        yield ["scontrol", "show", "job", "-dd", job]


def refused(job):
    """What must be denied to who is not the job's owner."""
    if "." in job:
        yield ["cat", f"/var/spool/torque/server_priv/jobs/{job}.SC"]
        yield [torque("qsig"), "-s", "CONT", job]
        yield [torque("qalter"), "-l", "walltime=10:00", job]
        return
    yield ["scontrol", "write", "batch_script", job, "-"]
    yield ["sacct", "-j", job, "--batch-script"]
    yield ["sacct", "-j", job, "--env-vars"]
    yield ["srun", "--overlap", f"--jobid={job}", "--immediate=5", "env"]
    yield ["sattach", f"{job}.batch"]


def folders(alice):
    """Where programs leave things."""
    yield from ("/etc", "/home", "/root", "/run", "/srv", "/tmp", "/var/log", "/var/spool", "/var/tmp")
    yield from ("/dev/shm", "/dev/mqueue", str(alice.hub.folder))
    # Not what never changes: the users' environments.
    yield from (str(path) for path in alice.lab.iterdir() if path.is_dir() and "env" not in path.name)


@contextlib.contextmanager
def planted(alice, words):
    """The same kinds of things, where they may be found."""
    file = Path("/home/alice/planted")
    file.write_text(words["file"])
    file.chmod(0o644)
    if alice.scheduler == "slurm":
        on_head("scontrol", "update", f"jobid={alice.job}", f"admincomment={words['record']}")
    else:
        on_head(torque("qalter"), "-W", f"comment={words['record']}", alice.job)
    # The last is a process of his own, which shows that he reads variables where he may.
    carriers = [
        subprocess.Popen(["sudo", "-n", "-u", "alice", *_SLEEPS, words["command line"]]),
        subprocess.Popen(["sudo", "-n", "-u", "bob", "env", f"PLANTED={words['variable']}", *_SLEEPS]),
    ]
    try:
        yield
    finally:
        file.unlink()
        for carrier in carriers:
            carrier.terminate()
            carrier.wait()


# Where what lies open to all is found: the record, the job's name, and what lets nobody else into the job.
OPEN = {
    "slurm": ({"scontrol show job -d -o"}, {"squeue -a -o %all", "sacct -a -P -o ALL", "sacct -a --json"}),
    "torque": ({f"{torque('qstat')} -x"}, {f"{torque('qstat')} -x", f"{torque('qstat')} -f"}),
}
CLOSED = {
    "slurm": ["srun --overlap --jobid={job} --immediate=5 env"],
    "torque": [f"{torque('qsig')} -s CONT {{job}}", "cat /var/spool/torque/server_priv/jobs/{job}.SC"],
}


@pytest.mark.parametrize("host", ["head", "node"])
def test_another_user_finds_none_of_her_secrets(alice, host):
    words = {place: f"planted{secrets.token_hex(16)}" for place in ("file", "command line", "record", "variable")}
    words["name"] = shown(alice.job)["JobName" if alice.scheduler == "slurm" else "Job_Name"]
    needles = {name: forms(secret) for name, secret in (alice.needles | words).items()}
    asked = [*commands(alice), *(argv for job in (alice.job, alice.waiting) for argv in refused(job))]
    order = {"needles": needles, "commands": asked, "folders": list(folders(alice)), "since": alice.since}
    with planted(alice, words):
        answer = attacker.search(alice.lab, alice.node if host == "node" else host, "bob", **order)
    places = {name: [place for found, place in answer["found"] if found == name] for name in needles}
    assert {name: where for name, where in places.items() if where and name not in words} == {}
    # What lies open he finds, each where it is, so the search is one.
    assert "/home/alice/planted" in places["file"]
    assert "ps auxeww" in places["command line"]
    records, names = OPEN[alice.scheduler]
    lines = {" ".join(argv) for argv in asked}
    assert records & lines <= set(places["record"])
    assert names & lines <= set(places["name"])
    assert any(place.endswith("/environ") for place in places["variable"])
    # Nothing that is open to everybody went unasked, and into her job he does not get.
    assert [argv for argv in commands(alice) if argv in asked and answer["codes"][" ".join(argv)]] == []
    closed = {line.format(job=alice.job) for line in CLOSED[alice.scheduler]} & lines
    assert [line for line in closed if answer["codes"][line] == 0] == []


def test_the_hubs_log_holds_none_of_them_even_at_debug(alice):
    text = alice.hub.log()
    for told in (f"job {alice.job} ", "[D ", "[ConfigProxy]", "POST /hub/api/hpcspawner/ticket", "/hub/login"):
        assert told in text
    spent = {"spent ticket": ticket_in(script_of(alice.job)), "password": PASSWORD}
    assert [name for name, secret in (alice.needles | spent).items() if secret in text] == []


def test_the_log_of_her_job_holds_none_of_them(alice):
    text = log_of(alice).read_text()
    assert "hpcspawner: server listens on port" in text
    spent = {"spent ticket": ticket_in(script_of(alice.job))}
    held = [name for name, secret in (alice.needles | spent).items() if secret in text]
    # JupyterHub's server notes the number of a session, which is no key to it, in this log that is hers alone.
    assert [name for name in held if "jupyterhub-session-id" not in name] == []


def test_scripts_and_records_hold_a_ticket_that_is_spent_and_nothing_else(alice):
    """Root sees what the scheduler keeps of a job that runs: script and variables."""
    if alice.scheduler == "slurm":
        kept = on_head("sacct", "-j", alice.job, "--batch-script") + on_head("sacct", "-j", alice.job, "--env-vars")
        assert "SLURM_" in kept
    else:
        record = Path(f"/var/spool/torque/server_priv/jobs/{alice.job}.JB").read_text(errors="replace")
        kept = script_of(alice.job) + record
        assert "PBS_O_" in record
    ticket = ticket_in(kept)
    assert ticket == ticket_in(script_of(alice.job))
    assert [name for name, secret in alice.needles.items() if secret in kept + script_of(alice.job)] == []
    assert exchange(alice, ticket, alice.job).status_code == 403
    # Nor is it good for another job, or another job's ticket for this one.
    assert exchange(alice, ticket, alice.waiting).status_code == 403
    assert exchange(alice, alice.needles[TICKET], alice.job).status_code == 403
    within(
        10,
        lambda: f"alice: a ticket call from {HEAD} was refused: presented again" in alice.hub.log(),
        "it is not in the log",
    )


def test_what_a_server_leaves_on_disk_is_its_users_alone(alice):
    log = log_of(alice)
    private = {log.parent: 0o700, log: 0o600}
    key = alice.processes.environment.get("JUPYTERHUB_SSL_KEYFILE")
    if key:
        private |= {Path(key).parent: 0o700, Path(key): 0o600}
    assert {path: path.stat().st_mode & 0o777 for path in private} == private
    assert {path.owner() for path in private} == {"alice"}
