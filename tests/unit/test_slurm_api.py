"""Slurm by slurmrestd: the mapping on recorded answers of 22.05, and the transport against services that misbehave."""

import asyncio
import base64
import contextlib
import datetime
import hashlib
import hmac
import json
import logging
import os
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from support.authority import PEM

from hpcspawner.errors import ProfileError, SchedulerNotSetUp, SchedulerRejected, SchedulerUnreachable
from hpcspawner.schedulers import rest
from hpcspawner.schedulers import slurm_api_versions as versions
from hpcspawner.schedulers.base import Answer, JobLabel, Resources, Submission
from hpcspawner.schedulers.cluster import Cluster
from hpcspawner.schedulers.facts import sum_up
from hpcspawner.schedulers.nodes import NodeState
from hpcspawner.schedulers.rest import Api, read_key, token
from hpcspawner.schedulers.slurm_api import SlurmApi
from hpcspawner.schedulers.slurm_api_words import JOB_WORDS
from hpcspawner.schedulers.state import Cause, JobState
from hpcspawner.site.profile import Access, SiteProfile, parse
from hpcspawner.units import Memory, Walltime

RECORDED = Path(__file__).parent.parent / "recorded/slurmrestd-22.05"
slurm = SlurmApi(environment={"PATH": "/usr/bin:/bin"})
KEY = b"k" * 32


def recorded(name):
    return (RECORDED / f"{name}.json").read_text()


def answered(name, status):
    """A recorded answer as the transport hands it on."""
    errors = rest._errors(recorded(name))
    return Answer(int(status != 200 or bool(errors)), recorded(name), errors)


def job_id(name):
    return str(json.loads(recorded(name))["jobs"][0]["job_id"])


# --- submit


def body(**changes):
    resources = Resources("compute", Walltime(3600), memory=Memory.parse("2G"), **changes)
    options = slurm.options(resources, JobLabel("jupyter", "hc0de1234567890", follows="17"))
    return worded(options)


def worded(options, version="v0.0.38", script="#!/bin/bash\n"):
    return json.loads(versions.body(version, slurm.submit_input(options, script)))


def test_a_submit_has_script_and_options_in_the_interfaces_words():
    assert body(gpus=1, account="ddp363", qos="normal", reservation="r", features=("a", "b"), warning_s=60) == {
        "script": "#!/bin/bash\n",
        "job": {
            "current_working_directory": "/",
            "standard_output": "/dev/null",
            "environment": {"PATH": "/usr/bin:/bin", "SLURM_NTASKS_PER_NODE": "1", "SLURM_CPUS_PER_TASK": "1"},
            "name": "jupyter",
            "comment": "hc0de1234567890",
            "partition": "compute",
            "time_limit": "01:00:00",
            "nodes": "1",
            "tasks_per_node": "1",
            "cpus_per_task": "1",
            "memory_per_node": "2048M",
            "gres": "gpu:1",
            "account": "ddp363",
            "qos": "normal",
            "reservation": "r",
            "constraints": "a&b",
            "no_requeue": True,
            "dependency": "afternotok:17",
            "kill_on_invalid_dependency": True,
        },
    }


def test_all_of_a_nodes_memory_is_asked_for_by_cpu():
    resources = Resources("compute", Walltime(3600), whole_nodes=True, requeue=True)
    job = worded(slurm.options(resources, JobLabel("j", "h")))["job"]
    assert (job["exclusive"], job["memory_per_cpu"], job["requeue"]) == ("exclusive", 0, True)
    assert "memory_per_node" not in job


def test_the_script_warns_itself():
    lines = slurm.script_lines(Resources("compute", Walltime(600), warning_s=60))
    assert "hpc_left=540" in lines
    assert "SRUN_CPUS_PER_TASK" in lines


def test_every_option_of_ours_has_a_word():
    assert set(slurm.option_patterns) - {"signal"} <= set(JOB_WORDS)


@pytest.mark.parametrize("version", versions.KNOWN)
def test_an_option_without_a_word_is_no_part_of_a_submit(version):
    with pytest.raises(ValueError, match="no word for the option 'spread-job'"):
        worded([("spread-job", "")], version)


