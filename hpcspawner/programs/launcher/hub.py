"""Calls of the Hub's two endpoints."""

import http.client
import json
import random
import ssl
import sys
import threading
import time
from urllib.parse import urlsplit

from hpcspawner.programs.launcher.codes import SETTINGS_CODE, UNTRUSTED_CODE, WRONG_NAME_CODE, WRONG_TIME_CODE
from hpcspawner.programs.launcher.words import _SECRET_NAME, NODE, HubBusyError, HubError, _hidden, say

REQUEST_S = 30.0
FIRST_PAUSE_S = 0.2
LAST_PAUSE_S = 10.0
MOST_WAIT_S = 30
ANSWER_BYTES = 1 << 20
HUB_HEADER = "X-JupyterHub-Version"
# What OpenSSL calls certificates that are not valid yet, or no longer, and those for another host or address.
WRONG_TIME = (9, 10)
WRONG_NAME = (62, 64)
ADVICE = {
    400: "it runs another version of hpcspawner than the one that wrote this job. Start the server again.",
    403: "it is not valid, or the job used it before. Start the server again.",
    404: "it knows no such address or job. Start the server again; if that fails, contact the Hub's administrators.",
    410: "this server was stopped or replaced in the meantime. Start it again if you still need it.",
}
_random = random.SystemRandom()


def trusting(ca):
    """TLS 1.2 or newer; certificate and host name are verified against `ca`, or the system's store if it is None."""
    try:
        context = ssl.create_default_context(cadata=ca)
    except (OSError, TypeError, ValueError) as error:
        raise HubError("The job's certificate authority can't be read: %s" % error, UNTRUSTED_CODE) from None
    if hasattr(context, "minimum_version"):
        context.minimum_version = ssl.TLSVersion.TLSv1_2  # novermin: not reached on Python 3.6
    else:
        context.options |= ssl.OP_NO_TLSv1 | ssl.OP_NO_TLSv1_1
    return context


def call(url, body, context):
    """POST `body` as JSON, once, and return the JSON of the answer."""
    # http.client heeds no proxy variable and follows no redirect: the secret in `body` goes to this host or nowhere.
    parts = urlsplit(url)
    connection = http.client.HTTPSConnection(parts.hostname, parts.port, timeout=REQUEST_S, context=context)
    try:
        text = json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
        connection.request("POST", parts.path, text, {"Content-Type": "application/json"})
        response = connection.getresponse()
        data = response.read(ANSWER_BYTES + 1)
    except (OSError, ValueError, http.client.HTTPException) as error:
        # Python 3.6 raises CertificateError, a ValueError, for a wrong name and SSLError for everything else.
        if isinstance(error, ssl.CertificateError) or getattr(error, "reason", "") == "CERTIFICATE_VERIFY_FAILED":
            raise not_accepted(parts.hostname, error) from None
        raise HubBusyError("%s: %s" % (type(error).__name__, error)) from None
    finally:
        connection.close()
    return answered(response, data, "this job's %s" % parts.path.rpartition("/")[2])


def not_accepted(host, error):
    """What to raise where the certificate of `host` was not accepted."""
    why = getattr(error, "verify_message", "") or str(error)
    message = "The certificate of %s was not accepted, so nothing was sent: %s" % (host, why)
    number = getattr(error, "verify_code", 0)  # from Python 3.7 on
    if number in WRONG_TIME:
        now = time.strftime("%H:%M:%S on %d %B %Y, UTC", time.gmtime())
        return HubError("%s. The clock of %s says %s." % (message, NODE, now), WRONG_TIME_CODE)
    if number in WRONG_NAME or "doesn't match" in why:
        return HubError(message, WRONG_NAME_CODE)
    return HubError(message, UNTRUSTED_CODE)


def answered(response, data, what):
    """The JSON of a good answer; `what` names for a message what was sent."""
    if response.status >= 500 or response.status in (408, 425, 429):
        wait = response.getheader("Retry-After", "")
        raise HubBusyError("status %d" % response.status, int(wait) if wait.isdecimal() else 0)
    if response.status == 404 and not response.getheader(HUB_HEADER):
        # While the Hub starts, its proxy runs already and has no route yet.
        raise HubBusyError("status 404, not from the Hub itself")
    if not 200 <= response.status < 300:
        advice = ADVICE.get(response.status, "check the callback address in the Hub's configuration.")
        raise HubError("The Hub refused %s (status %d): %s" % (what, response.status, advice))
    try:
        if len(data) <= ANSWER_BYTES:
            return json.loads(data.decode("utf-8") or "{}")
    except ValueError:
        pass
    raise HubBusyError("an answer that is too long or not JSON")


