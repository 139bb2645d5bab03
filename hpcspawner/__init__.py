"""Open a Jupyter notebook on a supercomputer: a JupyterHub spawner for Slurm, OpenPBS and Torque."""

from typing import Any

from hpcspawner._version import __version__

__all__ = ["HPCSpawner", "__version__", "configure", "https_proxy"]


def __getattr__(name: str) -> Any:
    # Loaded on demand: importing a part that needs no Hub must not import JupyterHub.
    if name == "HPCSpawner":
        from hpcspawner.spawner import HPCSpawner  # noqa: PLC0415

        return HPCSpawner
    if name == "configure":
        from hpcspawner.hub.configure import configure  # noqa: PLC0415

        return configure
    if name == "https_proxy":
        from hpcspawner.hub.https_proxy import https_proxy  # noqa: PLC0415

        return https_proxy
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