def test_a_newer_version_has_words_of_its_own():
    resources = Resources("compute", Walltime(3601), memory=Memory.parse("2G"), gpus=2, gpu_type="v100", warning_s=60)
    options = slurm.options(resources, JobLabel("jupyter", "hc0de1234567890", follows="17"))
    assert worded(options, "v0.0.42") == {
        "script": "#!/bin/bash\n",
        "job": {
            "current_working_directory": "/",
            "standard_output": "/dev/null",
            "environment": ["PATH=/usr/bin:/bin", "SLURM_NTASKS_PER_NODE=1", "SLURM_CPUS_PER_TASK=1"],
            "name": "jupyter",
            "comment": "hc0de1234567890",
            "partition": "compute",
            "time_limit": {"set": True, "number": 61},
            "nodes": "1",
            "tasks_per_node": 1,
            "cpus_per_task": 1,
            "memory_per_node": {"set": True, "number": 2048},
            "tres_per_node": "gres/gpu:v100:2",
            "requeue": False,
            "dependency": "afternotok:17",
            "flags": ["KILL_INVALID_DEPENDENCY"],
        },
    }


def test_all_of_a_nodes_memory_in_a_newer_version():
    resources = Resources("compute", Walltime(3600), whole_nodes=True, requeue=True)
    job = worded(slurm.options(resources, JobLabel("j", "h")), "v0.0.40")["job"]
    assert (job["shared"], job["memory_per_node"], job["requeue"]) == (["none"], {"set": True, "number": 0}, True)


@pytest.mark.parametrize(
    "pairs", [[("gres", "gpu:1"), ("gpus-per-node", "2")], [("nice", "low")], [("begin", "now+1hour")], [("tmp", "x")]]
)
def test_what_a_newer_version_has_no_form_for_is_refused(pairs):
    with pytest.raises(ValueError, match=r"slurmrestd|memory"):
        worded(pairs, "v0.0.42")


@pytest.mark.parametrize(
    ("offered", "newest"),
    [("v0.0.36 v0.0.37 v0.0.38", "v0.0.38"), ("v0.0.38 v0.0.39 v0.0.40", "v0.0.40"), ("v0.0.44 v0.0.42", "v0.0.44")],
)
def test_the_newest_version_that_the_hub_speaks_is_used(offered, newest):
    assert versions.newest(overview(*offered.split())) == newest


@pytest.mark.parametrize("text", ["", "{}", "<html>v0.0.42</html>", '{"errors": [{"error": "no"}]}'])
def test_what_is_no_overview_names_no_version(text):
    with pytest.raises(LookupError):
        versions.newest(text)


def test_versions_that_are_too_new_are_named():
    with pytest.raises(LookupError, match=r"v0\.0\.99"):
        versions.newest(overview("v0.0.99"))


def overview(*offered):
    return json.dumps({"paths": {f"/slurm/{one}/job/submit": {} for one in offered}}).replace("/", r"\/")


def test_the_number_of_a_held_job_is_read_though_it_has_an_error():
    assert slurm.parse_submit(recorded("held-submit")) == job_id("held")


@pytest.mark.parametrize("out", ["", "{}", "[]", '{"job_id": null}', '{"job_id": "1;rm"}', "<html>", "[" * 100_000])
def test_an_answer_without_a_number_is_not_believed(out):
    with pytest.raises(ValueError, match=r"job|Expecting|nested|object"):
        slurm.parse_submit(out)


# --- the list of jobs


@pytest.mark.parametrize(
    ("name", "state", "host", "reason"),
    [
        ("held", JobState.HELD, None, "JobHeldUser"),
        ("running", JobState.RUNNING, "n1", ""),
        ("failed", JobState.ENDED, None, "NonZeroExitCode"),
        ("cancelled", JobState.ENDED, None, ""),
    ],
)
def test_a_job_in_a_listing(name, state, host, reason):
    ((found, status),) = slurm.parse_query(recorded(name), "").items()
    assert found == job_id(name)
    assert (status.state, status.host, status.reason) == (state, host, reason)
    assert (status.owner, status.tag) == ("alice", "hctag")
    assert (status.starts_at > 1.7e9) is (name != "held")


