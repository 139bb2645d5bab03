"""The Hub's configuration file, read as JupyterHub reads it, for commands that look at it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from traitlets.config import Application
from traitlets.config.loader import PyFileConfigLoader

from hpcspawner.checks.suite import PublicSide
from hpcspawner.hub.settings_checks import value
from hpcspawner.hub.startup import ledger_url_beside, secret_file_beside


class Unreadable(Exception):
    """The configuration can't be read; the text says why."""


@dataclass(frozen=True, slots=True)
class HubConfig:
    """What stands in a `jupyterhub_config.py`."""

    config: Any

    @classmethod
    def read(cls, path: Path) -> "HubConfig | Unreadable":
        """Run the file, as JupyterHub does at its start; what is wrong with it is returned, not raised."""
        if not path.is_file():
            return Unreadable(f"{path} is not there")
        # A configuration may ask for the application, which is JupyterHub then and not this command.
        if Application.initialized():
            type(Application.instance()).clear_instance()
        try:
            return cls(PyFileConfigLoader(path.name, path=str(path.absolute().parent)).load_config())
        except SystemExit as error:
            # configure() ends the Hub's start with a message.
            return Unreadable(str(error.code))
        except Exception as error:
            return Unreadable(f"{path} fails: {type(error).__name__}: {error}")

    @property
    def sites(self) -> list[str]:
        """Paths of the profiles."""
        return list(value(self.config, ["HPCSpawner"], "sites", []))

    @property
    def public(self) -> PublicSide:
        """The Hub's public address."""
        return PublicSide(
            callback_url=value(self.config, ["HPCSpawner"], "callback_url", ""),
            base_url=value(self.config, ["JupyterHub"], "base_url", "/"),
            ca_file=value(self.config, ["HPCSpawner"], "ca_file", ""),
            certificate=value(self.config, ["JupyterHub"], "ssl_cert", ""),
            key=value(self.config, ["JupyterHub"], "ssl_key", ""),
        )

    @property
    def ledger_url(self) -> str:
        """The database with the record of jobs, as the Hub finds it; a file is sought in the folder we are in."""
        given = value(self.config, ["HPCSpawner"], "ledger_url", "")
        return str(given or ledger_url_beside(self._db_url))

    @property
    def secret_file(self) -> str:
        """The file with the Hub's secret."""
        given = value(self.config, ["HPCSpawner"], "secret_file", "")
        return str(given or secret_file_beside(self._db_url))

    @property
    def _db_url(self) -> str:
        return str(value(self.config, ["JupyterHub"], "db_url", "sqlite:///jupyterhub.sqlite"))
