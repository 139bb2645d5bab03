"""The lab's slurmrestd: its address, and a copy of its key as a Hub has it."""

import os
from pathlib import Path

_ETC = Path(os.environ.get("HPC_LAB", "/")) / "etc"
IN_LAB = (_ETC / "api/ca.crt").exists()
"""Whether the lab has one; its version is that of its Slurm."""
ADDRESS = "https://head:6843"
AUTHORITY = _ETC / "api/ca.crt"
ACCOUNT = "u030"
"""Under which a Hub of the tests lists jobs."""
ACCESS = {"api": ADDRESS, "api_ca": str(AUTHORITY), "api_account": ACCOUNT}
"""What a profile says of it, but for the key."""


def key_file(folder, account=None):
    """A file of its own with the key; `account` owns it."""
    path = Path(folder) / "slurm-jwt.key"
    if not path.exists():
        path.touch(mode=0o600)
        path.write_bytes((_ETC / "jwt_hs256.key").read_bytes())
        path.chmod(0o400)
        if account:
            os.chown(path, account.pw_uid, account.pw_gid)
    return path