def test_the_tag_may_be_the_name():
    (status,) = SlurmApi(tag="job-name").parse_query(recorded("held"), "").values()
    assert status.tag == "hc0dewaits"


def test_a_number_that_is_listed_twice_is_unknown():
    twice = json.loads(recorded("running"))
    twice["jobs"] *= 2
    (status,) = slurm.parse_query(json.dumps(twice), "").values()
    assert status.state is JobState.UNKNOWN


@pytest.mark.parametrize(
    "out",
    [
        "",
        "{}",
        '{"jobs": null}',
        '{"jobs": {}}',
        '{"jobs": [7]}',
        '{"jobs": [{}]}',
        '{"jobs": [{"job_id": "x"}]}',
        '{"jobs": [], "errors": [{"error": "Unspecified error", "error_number": -1}]}',
    ],
)
def test_a_listing_that_is_none_is_not_believed(out):
    with pytest.raises(ValueError, match=r"no list|Expecting|not the id"):
        slurm.parse_query(out, "")


def test_runs_are_counted():
    assert slurm.parse_runs(job_id("running"), recorded("running"), "") == 1
    assert slurm.parse_runs(job_id("held"), recorded("held"), "") == 0
    with pytest.raises(ValueError, match="how often"):
        slurm.parse_runs("1", recorded("running"), "")


# --- how a job ended


def end(name):
    return slurm.parse_end(job_id(name), [recorded(name), recorded(f"{name}-accounted")], "", str)


def test_the_exit_code_of_a_job():
    assert (end("failed").cause, end("failed").exit_code, end("failed").node) == (Cause.EXITED, 3, "n1")


def test_the_accounting_of_22_05_has_no_exit_code_and_none_is_made_up():
    only_accounted = slurm.parse_end(job_id("failed"), ["", recorded("failed-accounted")], "", str)
    assert (only_accounted.cause, only_accounted.exit_code) == (Cause.UNKNOWN, None)


def test_who_cancelled_a_job():
    assert end("cancelled").message == "The job was cancelled by alice."
    late = slurm.parse_end(job_id("cancelled"), [recorded("cancelled"), recorded("not-accounted")], "", str)
    assert (late.cause, late.cancelled_by) == (Cause.CANCELLED, "")


def test_a_job_that_has_not_ended_has_no_record():
    assert slurm.parse_end(job_id("running"), [recorded("running"), ""], "", str) is None
    assert slurm.parse_end("1", ["", ""], "", str) is None


# --- what a failure means


@pytest.mark.parametrize(
    ("name", "status", "unreachable", "gone", "hint"),
    [
        ("refused", 500, False, False, False),
        ("unknown-job", 500, False, True, False),
        ("not-accounted", 200, True, True, False),
        ("not-yours", 500, False, False, False),
        ("bad-token", 500, True, False, True),
        ("bad-token-submit", 500, True, False, True),
    ],
)
def test_only_a_refusal_by_number_is_a_refusal(name, status, unreachable, gone, hint):
    answer = answered(name, status)
    assert answer.code
    assert slurm.unreachable(answer) is unreachable
    assert slurm.already_gone(answer) is gone
    assert bool(slurm.hint(answer)) is hint


# --- what is free


def test_nodes_and_partitions():
    nodes = list(slurm.parse_nodes(recorded("nodes"), ""))
    free = sum_up(nodes, ())
    assert (free["compute"].cores, free["gpu-shared"].gpus, free["gpu-shared"].idle_gpus) == (
        128,
        {"v100": 4},
        {"v100": 4},
    )
    assert slurm.parse_open(recorded("partitions"), "") == {"debug": True, "compute": True, "gpu-shared": True}
    drained = json.loads(recorded("nodes"))
    drained["nodes"][0]["state_flags"] = ["DRAIN"]
    assert next(slurm.parse_nodes(json.dumps(drained), "")).state is NodeState.DOWN


def test_waiting_jobs():
    waiting = slurm.parse_waiting(recorded("held"), "")
    assert (waiting["compute"].count, waiting["compute"].order) == (1, (job_id("held"),))


# --- tokens


