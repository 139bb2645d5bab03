"""What must hold when the Hub has put itself together, checked before anybody is served."""

import asyncio
import logging
from typing import Any

from jupyterhub.app import JupyterHub

from hpcspawner.hub.pages import LinkFillsForm

_FORBIDDEN = "batchspawner"


def prove_endpoint_absent_at_start() -> None:
    """Arrange the check below. `jupyterhub token` and the like read the configuration too, and serve nobody."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return
    task = loop.create_task(_when_assembled())
    # The loop keeps weak references only.
    task.add_done_callback(_keep.discard)
    _keep.add(task)


_keep: set[asyncio.Task[None]] = set()


async def _when_assembled() -> None:
    while not (JupyterHub.initialized() and getattr(JupyterHub.instance(), "tornado_application", None)):
        await asyncio.sleep(0.02)
    app = JupyterHub.instance()
    found = forbidden_routes(app.tornado_application)
    if found:
        app.log.critical(
            "hpcspawner: the endpoint of the batchspawner package is served at %s; it must not be. "
            "Remove what adds it to JupyterHub's handlers from the configuration. The Hub stops.",
            ", ".join(found),
        )
        app.exit(1)
    app.log.addFilter(_is_no_link)
    app.log.info("hpcspawner: the endpoint of the batchspawner package is not served")


def _is_no_link(record: logging.LogRecord) -> bool:
    """Whether to keep a log line: JupyterHub writes a traceback for each link that fills the form."""
    return not (record.exc_info and isinstance(record.exc_info[1], LinkFillsForm))


def forbidden_routes(application: Any) -> list[str]:
    """Patterns of every route that leads to a handler of the batchspawner package."""
    return [
        str(getattr(rule.matcher, "regex", rule.matcher))
        for rule in _rules(application.default_router)
        if getattr(rule.target, "__module__", "").split(".")[0] == _FORBIDDEN
    ]


def _rules(router: Any) -> list[Any]:
    found = []
    for rule in router.rules:
        found.append(rule)
        if hasattr(rule.target, "rules"):
            found += _rules(rule.target)
    return found
