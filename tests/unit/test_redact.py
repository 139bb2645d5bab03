"""What looks like a secret does not get into the Hub's log, whoever logs it and wherever it goes."""

import asyncio
import io
import json
import logging
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jupyter_events.logger import EventLogger
from jupyterhub.log import CoroutineLogFormatter

from hpcspawner.cli.certificate import write_certificate
from hpcspawner.hub import redact
from hpcspawner.jobs.keys import Keys

KEYS = Keys(b"s" * 32, "hub")
BODY = "Zm9vYmFyLWJhei1xdXV4X3F1dXV4"

SECRETS = [
    pytest.param(Keys(b"s" * 32, "hub").ticket("a"), id="ticket"),
    pytest.param(KEYS.token("tag"), id="token"),
    pytest.param(KEYS.report_key("tag", "run"), id="report key"),
]
LINES = [
    pytest.param("{}", id="alone"),
    pytest.param("GET /hub/api/user?a=b&x={} 200", id="query"),
    pytest.param("environment: {{'X': '{}', 'Y': 1}}", id="dict"),
    pytest.param('{{"x": "{}"}}', id="json"),
    pytest.param("x={};y", id="shell"),
    pytest.param("at the end of a word{}\nand more", id="glued"),
]
OTHERS = [
    pytest.param("Authorization: token {}", "Authorization: token [secret]", id="header"),
    pytest.param("{{'Authorization': 'Bearer {}'}}", "{{'Authorization': 'Bearer [secret]'}}", id="header in a dict"),
    pytest.param('"Authorization": "{}"', '"Authorization": "[secret]"', id="header without a scheme"),
    pytest.param("('authorization', b'Basic {}')", "('authorization', b'Basic [secret]')", id="header as a pair"),
    pytest.param("GET /user/x/lab?token={}&a=1", "GET /user/x/lab?token=[secret]&a=1", id="query"),
    pytest.param("JUPYTERHUB_API_TOKEN={} sh", "JUPYTERHUB_API_TOKEN=[secret] sh", id="environment"),
    pytest.param("{{'JPY_API_TOKEN': '{}', 'A': 'b'}}", "{{'JPY_API_TOKEN': '[secret]', 'A': 'b'}}", id="dict"),
    pytest.param('{{"ticket": "{}", "job": "1"}}', '{{"ticket": "[secret]", "job": "1"}}', id="json"),
    pytest.param("jupyterhub-user-alice={}; a=b", "jupyterhub-user-alice=[secret]; a=b", id="cookie"),
    pytest.param('jupyterhub-hub-login="2|1:0|{}"; a=b', "jupyterhub-hub-login=[secret]; a=b", id="quoted cookie"),
    pytest.param(r'"Cookie": "_xsrf=\"2|1:0|{}\"; a=b"', '"Cookie": "_xsrf=[secret]; a=b"', id="cookie in json"),
    pytest.param(
        "Setting new xsrf cookie for b'{}:0a' {{'a': 1}}",
        "Setting new xsrf cookie for [secret] {{'a': 1}}",
        id="session",
    ),
    pytest.param("xsrf id mismatch b'{0}:0a' != b'None:{0}'", "xsrf id mismatch [secret]", id="other session"),
]


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("line", LINES)
def test_our_own_secrets_are_found_wherever_they_stand(line, secret):
    clean = redact.redact(line.format(secret))
    assert secret[8:] not in clean
    assert redact.GONE in clean


@pytest.mark.parametrize(("line", "clean"), OTHERS)
def test_what_surely_is_a_secret_is_taken_out_and_the_rest_stays(line, clean):
    assert redact.redact(line.format(BODY)) == clean.format()


def test_private_keys_are_taken_out_and_certificates_stay(tmp_path):
    write_certificate(tmp_path, ["localhost"])
    key, certificate = (tmp_path / "server.key").read_text(), (tmp_path / "server.pem").read_text()
    assert redact.redact(f"before {key} after") == f"before {redact.GONE}\n after"
    assert redact.redact(repr({"key": key})) == repr({"key": redact.GONE + "\n"})
    assert redact.redact(f"cut off: {key[:120]}") == f"cut off: {redact.GONE}"
    assert redact.redact(certificate) == certificate