class Hub:
    """The Hub's endpoints for this job; `stopped` says when an answer is no longer wanted, and None is returned."""

    def __init__(self, callback, ca, signals):
        try:
            parts = urlsplit(callback)
            usable = parts.scheme == "https" and parts.hostname and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            raise HubError(
                "The Hub's callback address must begin with https://; the ticket was not sent.", SETTINGS_CODE
            )
        self._callback = callback.rstrip("/")
        self._context = trusting(ca)
        self._signals = signals

    def ask(self, name, body, limit_s, stopped, tries=sys.maxsize):
        """POST to the endpoint `name`, again and again while the Hub is busy or away."""
        deadline = time.monotonic() + limit_s
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                left = deadline - time.monotonic()
                return self._once(self._callback + name, body, min(left, REQUEST_S), stopped)
            except HubBusyError as busy:
                tries -= 1
                left = deadline - time.monotonic() - 1  # the last try has a second to be answered
                if not tries or left <= 0:
                    raise HubBusyError("The Hub did not answer (last try: %s)." % busy) from None
                if pause_s == FIRST_PAUSE_S:
                    say("the Hub has not answered yet (%s); trying again" % busy)
                # Jitter also on what the Hub asked for: many jobs may have been sent away at once.
                wait_s = min(busy.wait_s, MOST_WAIT_S) + pause_s * _random.uniform(0.5, 1)
            if self._signals.until(stopped, min(wait_s, left)):
                return None
            pause_s = min(2 * pause_s, LAST_PAUSE_S)

    def once(self, name, body):
        """POST a single time, from a thread that may wait for it."""
        return call(self._callback + name, body, self._context)

    def tell(self, name, body, tries):
        """POST in a thread of its own, a few times at most; the launcher does not wait for it."""

        def work():
            pause_s = FIRST_PAUSE_S
            for _ in range(tries):
                try:
                    call(self._callback + name, body, self._context)
                    return
                except HubBusyError:
                    time.sleep(pause_s)
                    pause_s = min(2 * pause_s, LAST_PAUSE_S)
                except Exception as error:
                    say("could not send the warning to the Hub. %s" % error)
                    return

        threading.Thread(target=work, daemon=True).start()

    def _once(self, url, body, limit_s, stopped):
        # In a thread, because a name look-up and an answer that drips have no time-out of their own.
        outcome = []

        def work():
            try:
                outcome.append(call(url, body, self._context))
            except Exception as error:
                outcome.append(error)
            self._signals.wake()

        threading.Thread(target=work, daemon=True).start()
        deadline = time.monotonic() + limit_s
        while not outcome:
            if stopped():
                return None
            if time.monotonic() >= deadline:
                raise HubBusyError("nothing came within %.0f s" % limit_s)
            self._signals.pause(deadline - time.monotonic())
        if isinstance(outcome[0], Exception):
            raise outcome[0]
        return outcome[0]


def exchange(hub, body, limit_s, stopped):
    """Trade the ticket: the server's environment, the key for reports, certificates; None if stopped meanwhile."""
    answer = hub.ask("/ticket", body, limit_s, stopped)
    if answer is None:
        return None
    try:
        environment = {str(name): str(value) for name, value in answer["environment"].items()}
        report_key = str(answer["report_key"])
    except (AttributeError, KeyError, TypeError):
        raise HubError("The Hub's answer has no environment or no report key; its version differs.") from None
    certificates = {name: str(answer.get(name)) for name in ("certificate", "authorities") if "csr" in body}
    if not all("-----BEGIN CERTIFICATE-----" in text for text in certificates.values()):
        raise HubError("The Hub's answer has no certificate for this job; its version differs.")
    _hidden.update(value for name, value in environment.items() if _SECRET_NAME.search(name) and len(value) >= 8)
    _hidden.add(report_key)
    return environment, report_key, certificates
