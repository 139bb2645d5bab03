"""A second line of defence: what looks like a secret, or forges a line, does not get into the Hub's log.

The first is that no code logs one, and that foreign text is made printable where it enters. This covers every record
that the Hub's process makes, whichever logger and handler it goes through. It does not cover what other processes
print, such as the proxy, whose output JupyterHub passes on.
"""

import logging
import os
import re
import traceback
from pathlib import Path
from typing import Any

from hpcspawner.jobs.keys import API_TOKEN, REPORT_KEY, TICKET
from hpcspawner.units import printable

GONE = "[secret]"

_NAMES = "(?:token|ticket|secret|password|passwd|report_key)"
# Each keeps what its group `kept` matches. None may take more than linear time: texts of strangers are logged.
_PATTERNS = (
    # Ours. A token has four characters of its own before the mark.
    rf"(?P<kept>)(?:[\w-]{{4}})?(?:{TICKET}|{API_TOKEN}|{REPORT_KEY})[\w-]{{16,}}",
    r"(?P<kept>)-----BEGIN [A-Z ]{0,20}PRIVATE KEY-----(?s:.*?)(?:-----END [A-Z ]{0,20}PRIVATE KEY-----|\Z)",
    # A header as such, in a dict and in JSON.
    r"(?P<kept>\bauthorization\b['\"]?\s?[:=,]\s?b?['\"]?(?:(?:token|bearer|basic|negotiate)\s)?)[^\s'\"]+",
    # A cookie of JupyterHub's.
    r"(?P<kept>\b(?:jupyterhub-[\w-]{1,80}|_xsrf)=)(?:\\?\"[^\"]*\"|[^\s;,&'\"]+)",
    # What JupyterHub says of its protection against forged requests, with the cookie of the session in it.
    r"(?P<kept>\bxsrf (?:cookie for|id mismatch) )b?'[^']*'(?: != b?'[^']*')?",
    # In a query or an environment: token=...; in a dict or in JSON: "token": "...".
    rf"(?P<kept>{_NAMES}=['\"]?)[^\s;,&'\"]+",
    rf"(?P<kept>{_NAMES}['\"]\s?:\s?b?['\"])[^'\"]+",
)
_SECRETS = [re.compile(pattern, re.IGNORECASE | re.ASCII) for pattern in _PATTERNS]
# Most lines hold none of these, and then one look is enough.
_HINTS = (
    *(TICKET, API_TOKEN, REPORT_KEY),
    *("private key", "authorization", "jupyterhub-", "xsrf", "token", "ticket", "secret", "passw", "report_key"),
)

_PACKAGE = str(Path(__file__).parents[1]) + os.sep
# All that moves the cursor, starts a line or turns the text around, but line break and tab.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def redact(text: str) -> str:
    """The text without what looks like a secret."""
    folded = text.lower()
    if any(hint in folded for hint in _HINTS):
        for secret in _SECRETS:
            text = secret.sub(rf"\g<kept>{GONE}", text)
    return text


def escape(text: str) -> str:
    """The text with its control characters written out; line breaks and tabs stay."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def install() -> None:
    """Clean all that is logged from now on, by whatever logger, to handlers of now and later. Again does nothing."""
    make = logging.getLogRecordFactory()
    if getattr(make, "redacts", False):
        return

    def make_clean(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        _clean(record)
        return record

    make_clean.redacts = True  # type: ignore[attr-defined]
    # Not a filter: one of a logger misses what comes from the loggers below it, one of a handler the handlers to come.
    logging.setLogRecordFactory(make_clean)


def _clean(record: logging.LogRecord) -> None:
    """Redact and escape message, arguments and traceback; a line that can't be looked through is dropped."""
    try:
        _clean_message(record)
        _clean_traceback(record)
    except Exception as error:
        record.msg, record.args = "a log line that could not be searched for secrets (%s)", (type(error).__name__,)
        record.exc_info = record.exc_text = None


def _clean_message(record: logging.LogRecord) -> None:
    if isinstance(record.msg, dict):
        # An event, which its handler writes as JSON.
        record.msg = _clean_values(record.msg)
        return
    # What this package logs is one line; others write tables and lists.
    make_safe = printable if record.pathname.startswith(_PACKAGE) else escape
    try:
        text = record.getMessage()
    except Exception:
        # Logging would print its arguments as they are.
        text = f"{record.msg!s} {record.args!r} (its arguments do not fit)"
    else:
        if make_safe(redact(text)) == text:
            return  # as it was, with its arguments
    record.msg, record.args = make_safe(redact(text)), None


def _clean_values(value: Any) -> Any:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {key: _clean_values(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_clean_values(inner) for inner in value]
    return value


def _clean_traceback(record: logging.LogRecord) -> None:
    if record.exc_info and record.exc_info[0] is not None:
        text = "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
        clean = escape(redact(text))
        if clean != text:
            # Handlers show this instead of the traceback that they would make.
            record.exc_text = clean
