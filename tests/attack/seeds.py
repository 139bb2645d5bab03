"""What the fuzzer starts from: honest inputs of every door, and those that were a fault once."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

from attack.doors import BETWEEN, MARK
from attack.options import PAYLOADS
from hpcspawner.request.options import OPTIONS
from hpcspawner.schedulers import pbs, slurm_words

CORPUS = Path(__file__).parent / "corpus"
"""One folder for each door; a file in it was a fault once and must not become one again."""
_TREE = Path(__file__).parents[2]
_RECORDED = _TREE / "tests" / "recorded"

_BODIES = (
    {},
    {"partition": "debug", "walltime": "30m", "cpus": 2, "memory": "1.5G", "features": ["ssd"], "qos": "normal"},
    {"partition": "gpu", "gpus": "2", "gpu_type": "a100", "account": "ddp363", "reservation": "class"},
    {"environment": "plain", "image": "torch", "interface": "notebook", "directory": "/scratch/it's here"},
    {"queue_limit": "1d 12h", "idle_limit": "never", "renewals": 1, "details": True, "nodes": 2},
)
_TICKET = {"ticket": "t" * 43, "job": "12"}
_CSR = (CORPUS.parent / "honest.csr").read_text()
_REPORTS = (
    {"report_key": "k" * 43, "event": "listening", "port": 20000},
    {"report_key": "k" * 43, "event": "warned"},
    {"report_key": "k" * 43, "event": "renew"},
    {
        "report_key": "k" * 43,
        **{"event": "ended", "reason": "server-exited", "message": "m", "exit_code": 1, "signal": 15, "log": ["a"]},
    },
)
_LOCAL_JOB = {"id": "12", "state": "running", "host": "n", "owner": "a", "reason": "", "tag": "t", "starts": ""}
_LOCAL_END = {"id": "12", "state": "ended", "reason": "walltime", "exit": -9}
_UNITS = ("30m", "1d 12h", "1-12:00:00", "48:00:00", "64G", "1.5T", "512MiB")


def seeds(door: str) -> Iterator[bytes]:
    """Inputs for one door."""
    yield from faults(door)
    yield from _honest(door)


def faults(door: str) -> list[bytes]:
    """Inputs that this door did not stand once."""
    folder = CORPUS / door
    return [file.read_bytes() for file in sorted(folder.iterdir())] if folder.is_dir() else []


def _honest(door: str) -> Iterator[bytes]:
    texts: dict[str, list[object]] = {
        "options": [json.dumps(body) for body in _BODIES],
        "stored": [json.dumps(body) for body in _BODIES],
        "form": [urlencode(body, doseq=True) for body in _BODIES],
        "profile": [file.read_text() for file in sorted((_TREE / "profiles").glob("*.toml"))],
        "units": list(_UNITS),
        "squeue": [_head(_recorded("slurm-22.05/squeue.txt"), 40)],
        "qstat": _all("torque-6.1.3/qstat-*"),
        "local_list": [json.dumps([_LOCAL_JOB, {**_LOCAL_JOB, "id": "13", "state": "ended"}])],
        "squeue_job": [_ends(file) for file in sorted((_RECORDED / "slurm-22.05" / "ends").glob("*.squeue"))],
        "qstat_json": _all("openpbs-23.06/*.json"),
        "qstat_json_job": [re.sub(r'"\d+\.vm"', '"12.vm"', str(text)) for text in _all("openpbs-23.06/*.json")],
        "qstat_job": [_torque_job(str(text)) for text in _all("torque-6.1.3/qstat-x-*")],
        "local_show": [json.dumps(_LOCAL_END)],
        "submitted": ["12\n", "12;lab\n", "12.server\n", "12[].vm\n"],
        "ticket": [json.dumps(body) for body in ({**_TICKET, "run": "r" * 43}, {**_TICKET, "csr": _CSR})],
        "csr": [_CSR],
        "report": [json.dumps(body) for body in _REPORTS],
    }
    return (str(text).encode() for text in texts[door])


def _recorded(name: str) -> str:
    return (_RECORDED / name).read_text()


def _all(pattern: str) -> list[object]:
    return [file.read_text() for file in sorted(_RECORDED.glob(pattern))]


def _head(text: str, lines: int) -> str:
    return "".join(text.splitlines(keepends=True)[:lines])


def _ends(file: Path) -> str:
    # The recorded jobs have numbers of their own; the door asks for 12.
    live, past = file.read_text(), file.with_suffix(".sacct").read_text()
    number = past.partition("|")[0]
    return re.sub(rf"(?m)^{number}\b", "12", live + BETWEEN + past)


def _torque_job(text: str) -> str:
    return re.sub(r"<Job_Id>[^<]*", "<Job_Id>12.vm", text)


def words() -> list[str]:
    """Words that a fuzzer would take long to guess."""
    states = [*slurm_words.STATES, *pbs.STATES, "CANCELLED by 1001"]
    keys = [
        f"12 |{MARK}",
        f"|{MARK}0|{MARK}768|{MARK}",
        "<Data>",
        "<Job><Job_Id>12.vm",
        "<job_state>C",
        "<exit_status>",
        '"pbs_server": "vm", "Jobs": {"12.vm": {"job_state": "F", "Exit_status": -29',
    ]
    profile = ["[[partitions]]", "[defaults]", "max_walltime = ", "name = ", "[job]", "directives = ", "0x", "1e9"]
    return [*OPTIONS, *states, *keys, *profile, MARK, *(one for one in PAYLOADS if len(one) < 60 and one.isascii())]
