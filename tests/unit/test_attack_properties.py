"""What comes in from outside, in ten thousand shapes: nothing but what the gate let through gets to a job."""

import json
import subprocess
from pathlib import Path

import pytest
from attack.anatomy import ALICE, Scripts, dissect, full_site
from attack.doors import DOORS, LONGEST_REFUSAL, MARK, judged, shown_in_form
from attack.options import CANARY, Bodies, deep
from attack.seeds import faults
from hypothesis import given
from hypothesis import strategies as st
from support.schedulers import EVERY

from hpcspawner.errors import ProfileError, RequestError
from hpcspawner.request.gate import make
from hpcspawner.request.options import OPTIONS
from hpcspawner.schedulers.local import Local
from hpcspawner.site.profile import load

RECORDED = Path(__file__).parents[1] / "recorded"
SEED, COUNT = 20261121, 10_000
"""Must show: ten thousand generated bodies, the same ones in every run."""

SCRIPTS = {kind: Scripts(full_site(kind)) for kind in EVERY}


# --- options through the gate


def test_ten_thousand_bodies_make_requests_of_the_site_s_or_refusals_in_words():
    """`judged` looks at each script: no directive, no word of shell that the gate did not put there."""
    kinds = list(SCRIPTS)
    bodies = Bodies(SEED, full_site("slurm"), hostility=0.25).take(COUNT)
    accepted = [judged(body, SCRIPTS[kinds[at % len(kinds)]]) for at, body in enumerate(bodies)]
    taken = sum(request is not None for request in accepted)
    assert COUNT / 10 < taken < COUNT * 9 / 10, "bodies that are all refused, or all taken, show nothing"
    assert sum("/" in str(body.get("directory")) and CANARY in str(body) for body in bodies) > COUNT / 100


def test_the_bodies_are_the_same_in_every_run():
    first, second = (Bodies(SEED, full_site("slurm")).take(200) for _ in range(2))
    assert repr(first) == repr(second)


@pytest.mark.parametrize("kind", SCRIPTS)
def test_a_word_that_the_gate_did_not_put_there_would_be_seen(kind):
    """The examination itself: it fails where somebody else's line stands in a script."""
    text = SCRIPTS[kind].render(make({}, SCRIPTS[kind].profile, ALICE))
    honest = dissect(text)
    for line, place in ((CANARY, "hpc_launcher=$!"), ("#SBATCH --uid=0", "#!/bin/bash"), ("true", 'exit "$hpc_code"')):
        spoiled = text.replace(f"{place}\n", f"{place}\n{line}\n", 1)
        assert spoiled != text
        if line.startswith("#"):
            with pytest.raises(AssertionError, match="an option for a scheduler"):
                dissect(spoiled)
        else:
            assert dissect(spoiled) != honest


# Half of a character, a line break of another alphabet: whatever text can hold.
TEXT = st.text(st.characters(), max_size=40)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
BODY = st.dictionaries(st.sampled_from(OPTIONS) | TEXT, JSON, max_size=6)


@given(body=JSON | BODY, kind=st.sampled_from(list(SCRIPTS)))
def test_options_of_any_shape_are_judged(body, kind):
    judged(body, SCRIPTS[kind])


@given(TEXT)
def test_a_directory_of_any_name_is_one_word_of_the_script(name):
    for scripts in SCRIPTS.values():
        judged({"directory": f"/scratch/{name}"}, scripts)


@given(BODY)
def test_options_of_any_shape_bring_no_element_of_their_own_into_the_form(body):
    shown_in_form(body)


@pytest.mark.parametrize("shape", [list, dict])
@pytest.mark.parametrize("levels", [10, 500, 900, 960])
@pytest.mark.parametrize("name", ["partition", "features", "walltime", "cpus", "details", "idle_limit", "directory"])
def test_what_is_nested_as_deep_as_json_can_be_read_is_refused(name, levels, shape):
    body = {name: deep(levels, shape)}
    with pytest.raises(RequestError):
        make(body, SCRIPTS["slurm"].profile, ALICE)
    shown_in_form(body)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({f"option{number}": 1 for number in range(20_000)}, id="options"),
        pytest.param({"features": [f"feature{number}" for number in range(20_000)]}, id="features"),
        pytest.param({"x" * 100_000: 1, "partition": "x" * 100_000}, id="a long name"),
        pytest.param({"cpus": ["x" * 1000] * 1000, "memory": {"y" * 1000: 1}}, id="other shapes"),
    ],
)
def test_a_refusal_is_short_however_much_was_asked(body):
    with pytest.raises(RequestError) as caught:
        make(body, SCRIPTS["slurm"].profile, ALICE)
    assert len(str(caught.value)) < LONGEST_REFUSAL


def test_a_choice_that_is_accepted_can_be_read_again():
    """Times and sizes that have no limit at a site: what is stored is judged again at the next start."""
    for options in ({"idle_limit": "999999d 999999h"}, {"partition": "debug", "memory": "999999999.5T"}):
        judged(options, SCRIPTS["slurm"])


# --- scripts in a real shell


def test_no_canary_sings_when_bash_runs_the_scripts(tmp_path):
    """The whole script but the launcher itself, whose place a program takes that keeps what it is told."""
    folder = tmp_path / "bin"
    folder.mkdir()
    told, sung, script = (tmp_path / name for name in ("told", "sung", "script"))
    for name, does in (("python", f"cat <&4 >{told}"), (CANARY, f"touch {sung}")):
        (folder / name).write_text(f"#!/bin/sh\n{does}\n")
        (folder / name).chmod(0o755)
    environment = {"PATH": f"{folder}:/usr/bin:/bin", "HOME": str(tmp_path), "SLURM_JOB_ID": "12"}
    for kind in EVERY:
        for request, text in _hostile_scripts(kind, f"{folder}/python", 20):
            told.unlink(missing_ok=True)
            script.write_text(text)
            done = subprocess.run(["bash", script], env=environment, cwd=tmp_path, timeout=60, check=False)
            assert done.returncode == 0
            assert json.loads(told.read_text())["directory"] == request.directory
            assert not sung.exists(), text
    assert subprocess.run([CANARY], env=environment, check=False, executable=folder / CANARY).returncode == 0
    assert sung.exists(), "the canary can sing"


