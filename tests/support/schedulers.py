"""What the lab has: Slurm always; a real Torque and OpenPBS where PBS_PROGRAMS names the folder that holds them."""

import json
import os
from pathlib import Path
from xml.etree import ElementTree

from hpcspawner.schedulers.factory import make_scheduler
from hpcspawner.site import scheduler_types
from hpcspawner.site.profile import Access

EVERY = {name: make_scheduler(Access(type=name), Path("/var/lib/hub/spool")) for name in scheduler_types.BUILT_IN}
"""All that come with the package, by name: what each test of all schedulers is made for."""
ON_CLUSTERS = [one for one in EVERY.values() if not one.rules.on_hub]
TORQUE_BIN = "/opt/torque/bin"
OPENPBS_BIN = "/opt/pbs/bin"
SCHEDULERS = ["slurm", "torque"] if os.environ.get("PBS_PROGRAMS") else ["slurm"]
"""Tests for both are made for these; without a real Torque its answers are tried as recorded, in the unit tests."""
HAS_TORQUE = HAS_OPENPBS = "torque" in SCHEDULERS
IN_LAB = [*SCHEDULERS, "openpbs"] if HAS_OPENPBS else SCHEDULERS
"""All of the lab: the contract is asked of these, and `test_openpbs` shows what else a new scheduler must show."""
PATHS = {
    "slurm": ["/usr/local/bin", "/usr/bin", "/bin"],
    "torque": [TORQUE_BIN, "/usr/local/bin", "/usr/bin", "/bin"],
    "openpbs": [OPENPBS_BIN, "/usr/local/bin", "/usr/bin", "/bin"],
}
"""The profile's scheduler.path."""


def torque(name):
    """The full path of one of Torque's commands; sudo's own path does not have them."""
    return f"{TORQUE_BIN}/{name}"


def openpbs(name):
    """The full path of one of OpenPBS's commands."""
    return f"{OPENPBS_BIN}/{name}"


def openpbs_jobs(text):
    """Jobs by id of what `qstat -f -F json` printed."""
    return json.loads(text, strict=False).get("Jobs", {})


def attributes(xml):
    """Jobs by id of what `qstat -x` printed; what belongs to another attribute is `Resource_List.walltime`."""
    if not xml.strip():
        return {}
    jobs = ElementTree.fromstring(xml.strip()).iterfind("Job")
    return {job.findtext("Job_Id"): dict(_flat(job)) for job in jobs}


def _flat(element, prefix=""):
    for child in element:
        yield f"{prefix}{child.tag}", child.text or ""
        yield from _flat(child, f"{prefix}{child.tag}.")
