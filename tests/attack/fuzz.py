"""Coverage-guided fuzzing of the doors; see tests/README.md.

Several doors share one process: the first byte of an input chooses the door, the rest goes through it.
"""

import argparse
import hashlib
import os
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["hpcspawner", "tomllib"]):
    from attack.doors import DOORS
from attack.seeds import seeds, words

FOUND = Path(__file__).parents[2] / "build" / "attack"
"""Where inputs are kept that were too much for a door."""


def main() -> None:
    """Fuzz until the time is over or something is found; the exit code tells which."""
    reader = argparse.ArgumentParser(prog="tests/attack/run", description="Coverage-guided fuzzing of the doors.")
    reader.add_argument("doors", nargs="*", help=f"which ones, all by default: {', '.join(DOORS)}")
    reader.add_argument("--seconds", type=int, default=600, help="how long (600)")
    reader.add_argument("--runs", type=int, default=-1, help="end after so many inputs, if that is sooner")
    reader.add_argument("--seed", type=int, default=0, help="0: another one each time")
    asked = reader.parse_args()
    names = asked.doors or list(DOORS)
    if strangers := set(names) - set(DOORS):
        reader.error(f"no such door: {', '.join(sorted(strangers))}; there are: {', '.join(DOORS)}")
    with tempfile.TemporaryDirectory(prefix="hpc-attack-") as folder:
        _fuzz(names, asked, Path(folder))


def _fuzz(names: list[str], asked: argparse.Namespace, folder: Path) -> None:
    corpus, dictionary = folder / "corpus", folder / "words"
    corpus.mkdir()
    for number, name in enumerate(names):
        for at, seed in enumerate(seeds(name)):
            (corpus / f"{name}-{at}").write_bytes(bytes([number]) + seed)
    dictionary.write_text("".join(f'"{_escaped(word)}"\n' for word in words()), encoding="ascii")

    def one(data: bytes) -> None:
        if not data:
            return
        name = names[data[0] % len(names)]
        try:
            DOORS[name](data[1:])
        except BaseException:
            _keep(name, data[1:])
            raise

    options = {
        "max_total_time": asked.seconds,
        "runs": asked.runs,
        "seed": asked.seed,
        "max_len": 8192,
        "timeout": 20,
        "rss_limit_mb": 2048,
        "dict": dictionary,
        "artifact_prefix": f"{folder}/",
        "print_final_stats": 1,
    }
    atheris.Setup([sys.argv[0], *(f"-{name}={value}" for name, value in options.items()), str(corpus)], one)
    atheris.Fuzz()


def _keep(name: str, data: bytes) -> None:
    place = FOUND / name
    place.mkdir(parents=True, exist_ok=True)
    file = place / hashlib.sha256(data).hexdigest()[:12]
    file.write_bytes(data)
    sys.stderr.write(f"\nFound by the door {name}: {os.path.relpath(file)}\n")


def _escaped(word: str) -> str:
    return "".join(letter if letter.isalnum() else f"\\x{ord(letter):02x}" for letter in word)


if __name__ == "__main__":
    main()