def _hostile_scripts(kind, python, count):
    scripts = SCRIPTS[kind]
    job = scripts.profile.job.model_copy(update={"python": python, "prologue": "", "epilogue": ""})
    profile = scripts.profile.model_copy(update={"job": job})
    found = 0
    for body in Bodies(SEED + 1, profile, hostility=0.5):
        request = judged({"environment": "plain", "directory": body.get("directory")}, scripts)
        if request and CANARY in request.directory:
            found += 1
            yield request, Scripts(profile).render(request)
        if found == count:
            return


# --- what schedulers print

LINES = st.lists(st.sampled_from(["", "\n", "12", MARK, "R", "RUNNING", "COMPLETED", "<Data>", "Job Id: 12.vm", "x"]))


@pytest.mark.parametrize("door", [name for name in DOORS if name not in ("profile", "stored", "options", "form")])
@given(data=st.binary(max_size=200) | st.text().map(str.encode) | LINES.map("".join).map(str.encode))
def test_bytes_of_any_kind_are_read_or_refused(door, data):
    DOORS[door](data)


@given(JSON)
def test_json_of_any_shape_is_no_list_of_jobs_that_says_an_end(value):
    DOORS["local_list"](json.dumps([{"id": 1, "state": value, "host": value, "owner": "a"}]).encode())
    DOORS["local_list"](json.dumps(value).encode())
    DOORS["local_show"](json.dumps(value).encode())
    DOORS["local_show"](json.dumps({"id": "12", "state": "ended", "reason": value, "exit": value}).encode())


@given(st.data())
def test_a_listing_of_squeue_that_breaks_off_is_not_believed(data):
    """Else the jobs at its end would seem to be gone. (Between two lines nothing shows it but squeue's exit code.)"""
    whole = (RECORDED / "slurm-22.05" / "squeue.txt").read_text()
    slurm = EVERY["slurm"]
    assert slurm.parse_query(whole, MARK)
    part = whole[: data.draw(st.integers(0, whole.rindex(MARK)))]
    if part.count(MARK) % 8 or MARK not in part:
        with pytest.raises(ValueError, match="incomplete"):
            slurm.parse_query(part, MARK)


@given(st.data())
def test_xml_of_qstat_that_breaks_off_is_not_believed(data):
    whole = (RECORDED / "torque-6.1.3" / "qstat-x.xml").read_text().rstrip()
    torque = EVERY["torque"]
    at = data.draw(st.integers(1, len(whole) - 1))
    assert torque.parse_query(whole, MARK)
    with pytest.raises(ValueError, match="qstat's XML"):
        torque.parse_query(whole[:at], MARK)


@given(st.data())
def test_an_answer_about_one_job_that_breaks_off_tells_nothing(data):
    slurm, torque = EVERY["slurm"], EVERY["torque"]
    of_squeue = (RECORDED / "slurm-22.05" / "ends" / "exit-3.squeue").read_text()
    of_qstat = (RECORDED / "torque-6.1.3" / "qstat-x-exit-3.xml").read_text().rstrip()
    number = of_squeue.split(maxsplit=1)[0]
    assert slurm.parse_end(number, [of_squeue, ""], MARK, str)
    assert (
        slurm.parse_end(number, [of_squeue[: data.draw(st.integers(0, of_squeue.rindex(MARK)))], ""], MARK, str) is None
    )
    assert torque.parse_end("21.vm", [of_qstat], MARK, str)
    with pytest.raises(ValueError, match="qstat's XML"):
        torque.parse_end("21.vm", [of_qstat[: data.draw(st.integers(1, len(of_qstat) - 1))]], MARK, str)


def test_a_job_s_file_of_another_shape_is_refused():
    local = Local(Path("/var/lib/hub/spool"), 2)
    for text in ("[]", "[" * 100_000, '{"id": "12", "state": "ended", "exit": "x"}', "12"):
        with pytest.raises(ValueError, match="job"):
            local.parse_end("12", [text], MARK, str)


# --- profiles


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("a = " + "[" * 100_000, "is not TOML", id="nested too deeply"),
        pytest.param("a = " + "9" * 5000, "is not TOML", id="a number of 5000 digits"),
        pytest.param("title = 0x" + "f" * 5000, "title", id="a hexadecimal number of 5000 digits"),
        pytest.param("title = '\x00'", "is not TOML", id="a null character"),
        pytest.param(b"title = '\xff'", "is not TOML", id="bytes that are no UTF-8"),
        pytest.param("a.b = 1\na = 2", "is not TOML", id="a key that is two things"),
        pytest.param("scheduler = 1979-05-27T07:32:00Z", "scheduler", id="a time in a table's place"),
    ],
)
def test_a_profile_of_any_other_shape_is_refused_in_words(tmp_path, text, words):
    file = tmp_path / "site.toml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ProfileError, match=words) as caught:
        load(file)
    assert len(str(caught.value)) < 5000


# --- what the fuzzer found once, and what it may find now


@pytest.mark.parametrize("door", DOORS)
def test_what_was_a_fault_once_is_none_any_more(door):
    for data in faults(door):
        DOORS[door](data)
