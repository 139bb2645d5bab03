"""Option bodies as an attacker would send them: valid ones, spoiled ones, and values of every other shape. Seeded."""

import random
from collections.abc import Iterator, Sequence
from typing import Any

from hpcspawner.request.options import OPTIONS
from hpcspawner.site.profile import SiteProfile

CANARY = "hpc-canary"
"""A command that nothing but an injected word would run."""

PAYLOADS = (
    f"$({CANARY})",
    f"`{CANARY}`",
    f"; {CANARY}",
    f"' ; {CANARY} ; '",
    f"'\"'\"' ; {CANARY} #",
    f'" ; {CANARY} ; "',
    f"\\' ; {CANARY} #",
    f"| {CANARY}",
    f"&& {CANARY}",
    f"\n{CANARY}\n",
    f"\r{CANARY}",
    f"\x0b{CANARY}",
    f"\x85{CANARY}",
    f"\u2028{CANARY}",
    f"\u2029#SBATCH --wrap={CANARY}",
    "\n#SBATCH --uid=0",
    "\n#PBS -W x=y",
    "\n#HPC owner=root",
    "#SBATCH --uid=0",
    "#PBS -q other",
    "') 5< <(id) '",
    "\n'\n)\n",
    f"--wrap={CANARY}",
    "-o /tmp/x",
    "--uid=0",
    # A backslash ends no quotes for a shell; for sbatch's own reader of directives it does.
    "x\\'\"'\"'\" --time=47:00:00 --export-file=/shared/env --wckey=\\'",
    "\\' --uid=0 '",
    '\\" -l walltime=99:00:00 "',
    "=",
    "#",
    "!!",
    "\\",
    "\\\n",
    "'",
    '"',
    "''",
    "*?[a]{b,c}",
    "${IFS}",
    "$HOME",
    "~root",
    "~",
    "..",
    "/../",
    "/etc/passwd",
    "//",
    "./",
    "{{ 7 * 7 }}",
    "{% raw %}",
    "{user}",
    "{home}",
    "{node}",
    "%s%n",
    "%x %j %N",
    "\x00",
    "\x1b[2J",
    "\x7f",
    "\ud800",
    "\udfff\ud800",
    "\ufeff",
    "\u202e",
    "\uff07",
    "ünï çødé",
    "\uff11\uff12",
    "\u0663",
    "<script>hpc()</script>",
    "<x-canary onload=hpc()>",
    '"><x-canary>',
    "&lt;",
    "]]>",
    "x" * 999,
    "x" * 1001,
    "/" * 1000,
    "a" * 70_000,
    # A pattern that may divide blanks in several ways tries all of them.
    "1d" + " " * 70_000 + "x",
)
STRANGERS = (
    *("cmd", "args", "user", "uid", "ip", "port", "host", "server", "environment_", "env_keep", "notebook_dir"),
    *("req_options", "req_prologue", "batch_script", "exec_prefix", "state", "__class__", "__init__", "", " ", "_xsrf"),
    *(
        "partition ",
        "PARTITION",
        "partition\n",
        "$partition",
        "a" * 300,
        "\ud800",
        "<x-canary>",
        "0",
        "next",
        "profile",
    ),
)

_PLAUSIBLE = {
    "walltime": ("5m", "30m", "1h", "1d 2h", "1-12:00:00", "00:20:00", "31m", "30:00", "60", "0m", "999999d"),
    "memory": ("1G", "512M", "1.5G", "64G", "4", "0M", "999999999T", "0.001M"),
    "queue_limit": ("1h", "2d", "7d", "8d", "999999d"),
    "idle_limit": ("never", "30m", "2h", "NEVER ", "999999d 999999h", "0s"),
    "renewals": (0, 1, "2", "3", 4, -1, "1001"),
    "nodes": (1, "1", 2, "0", 3, -1, "2 "),
    "cpus": (1, "2", 4, 5, "16", "1e3", "+1", 0),
    "gpus": (0, 1, "2", 4, 5, "0"),
    "details": (True, False, "on", "off", "true", "maybe"),
    "directory": (
        "~",
        "~/work",
        "/scratch/it's here",
        "/",
        "/tmp/a b",
        "{home}/x",
        "/scratch/{user}",
        "relative",
        "~bob",
    ),
    # Refused: at these sites no user's text is shell. `test_own_setup` has what it may hold where a site allows it.
    "own_setup": ("", None, "true"),
    "account": ("ddp363", "tro100", "other", "a.b-c"),
    "reservation": ("class", "class_2", "-x", "a b"),
}
_ODD = (
    None,
    True,
    False,
    0,
    -1,
    1 << 40,
    10**30,
    1.0,
    1e308,
    float("inf"),
    float("nan"),
    "",
    " ",
    [],
    {},
    [[]],
    {"": 0},
)