@pytest.mark.parametrize(
    "line",
    [
        "alice: job 17 submitted for alice",
        "alice: its ticket was presented again, from 10.0.0.1",
        "Adding token for alice (id 3): Server at /user/alice/",
        "alice: the server's token can't be revoked, trying again: database is locked",
        "200 GET /hub/api/authorizations/token/[secret] (alice@10.0.0.1) 3.00ms",
        "Token authentication for <APIToken('hpca...', user='alice')>",
    ],
)
def test_what_is_no_secret_stays(line):
    assert redact.redact(line) == line


@given(st.text(max_size=300))
def test_any_text_can_be_looked_through(text):
    assert redact.redact(redact.redact(text)) == redact.redact(text)


@pytest.mark.parametrize("part", ["hpct_", "token=", "-----BEGIN PRIVATE KEY-----", "authorization", "a" * 8, "_xsrf"])
def test_a_long_text_takes_no_more_than_its_share_of_time(part):
    """Whoever may write into the log must not stop the Hub with it: 20 times the text, at most 20 times the time."""
    short, long = part * (20_000 // len(part)), part * (400_000 // len(part))
    assert _fastest(long) < 200 * _fastest(short) + 0.1


def _fastest(text):
    """Seconds of this thread's CPU, which the machine's other work does not change."""
    times = []
    for _ in range(3):
        began = time.thread_time()
        redact.redact(text)
        times.append(time.thread_time() - began)
    return min(times)


# --- in the process


@pytest.fixture
def written():
    """What two handlers write, one of them added after the filter; and the logger."""
    before = logging.getLogRecordFactory()
    log, out = logging.getLogger("test-redact"), io.StringIO()
    log.propagate = False
    redact.install()
    redact.install()
    handlers = [logging.StreamHandler(out), logging.StreamHandler(out)]
    handlers[1].setFormatter(CoroutineLogFormatter(color=False))
    for handler in handlers:
        log.addHandler(handler)
    try:
        yield log, out
    finally:
        logging.setLogRecordFactory(before)
        for handler in handlers:
            log.removeHandler(handler)


SECRET = Keys(b"s" * 32, "hub").ticket("a")


@pytest.mark.parametrize(
    "say",
    [
        pytest.param(lambda log: log.error(SECRET), id="message"),
        pytest.param(lambda log: log.error("got %s of %s", SECRET, "alice"), id="argument"),
        pytest.param(lambda log: log.error("got %(x)s", {"x": SECRET}), id="named argument"),
        pytest.param(lambda log: log.error("100%% of %r", {"x": [SECRET]}), id="inside an argument"),
        pytest.param(lambda log: log.getChild("below").error("got %s", SECRET), id="logger below"),
        pytest.param(lambda log: log.error("%d", SECRET), id="arguments that do not fit"),
        pytest.param(lambda log: log.error(ValueError(SECRET)), id="no text at all"),
        pytest.param(lambda log: log.error("failed", exc_info=ValueError(f"bad {SECRET}")), id="exception"),
    ],
)
def test_whatever_is_logged_is_redacted_for_every_handler(written, say, capsys):
    log, out = written
    say(log)
    assert out.getvalue().count(redact.GONE) == 2
    assert SECRET not in out.getvalue() + capsys.readouterr().err


def test_a_traceback_through_a_secret_keeps_its_shape(written):
    log, out = written
    try:
        raise RuntimeError(f"no such ticket: {SECRET}")
    except RuntimeError:
        log.exception("lookup failed")
    assert SECRET not in out.getvalue()
    assert out.getvalue().count("Traceback (most recent call last)") == 2
    assert "no such ticket: [secret]" in out.getvalue()


def test_a_line_without_a_secret_is_left_as_it_is(written, caplog):
    log, _ = written
    record = log.makeRecord(log.name, logging.INFO, __file__, 1, "%s of %s", ("one", "two"), None)
    assert (record.msg, record.args) == ("%s of %s", ("one", "two"))


# --- one line is one record

FORGED = (
    "no\n[I 2026-11-26 10:00:00 JupyterHub log:190] 200 GET /hub/admin (root@10.0.0.1)\r\x1b[2J\x9b1A\u2028\u202eend"
)
OURS = str(Path(redact.__file__).parents[1] / "schedulers" / "client.py")


def logged(log, path, *words):
    """A record as the code in the file at `path` makes it."""
    log.handle(log.makeRecord(log.name, logging.WARNING, path, 1, *words, None))


@pytest.mark.parametrize(
    "words",
    [
        pytest.param((FORGED, ()), id="message"),
        pytest.param(("it said: %s", (FORGED,)), id="argument"),
        pytest.param(("it said: %(words)s", ({"words": FORGED},)), id="named argument"),
        pytest.param(("it said: %d", (FORGED,)), id="arguments that do not fit"),
    ],
)
def test_nothing_that_this_package_logs_can_forge_a_line(written, words):
    log, out = written
    logged(log, OURS, *words)
    # One line for each of two handlers.
    assert [line.isprintable() for line in out.getvalue().removesuffix("\n").split("\n")] == [True, True]
    assert out.getvalue().count("200 GET /hub/admin") == 2


def test_what_others_log_keeps_its_lines_and_moves_no_cursor(written):
    log, out = written
    logged(log, "/usr/lib/python3/dist-packages/other.py", "a\ttable:\n%s", (FORGED,))
    shown = out.getvalue()
    assert "a\ttable:\nno\n" in shown
    assert r"(root@10.0.0.1)\r\x1b[2J\x9b1A\u2028\u202eend" in shown
    assert all(letter.isprintable() or letter in "\n\t" for letter in shown)


def test_a_traceback_keeps_its_lines_and_moves_no_cursor(written):
    log, out = written
    try:
        raise RuntimeError("first\n\x1b[2Jsecond")
    except RuntimeError:
        log.exception("lookup failed")
    shown = out.getvalue()
    assert shown.count("Traceback (most recent call last)") == 2
    assert shown.count("\\x1b[2Jsecond\n") == 2
    assert "\x1b" not in shown


@given(st.text(max_size=100))
def test_no_text_has_a_control_character_left(text):
    assert all(letter in "\n\t" or ord(letter) >= 32 for letter in redact.escape(text))


def test_what_can_not_even_be_shown_does_no_harm(written):
    class Odd:
        def __str__(self):
            raise ValueError(SECRET)

        __repr__ = __str__

    log, out = written
    log.error(Odd())
    log.error("%s", Odd())
    assert "could not be searched for secrets" in out.getvalue()
    assert SECRET not in out.getvalue()


def test_an_exception_that_nobody_waited_for_is_redacted_too(written):
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    logging.getLogger("asyncio").addHandler(handler)
    try:
        loop = asyncio.new_event_loop()
        loop.call_exception_handler({"message": "lost", "exception": ValueError(SECRET)})
        loop.close()
    finally:
        logging.getLogger("asyncio").removeHandler(handler)
    assert "lost" in out.getvalue()
    assert SECRET not in out.getvalue()


def test_an_event_is_redacted_as_well(written):
    out = io.StringIO()
    events = EventLogger(handlers=[logging.StreamHandler(out)])
    schema = {
        "$id": "https://example.org/x",
        "version": "1",
        "title": "x",
        "type": "object",
        "properties": {"why": {"type": "string"}, "more": {"type": "object"}},
    }
    events.register_event_schema(schema)
    events.emit(schema_id="https://example.org/x", data={"why": f"see {SECRET}", "more": {"list": [SECRET]}})
    event = json.loads(out.getvalue())
    assert (event["why"], event["more"]) == ("see [secret]", {"list": ["[secret]"]})