def test_a_token_is_for_one_user_and_ends():
    head, claims, signature = token(KEY, "alice", 1_900_000_000).split(".")
    decoded = json.loads(base64.urlsafe_b64decode(claims + "=="))
    assert (decoded["sun"], decoded["exp"]) == ("alice", 1_900_000_000)
    expected = hmac.new(KEY, f"{head}.{claims}".encode(), hashlib.sha256).digest()
    assert base64.urlsafe_b64decode(signature + "=") == expected


def test_there_is_no_token_for_root():
    with pytest.raises(SchedulerRejected):
        token(KEY, "root", 1)


@pytest.mark.parametrize("mode", [0o440, 0o404, 0o644, 0o420])
def test_a_key_that_others_could_use_is_refused(tmp_path, mode):
    path = tmp_path / "key"
    path.write_bytes(KEY)
    path.chmod(mode)
    with pytest.raises(ValueError, match="others could use it"):
        read_key(str(path))


def test_a_key_is_a_file_of_its_own_and_long_enough(tmp_path):
    path = tmp_path / "key"
    path.write_bytes(KEY)
    path.chmod(0o400)
    assert read_key(str(path)) == KEY
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(OSError, match="symbolic links"):
        read_key(str(tmp_path / "link"))
    path.chmod(0o600)
    path.write_bytes(b"short")
    with pytest.raises(ValueError, match="no key"):
        read_key(str(path))


# --- the transport