class Bodies:
    """An endless supply of bodies for one site; the same seed gives the same ones.

    `hostility` is how likely a value is not a plausible one.
    """

    def __init__(self, seed: int, profile: SiteProfile, hostility: float = 0.4):
        self._random = random.Random(seed)
        self._hostility = hostility
        self._plausible = {**_offers(profile), **_PLAUSIBLE}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while True:
            yield self._body()

    def take(self, count: int) -> list[dict[str, Any]]:
        """The next ones."""
        return [self._body() for _ in range(count)]

    def _body(self) -> dict[str, Any]:
        names = self._random.sample(OPTIONS, self._random.choice((0, 1, 1, 2, 2, 3, 5, len(OPTIONS))))
        # The one free text of many sites: it reaches directives and the launcher's settings.
        if self._random.random() < 0.5:
            names.append("directory")
        body = {name: self._value(name) for name in names}
        if self._random.random() < self._hostility / 8:
            body[self._random.choice(STRANGERS)] = self._odd()
        return body

    def _value(self, name: str) -> Any:
        if self._random.random() >= self._hostility:
            return self._plausible_value(name)
        kind = self._random.random()
        if kind < 0.15:
            return self._odd()
        payload = self._random.choice(PAYLOADS)
        if kind < 0.3:
            return payload
        if name == "features" and kind < 0.7:
            return [self._plausible_value(name), payload]
        return self._spliced(str(self._plausible_value(name)), payload)

    def _plausible_value(self, name: str) -> Any:
        return self._random.choice(self._plausible[name])

    def _spliced(self, text: str, payload: str) -> str:
        at = self._random.randint(0, len(text))
        return text[:at] + payload + text[at:]

    def _odd(self) -> Any:
        choice = self._random.random()
        if choice < 0.7:
            return self._random.choice(_ODD)
        if choice < 0.85:
            return deep(self._random.choice((3, 50, 200)), self._random.choice((list, dict)))
        return [self._random.choice(PAYLOADS) for _ in range(self._random.choice((1, 3, 300)))]


def _offers(profile: SiteProfile) -> dict[str, Sequence[Any]]:
    partitions = profile.partitions
    features = [name for one in partitions for name in one.features]
    return {
        "cluster": [profile.name],
        "preset": ["", *(one.name for one in profile.presets)],
        "partition": [one.name for one in partitions],
        "environment": [one.name for one in profile.environments],
        "interface": [one.name for one in profile.interfaces],
        "image": ["none", *(word for one in profile.images for word in (one.name, one.path))],
        "qos": [*(name for one in partitions for name in one.qos), "normal"],
        "features": [features, features[:1], ",".join(features), []],
        "gpu_type": [*(kind for one in partitions for kind in one.gpus), "h100"],
    }


_SIGNS = (
    *("'", '"', "\\", " ", "#", "=", ",", ";", "`", "\t", "x", "/", "--", "-", "\\'", '\\"', "'\"'\"'"),
    *(
        "--time=47:00:00",
        "--export-file=/shared/env",
        "--uid=0",
        "--wrap=id",
        "-l walltime=99:00:00",
        "-W x=y",
        "#SBATCH",
    ),
)


def soup(chance: random.Random) -> str:
    """Signs that end or begin a word in some grammar, in any order."""
    return "".join(chance.choice(_SIGNS) for _ in range(chance.randint(1, 12)))


def deep(levels: int, shape: type) -> Any:
    """A list in a list in a list, or the same of objects."""
    value: Any = "x"
    for _ in range(levels):
        value = [value] if shape is list else {"a": value}
    return value
