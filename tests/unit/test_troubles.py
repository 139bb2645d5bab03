"""Each kind of message has an entry of the page about troubleshooting, and says where it is."""

import ast
import logging
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from material import FULL

import hpcspawner
from hpcspawner import errors
from hpcspawner.checks.finding import Finding, Outcome, lines
from hpcspawner.cli.app import main
from hpcspawner.errors import (
    HPCSpawnerError,
    LedgerUnavailable,
    LedgerUnusable,
    ProfileError,
    Reason,
    RequestError,
    SchedulerNotSetUp,
    SchedulerUnreachable,
    ServerLost,
)
from hpcspawner.jobs import causes
from hpcspawner.jobs.record import End
from hpcspawner.pages.failure import failure
from hpcspawner.pages.pages import as_hub_error, for_the_log
from hpcspawner.pages.troubles import as_html, shown_troubles
from hpcspawner.programs.launcher import codes
from hpcspawner.schedulers.state import Cause
from hpcspawner.site.profile import SiteProfile
from hpcspawner.troubles import BY_CHECK, troubles

PACKAGE = Path(hpcspawner.__file__).parent
PAGE = (PACKAGE.parent / "docs/howto/troubleshooting.md").read_text(encoding="utf-8")
PROFILE = SiteProfile.model_validate(FULL)
SOURCES = [
    ast.parse(path.read_text(encoding="utf-8"))
    for path in sorted(PACKAGE.rglob("*.py"))
    if "programs" not in path.parts
]
CALLS = [node for tree in SOURCES for node in ast.walk(tree) if isinstance(node, ast.Call)]


def name_of(call):
    return getattr(call.func, "id", getattr(call.func, "attr", ""))


def text_of(node):
    """The constant parts of a text, joined; "" for anything else."""
    return "".join(str(one.value) for one in ast.walk(node) if isinstance(one, ast.Constant))


def literals():
    """Every entry that the code names."""
    for call in CALLS:
        if name_of(call) == "more" and call.args and isinstance(call.args[0], ast.Constant):
            yield call.args[0].value
        if name_of(call) in ("SchedulerNotSetUp", "wrong", "warning") and isinstance(call.args[-1], ast.Constant):
            text = call.args[-1].value
            if len(call.args) == (5 if name_of(call) == "SchedulerNotSetUp" else 3):
                yield text
    for tree in SOURCES:
        for node in ast.walk(tree):
            named = isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") in ("entry", "_ENTRY", "_TLS")
            if named and isinstance(node.value, ast.Constant) and node.value.value:
                yield node.value.value
            # What `Client._not_set_up` and `_not_started` give: message, cure, entry.
            if isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple) and len(node.value.elts) == 3:
                last = node.value.elts[2]
                if isinstance(last, ast.Constant) and isinstance(last.value, str) and "-" in last.value:
                    yield last.value


LITERALS = set(literals())
USED = {*LITERALS, *BY_CHECK.values(), *causes._ENTRIES.values(), *(one.value for one in (*Reason, *Cause))}


def test_what_the_code_names_was_found():
    assert {"sudo-rule", "login-node", "callback-url", "tls-to-nodes", "hub-secret", "no-estimate"} <= LITERALS


@pytest.mark.parametrize("name", sorted(USED))
def test_every_entry_that_a_message_names_is_on_the_page(name):
    one = troubles()[name]
    assert one.symptom
    assert one.cause.endswith((".", ")."))
    assert one.cure.endswith((".", ":", ").", "`."))


def test_every_entry_is_one_that_a_message_names_or_that_another_entry_leads_to():
    led_to = set(re.findall(r"\]\(#([a-z-]+)\)", PAGE))
    # Seen in a browser, where nothing of ours is left to speak.
    assert set(troubles()) - USED - led_to == {"browser"}


def test_links_from_entry_to_entry_resolve():
    assert set(re.findall(r"\]\(#([a-z-]+)\)", PAGE)) <= set(troubles())


def test_every_heading_of_the_page_is_an_entry():
    assert re.findall(r"^### (.+)$", PAGE, re.MULTILINE) == list(troubles())


def test_every_check_has_an_entry():
    names = {call.args[0].value for call in CALLS if name_of(call) in ("Check", "OneCheck") and len(call.args) == 2}
    assert len(names) > 15
    assert {*names, "profile"} == set(BY_CHECK)


def test_every_word_that_stops_the_hub_says_where_it_is_explained():
    stops = [call for call in CALLS if name_of(call) == "critical"]
    stops += [call for call in CALLS if name_of(call) == "exit" and call.args and "hpcspawner: " in text_of(call)]
    assert len(stops) > 8
    for call in stops:
        assert any(getattr(one, "id", "") in ("more", "_MORE", "problems") for one in ast.walk(call)), ast.unparse(call)