def self_signed(folder, names):
    """A file with a certificate for these names and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "slurmrestd")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(one) for one in names]), critical=False)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = folder / "service.pem"
    path.write_bytes(certificate.public_bytes(PEM) + secret)
    return path


@contextlib.asynccontextmanager
async def service(tmp_path, answer, names=("localhost",)):
    """A service with TLS that answers so; `seen` has what it was asked."""
    certificate = self_signed(tmp_path, names)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    seen = []

    async def serve(reader, writer):
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            seen.append(await reader.readuntil(b"\r\n\r\n"))
            await answer(reader, writer)
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield f"https://localhost:{port}", str(certificate), seen


def answering(text, status="200 OK", length=None):
    async def answer(_reader, writer):
        data = text.encode()
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {length or len(data)}\r\n\r\n".encode() + data)
        await writer.drain()

    return answer


def in_turn(*answers):
    """The first request gets the first answer; the last one is given again and again."""
    left = list(answers)

    async def answer(reader, writer):
        await (left.pop(0) if len(left) > 1 else left[0])(reader, writer)

    return answer


async def silence(reader, _writer):
    await reader.read()


async def hang_up(_reader, _writer):
    """Say nothing, and end."""


def access(tmp_path, address, authority):
    path = tmp_path / "jwt.key"
    if not path.exists():
        path.write_bytes(KEY)
        path.chmod(0o400)
    more = {"api_ca": authority, "api_account": "hub", "command_timeout_s": 1.0}
    return Access(type="slurm", api=address, api_key_file=str(path), **more)


async def test_a_request_shows_a_token_and_nothing_else(tmp_path):
    async with service(tmp_path, answering(recorded("running"))) as (address, authority, seen):
        answer = await Api(access(tmp_path, address, authority)).run(["alice", "GET", "/slurm/v0.0.38/jobs"])
    assert answer.code == 0
    assert seen[0].startswith(b"GET /slurm/v0.0.38/jobs HTTP/1.1\r\n")
    assert b"X-Slurm-User-Name: alice\r\n" in seen[0]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(silence, id="hangs"),
        pytest.param(hang_up, id="hangs up"),
        pytest.param(answering("<html>", "200 OK"), id="another page"),
        pytest.param(answering("", "200 OK"), id="empty"),
        pytest.param(answering("{}", "502 Bad Gateway"), id="gateway"),
        pytest.param(answering("moved", "302 Found"), id="redirect"),
        pytest.param(answering("{", length=1000), id="cut"),
        pytest.param(answering("{", length=10**12), id="too long"),
        pytest.param(answering("no HTTP at all", "garbage"), id="garbage"),
    ],
)
async def test_what_is_no_answer_leaves_it_unknown(tmp_path, answer):
    async with service(tmp_path, answer) as (address, authority, _):
        with pytest.raises(SchedulerUnreachable) as caught:
            await Api(access(tmp_path, address, authority)).run(["alice", "DELETE", "/slurm/v0.0.38/job/1"])
    assert caught.value.settled_at > 0
    assert not caught.value.lingering


async def test_nothing_that_is_said_or_logged_has_a_token(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    async with service(tmp_path, answering("{}", "502 Bad Gateway")) as (address, authority, seen):
        with pytest.raises(SchedulerUnreachable) as caught:
            await Api(access(tmp_path, address, authority)).run(["alice", "GET", "/x"])
    shown = seen[0].partition(b"X-Slurm-User-Token: ")[2].partition(b"\r\n")[0].decode()
    assert shown.count(".") == 2
    said = f"{caught.value} {caught.value.command} {caught.value.words} {caplog.text}"
    assert shown not in said
    assert shown.rpartition(".")[2] not in said


async def test_a_certificate_for_another_name_is_no_service(tmp_path):
    async with service(tmp_path, answering("{}"), names=("elsewhere",)) as (address, authority, seen):
        with pytest.raises(SchedulerUnreachable, match="does not answer"):
            await Api(access(tmp_path, address, authority)).run(["alice", "GET", "/x"])
    assert seen == []


async def test_a_certificate_of_another_authority_is_no_service(tmp_path):
    (tmp_path / "other").mkdir()
    async with (
        service(tmp_path, answering("{}")) as (address, _, seen),
        service(tmp_path / "other", answering("{}")) as (_, other, _),
    ):
        with pytest.raises(SchedulerUnreachable, match="does not answer"):
            await Api(access(tmp_path, address, other)).run(["alice", "GET", "/x"])
    assert seen == []


async def test_a_version_that_is_not_there_is_told(tmp_path):
    page = "Unable find requested URL. Please view /openapi/v3 for API reference."
    async with service(tmp_path, answering(page, "404 Not Found")) as (address, authority, _):
        with pytest.raises(SchedulerNotSetUp, match="version of Slurm's REST interface"):
            await Api(access(tmp_path, address, authority)).run(["alice", "GET", "/x"])


async def test_a_service_of_another_slurm_is_asked_again_for_its_version(tmp_path):
    gone = answering("Unable find requested URL. Please view /openapi/v3 for API reference.", "404 Not Found")
    turns = in_turn(answering(overview("v0.0.38")), gone, answering(overview("v0.0.44")), answering("{}"))
    async with service(tmp_path, turns) as (address, authority, seen):
        api = Api(access(tmp_path, address, authority))
        with pytest.raises(SchedulerNotSetUp):
            await api.run(["alice", "GET", f"/slurm/{versions.PLACE}/jobs"])
        await asyncio.gather(*(api.run(["alice", "GET", f"/slurm/{versions.PLACE}/jobs"]) for _ in range(3)))
    asked = [one.split()[1].decode() for one in seen]
    assert asked == ["/openapi/v3", "/slurm/v0.0.38/jobs", "/openapi/v3", *["/slurm/v0.0.44/jobs"] * 3]


async def test_an_option_that_the_version_has_no_word_for_is_not_sent(tmp_path):
    job = versions.neutral([("cores-per-socket", "2")], "#!/bin/bash\n", {})
    async with service(tmp_path, answering(overview("v0.0.42"))) as (address, authority, seen):
        with pytest.raises(SchedulerRejected, match="no word for the option 'cores-per-socket'"):
            await Api(access(tmp_path, address, authority)).run(["alice", "POST", f"/{versions.PLACE}/x"], job)
    assert len(seen) == 1


async def test_a_key_that_others_may_read_sends_nothing(tmp_path):
    async with service(tmp_path, answering("{}")) as (address, authority, seen):
        reached = access(tmp_path, address, authority)
        os.chmod(reached.api_key_file, 0o444)
        with pytest.raises(SchedulerNotSetUp, match="others could use it"):
            await Api(reached).run(["alice", "GET", "/x"])
    assert seen == []


# --- the profile

API = {"api": "https://head:6843", "api_key_file": "/etc/jupyterhub/slurm-jwt.key"}


def profile(scheduler, **more):
    data = {
        "title": "T",
        "scheduler": {"type": "slurm", **scheduler},
        "partitions": [{"name": "compute", "max_walltime": "1d"}],
        "environments": [{"name": "plain"}],
    }
    return parse(data | more, "site.toml")


def test_jobs_are_their_users_own_without_a_prefix():
    access = profile(API).scheduler
    assert (access.prefix, access.acts_for_users) == ((), True)


@pytest.mark.parametrize(
    ("scheduler", "words"),
    [
        ({"api": "https://head:6843"}, "api needs api_key_file"),
        ({"api_key_file": "/k"}, "name that in api"),
        ({"api_account": "hub"}, "name that in api"),
        ({**API, "api": "http://head:6843"}, "write an address with https"),
        ({**API, "api": "https://head:99999"}, "write an address with https"),
        ({**API, "api": "https://user:word@head"}, "write an address with https"),
        ({**API, "api_account": "root"}, "asks nothing as root"),
        ({**API, "helper": "/usr/local/libexec/hpcspawner"}, "helper is for commands"),
        ({**API, "command_prefix": ["sudo", "-n", "-u", "{user}"]}, "command_prefix is for commands"),
        ({**API, "look": True}, "look is for commands"),
        (
            {**API, "ssh": ["hub@login1"], "ssh_key": "/k", "ssh_known_hosts": "/h"},
            "ssh is for commands",
        ),
        ({**API, "type": "openpbs"}, "only slurm can be reached so"),
    ],
)
def test_what_does_not_go_with_a_rest_service_is_refused(scheduler, words):
    with pytest.raises(ProfileError, match=words):
        profile(scheduler)


@pytest.mark.parametrize("option", ["bb", "network", "container", "spread-job", "prefer", "wckey", "gpus-per-task"])
def test_an_option_that_the_interface_does_not_carry_is_refused_with_the_profile(option):
    wanted = {"directives": [{"option": option, "value": "x"}]}
    profile({}, job=wanted)
    with pytest.raises(ProfileError, match="slurmrestd has no word for it"):
        profile(API, job=wanted)


def test_an_option_that_it_carries_is_taken():
    directives = [{"option": "nice", "value": "5"}, {"option": "hold"}, {"option": "gres", "value": "lscratch:10"}]
    assert len(profile(API, job={"directives": directives}).directives) == 3


# --- through the client


def cluster(tmp_path, address, authority):
    scheduler = access(tmp_path, address, authority).model_dump(exclude_unset=True)
    profile = SiteProfile.model_validate(
        {
            "title": "T",
            "scheduler": scheduler,
            "partitions": [{"name": "compute", "max_walltime": "1d"}],
            "environments": [{"name": "plain"}],
        }
    )
    return Cluster.of(profile, tmp_path / "spool", logging.getLogger("test"))


async def test_a_token_that_is_not_accepted_leaves_jobs_unknown_and_says_what_to_compare(tmp_path):
    refused = answering(recorded("bad-token"), "500 Internal Server Error")
    async with service(tmp_path, in_turn(answering(overview("v0.0.38")), refused)) as (address, ca, _):
        with pytest.raises(SchedulerUnreachable) as caught:
            await cluster(tmp_path, address, ca).client.listing()
    assert "api_key_file with jwt_key" in caught.value.words


async def test_a_submit_whose_answer_was_lost_is_unknown(tmp_path):
    async with service(tmp_path, in_turn(answering(overview("v0.0.42")), hang_up)) as (address, authority, seen):
        client = cluster(tmp_path, address, authority).client
        with pytest.raises(SchedulerUnreachable) as caught:
            await client.submit("alice", Submission((("job-name", "x"),), "#!/bin/bash\ntrue\n"))
    assert [one.split()[1] for one in seen] == [b"/openapi/v3", b"/slurm/v0.0.42/job/submit"]
    assert caught.value.settled_at > 0


async def test_commands_are_not_run(tmp_path):
    client = cluster(tmp_path, "https://localhost:1", "/etc/hosts").client
    with pytest.raises(SchedulerNotSetUp, match="runs no commands"):
        await client.output(["sinfo", "--version"])
    assert not client.can_estimate
