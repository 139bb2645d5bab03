"""What the programs that run elsewhere say in English, recognised here so that a page can show it in other languages.

Those programs travel alone, to machines that have no catalog, and send plain text that may be anybody's. So the text is
compared with the sentences that they have; whatever else it is stays as it is.
"""

from functools import cache
from string import Formatter

from hpcspawner.language import Text, _

# The longest text that is compared; the launcher sends no more than 500 characters.
_LONGEST = 1000
# A sentence in a sentence in a sentence: a cause in a failure, its cure.
_DEEPEST = 3

LAUNCHER = (
    _("The job received {signal} on {node} before the server was started."),
    _("The Hub has switched to TLS since this job was submitted. Start the server again."),
    _(
        "The server's key could not be made on {node}: there is neither a working openssl command nor a Python with "
        "cryptography. Ask for openssl on the node, or add cryptography to {place}; the job's log says what was tried."
    ),
    _("The server's key and certificate can't be kept on {node}: {why}."),
    _("The set-up of {place} failed at: {line}"),
    _("The directory {directory} did not answer on {node} within {seconds} s: its file system may be down there."),
    _(
        "{program} was not found in {place}. Add the package {package} to that environment, with pip or conda.",
    ),
    _("{program} was not found in {place}."),
    _("Other processes on {node} took each of the 4 ports that the server tried."),
    _("What the server needs can't be written on {node}: {why}."),
    _("{program} took more than {seconds} s to enter {place}."),
    _("{title} did not listen on port {port} of {node} within {seconds} s."),
    _("{title} did not listen on {where} within {seconds} s."),
    _("The launcher failed on {node}: {error}: {why}"),
    _("{program} could not enter {place}: {why}"),
    _("it ended with exit code {code}. See the job's log."),
    _("The proxy in front of the server ended with exit code {code} on {node}."),
    _("The server was idle for {time} and shut down."),
    _(
        "{title} was ended by {signal} on {node}. This often means that the server used more memory than the job "
        "asked for."
    ),
    _("{title} was ended by {signal} on {node}."),
    _("{title} ended with exit code {code} on {node}."),
    _("No port between {first} and {last} on {node} is free for the server: {why}."),
    _("No port on {node} is free for the server: {why}."),
    _("all of them were tried"),
    _("The directory {directory} can't be opened on {node}: {why}. {cure}"),
    _("Create it, or choose another directory."),
    _("Choose one that is yours to open."),
    _("Choose another directory."),
    _("Nothing more can be written to {directory} on {node}: {why}. {cure}"),
    _("its file system is full"),
    _("your quota is used up"),
    _("Remove files there, then start the server again."),
    _("Nothing can be written to {directory} on {node}: its file system is read-only there."),
    _("You may not write to the directory {directory} on {node}. Choose another directory."),
    _("{program} could not be started on {node}: {why}."),
    _("the environment '{environment}' on {node}"),
    _("The server was stopped."),
)
"""The launcher's, a more precise one before a shorter one. A test compares them with its source."""

LOOK = (
    _("There is no environment in {path} on {node}. Make it again, or choose another."),
    _("The environment {path} has no Python that runs ({python}). Make it again."),
    _("There is no module {module} on {node}. {cure}"),
    _("Choose another environment, and tell those who run this cluster."),
    _("The environment {path} has {program}, and its Python can't find the package {package}. Install it again there."),
    _("The Python of the environment {path} did not answer on {node} within {seconds} s."),
    _("The Python of the environment {path} does not run on {node}: {why}. Make it again."),
    _("exit code {code}"),
    _("There is no image {path} on {node}. Check the path."),
    _("You may not read the image {path}. Ask its owner to let you, or copy it."),
    _(
        "The image {path} is made for {other}; this machine is {own}. Choose another image, or make it for these "
        "machines."
    ),
    _("The image {path} is cut short; copy it again. Choose another image, or make it for these machines."),
    _(
        "The image {path} is no image that Apptainer knows. Choose another image, or make it for these machines.",
    ),
    _("The image {path} has no {program}. Choose another image, or add it there."),
    _("another architecture"),
    _("Create it, or choose another."),
    _("Choose another."),
    _("You may not write to the directory {path}. Choose another."),
    _("Nothing more can be written to {path}: {why}. Remove files there."),
    _("Only {count} MB are left in {path}. Remove files there."),
    _("Only {count} more files can be kept in {path}. Remove files there."),
)
"""Those of `look.py`, which shares some of the launcher's."""

_OF_THE_SYSTEM = (
    _("No such file or directory"),
    _("Permission denied"),
    _("Not a directory"),
    _("No space left on device"),
    _("Disk quota exceeded"),
    _("Read-only file system"),
    _("Address already in use"),
)


def recognised(text: str) -> str:
    """The same text, as a sentence that can be told in other languages where it is one of ours.

    It takes as long as the text is: each part between two values is looked for once.
    """
    return text if len(text) > _LONGEST else _recognised(text, _DEEPEST)


def _recognised(text: str, deep: int) -> str:
    for sentence, parts, names in _known() if deep else ():
        values = _values(text, parts)
        if values is not None:
            filled = sentence.fill(**dict(zip(names, (_recognised(one, deep - 1) for one in values), strict=True)))
            # A value that looks like a place for one is not filled in; the text counts.
            return filled if filled == text else text
    return text


@cache
def _known() -> tuple[tuple[Text, tuple[str, ...], tuple[str, ...]], ...]:
    """Each sentence, what stands between its values (and before and behind them), and the names of those."""
    return tuple((one, *_taken_apart(one.messages[0])) for one in (*LAUNCHER, *LOOK, *_OF_THE_SYSTEM))


def _taken_apart(message: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    found = list(Formatter().parse(message))
    names = tuple(name for _literal, name, *_rest in found if name is not None)
    literals = tuple(literal for literal, *_rest in found)
    return literals if len(literals) > len(names) else (*literals, ""), names


def _values(text: str, parts: tuple[str, ...]) -> list[str] | None:
    """What stands between these parts; None if the text is not made of them."""
    if len(parts) == 1:
        return [] if text == parts[0] else None
    first, *middle, last = parts
    if len(text) < len(first) + len(last) or not (text.startswith(first) and text.endswith(last)):
        return None
    return _between(text[len(first) : len(text) - len(last)], middle)


def _between(rest: str, parts: list[str]) -> list[str] | None:
    values = []
    for part in parts:
        value, there, rest = rest.partition(part)
        if not there:
            return None
        values.append(value)
    return [*values, rest]
