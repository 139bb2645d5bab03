"""The Hub's configuration file, read as JupyterHub reads it, for commands that look at it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from traitlets.config import Application
from traitlets.config.loader import PyFileConfigLoader

from hpcspawner.checks.finding import Check
from hpcspawner.checks.suite import PublicSide
from hpcspawner.hub import settings_checks
from hpcspawner.hub.settings_checks import value
from hpcspawner.hub.startup import ledger_url_beside, secret_file_beside
from hpcspawner.site.profile import SiteProfile


@dataclass(frozen=True, slots=True)
class HubConfig:
    """What stands in a `jupyterhub_config.py`."""

    config: Any

    @classmethod
    def read(cls, path: Path) -> "HubConfig | str":
        """Run the file, as JupyterHub does at its start; where it fails, why."""
        if not path.is_file():
            return f"{path} is not there"
        # A configuration may ask for the application, which is JupyterHub then and not this command.
        if Application.initialized():
            type(Application.instance()).clear_instance()
        try:
            return cls(PyFileConfigLoader(path.name, path=str(path.absolute().parent)).load_config())
        except SystemExit as error:
            # configure() ends the Hub's start with a message.
            return str(error.code)
        except Exception as error:
            return f"{path} fails: {type(error).__name__}: {error}"

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
    def spool(self) -> Path:
        """The folder of the embedded scheduler."""
        return Path(str(value(self.config, ["HPCSpawner"], "spool", "") or "hpcspawner-spool")).absolute()

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


def checks(config: Any, profiles: Sequence[SiteProfile]) -> Iterator[Check]:
    """All that can be said of the settings without a Hub."""
    yield from settings_checks.checks(config, profiles)
    yield from settings_checks.tls(config)