@pytest.mark.parametrize(
    ("error", "entry"),
    [
        pytest.param(ProfileError("site.toml", ["a: b"]), "profile", id="profile"),
        pytest.param(RequestError([]), "bad-options", id="options"),
        pytest.param(errors.AccountRefused([]), "account", id="account"),
        pytest.param(SchedulerUnreachable("away"), "unreachable", id="away"),
        pytest.param(SchedulerNotSetUp("no", "sbatch", "", "do it", "sudo-rule"), "sudo-rule", id="rule"),
        pytest.param(SchedulerNotSetUp("no", "sbatch", "", "do it"), "not-set-up", id="others"),
        pytest.param(errors.SecretUnusable("no"), "hub-secret", id="secret"),
        pytest.param(LedgerUnavailable(), "ledger", id="ledger"),
        pytest.param(LedgerUnusable("is damaged", "mend it").of("x"), "ledger-unusable", id="ledger at the start"),
        pytest.param(ServerLost("gone", Reason.JOB_ENDED), "job-ended", id="ended"),
        pytest.param(ServerLost("gone", Reason.JOB_ENDED, (), "wall-time"), "wall-time", id="cause"),
        pytest.param(ServerLost("gone", Reason.JOB_ENDED, (), "not-started", "no-python"), "no-python", id="node"),
    ],
)
def test_an_error_names_its_entry_on_the_page_and_in_the_log(error, entry):
    assert entry in troubles()
    assert as_hub_error(error, PROFILE).hpcspawner_failure.entry == entry
    assert for_the_log(error).endswith(f" (more: hpcspawner explain {entry})")


def test_every_kind_of_error_has_an_entry():
    kinds = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, HPCSpawnerError)]
    assert len(kinds) > 10
    for kind in kinds:
        # Where it is a matter of the single error, the tests above have it.
        assert isinstance(kind.entry, property) or kind.entry in {"", *troubles()}, kind


@pytest.mark.parametrize(
    ("end", "reported", "entry"),
    [
        (End(Cause.NOT_STARTED, "", 0.0, codes.NO_PYTHON_CODE), False, "no-python"),
        (End(Cause.NOT_STARTED, "", 0.0, codes.UNTRUSTED_CODE), False, "node-trust"),
        (End(Cause.NOT_STARTED, "", 0.0, codes.NO_PYTHON_CODE), True, "not-started"),
        (End(Cause.EXITED, "", 0.0, codes.UNTRUSTED_CODE), False, "exited"),
        (End(Cause.NOT_STARTED, "", 0.0, None), False, "not-started"),
    ],
)
def test_an_exit_code_of_the_launchers_own_has_its_entry(end, reported, entry):
    assert causes.entry_of(end, reported=reported) == entry


def test_every_exit_code_in_words_has_an_entry():
    assert causes._ENTRIES.keys() == causes._UNTOLD.keys()


def test_a_site_may_have_its_own_page():
    own = SiteProfile.model_validate(FULL | {"contact": {"help_url": "https://docs.example.org/hpc"}})
    assert failure("", Cause.IDLE, own, {}).help_url == "https://docs.example.org/hpc"
    assert failure("", Cause.IDLE, PROFILE, {}).help_url == ""


@pytest.mark.parametrize("bad", ["javascript:alert(1)", "docs.example.org", "https://x/#y", 'https://x/"', "/a b"])
def test_an_address_of_a_page_is_one(bad):
    with pytest.raises(ValueError, match="help_url"):
        SiteProfile.model_validate(FULL | {"contact": {"help_url": bad}})


def test_a_finding_says_where_it_is_explained_unless_it_is_good():
    found = [("x", Finding(outcome, "what", "cure", "clock")) for outcome in (Outcome.WRONG, Outcome.GOOD)]
    bad, good = lines(found)
    assert bad.endswith("what. Cure (more: hpcspawner explain clock)")
    assert good.endswith("what. Cure")


def test_explain_prints_an_entry_without_marks_of_links(capsys):
    main(["explain", "server-failed", "clock"])
    out = capsys.readouterr().out
    assert out.startswith("server-failed\nThe server ended before it could be used.\nCause: As not-started.\n")
    assert "\n\nclock\n" in out
    assert "](" not in out


def test_explain_lists_all_entries(capsys):
    main(["explain"])
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert listed == list(troubles())


def test_a_reader_that_has_read_enough_is_no_error():
    code = "from hpcspawner.cli.app import main; main()"
    shell = f'"$1" -c "{code}" explain | head -n 1; echo "${{PIPESTATUS[0]}}"'
    done = subprocess.run(["bash", "-c", shell, "-", sys.executable], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("bad-options")
    assert done.stderr == ""


def test_explain_suggests_an_entry(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["explain", "sudo-rul"])
    assert ended.value.code == 2
    assert "Did you mean 'sudo-rule'?" in capsys.readouterr().err


def test_the_hubs_page_has_every_entry_and_leads_nowhere_else():
    assert [one.name for one in shown_troubles()] == list(troubles())
    links = {
        link for one in shown_troubles() for link in re.findall(r'href="([^"]*)"', one.cause + one.cure + one.symptom)
    }
    assert links <= {f"#{name}" for name in troubles()}
    assert links


def test_a_line_of_the_page_is_no_html():
    assert as_html("<b> `a<b` [x](#y) [z](other.md)") == '&lt;b&gt; <code>a&lt;b</code> <a href="#y">x</a> z'


def test_the_log_of_another_secret_names_its_entry(caplog):
    from hpcspawner.jobs.ledger import Ledger

    record = SimpleNamespace(owner="alice", tag="x", job_id="7")
    ledger = SimpleNamespace(
        live=lambda: [SimpleNamespace(record=record)],
        keys=SimpleNamespace(is_ours=lambda *_: False),
        _log=logging.getLogger("test"),
    )
    Ledger._warn_of_another_secret(ledger)
    assert caplog.text.rstrip().endswith("7 (more: hpcspawner explain hub-secret)")
