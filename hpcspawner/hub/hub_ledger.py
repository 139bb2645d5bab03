"""The Hub's one ledger: handlers and spawners are made apart from each other and meet here."""

import logging
from collections.abc import Callable

from hpcspawner.errors import LedgerUnusable
from hpcspawner.hub import audit, metrics, tokens
from hpcspawner.jobs.events import Outside, log_line
from hpcspawner.jobs.keys import Keys
from hpcspawner.jobs.ledger import Ledger
from hpcspawner.jobs.table import Store
from hpcspawner.schedulers.cluster import Clusters

OUTSIDE = Outside(tokens.revoke, (log_line, audit.write, metrics.write))
"""What the ledger is opened with."""

_opened: list[Ledger] = []


def open_ledger(
    url: str, make_keys: Callable[[], Keys], make_clusters: Callable[[], Clusters], log: logging.Logger
) -> Ledger:
    """The ledger, opened when it is first asked for. Raises LedgerUnusable."""
    if not _opened:
        keys = make_keys()
        store = Store(url, keys.hub, log)
        try:
            _opened.append(Ledger(store, keys, log, make_clusters(), OUTSIDE))
        except LedgerUnusable:
            store.close()
            raise
        metrics.install(_opened[0])
    return _opened[0]


def hub_ledger() -> Ledger:
    """The ledger that was opened."""
    return _opened[0]


def close_ledger() -> None:
    """Forget the ledger, for a process that starts another Hub."""
    while _opened:
        _opened.pop().close()
