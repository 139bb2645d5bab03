#!/usr/bin/python3 -IS
"""Hands a user's jobs to the batch system: the one program that sudo lets a JupyterHub run as that user.

    hpcspawner submit | cancel | list | estimate | look
    hpcspawner serve GROUP

Everything else comes on standard input: a number of bytes in decimal, a line break, and exactly so many bytes. For a
cancel these are the job's id, for a list a mark. For a submit they are a line of JSON, the options as a list of pairs,
and after it the job script; an estimate, which asks when such a job could start, has the same. For a look they are a
line of JSON. Standard input then stays open until the answer is there. If it ends sooner, the caller has gone: the
batch system's command is ended, and a script that is not whole is not submitted.

Options become words of the submit command, each checked against the site's list. The script can hold none: lines that
a batch system would read as options are refused.

`look` is there where the site's profile says so (scheduler.look). It runs the program that is written into it, which
looks at files with the user's rights alone, and runs the site's module system and an environment's Python.

Output, error output and exit code are the command's own; it is SIGKILL for one that was ended here. What this program
says itself begins with "hpcspawner helper: ", and its own exit codes are those of sysexits.h. Its last line says how a
command has failed: without that line, what failed is what should have started this program.

`serve` is for a Hub on another machine, whose SSH key sshd forces to it, whatever the Hub asked for. The caller's words
come in SSH_ORIGINAL_COMMAND: a verb and what it needs, each word percent-encoded. For members of GROUP (percent-encoded
too) it becomes sudo and this program with one of the verbs above; it answers `who`; and it runs the Hub's own questions
to the batch system, which are written into it.

It is one file for Python 3.6 and later with the standard library alone, and needs nothing of the Hub.
"""

import contextlib
import grp
import json
import os
import pwd
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
import urllib.parse
from typing import IO, Any, Dict, List, Tuple

# What is the site's own; `hpcspawner helper site.toml` prints this program with the line filled in.
SITE: Dict[str, Any] = {}

SAYS = "hpcspawner helper: "
# How a command has failed, after SAYS: by itself, or because it was ended.
FAILED, ENDED = "the command's exit code is ", "ended: "
BAD_USAGE, BAD_INPUT, NO_USER, UNAVAILABLE, NOT_PERMITTED = 64, 65, 67, 69, 77
SUBMIT_BYTES = 4 * 1024 * 1024  # Slurm's own default limit for a script
LOOK_BYTES = 20000
WORD_BYTES = 300
VERBS = ("submit", "cancel", "list")
ESTIMATE, LOOK = "estimate", "look"
SERVE, HELLO, WHO = "serve", "hello", "who"
# What `hello` prints: that SSH leads to this program, and to one that understands the Hub.
GREETING = "hpcspawner 1"
# A word as it comes by SSH, percent-encoded.
ENCODED = re.compile(r"(?:[A-Za-z0-9_.~-]|%[0-9A-F]{2}){1,3000}", re.ASCII)
NOT_IN_A_USERS_NAME = re.compile(r"""[/:;&|<>(){}\[\]*?"$`]""")
# sudo's ways to write a number, a group, a netgroup and a negation; an option's first sign.
NOT_FIRST_OF_A_USERS_NAME = "-#%+!"
LONGEST_USER = 256
# Accounts that the cluster's trust rests on, and the one that daemons share and file servers take root for. Their uids
# may be far above those of people: 64030 is Debian's `slurm`, 65534 is `nobody`.
SYSTEMS_OWN = frozenset({"slurm", "munge", "torque", "pbs", "nobody", "nfsnobody"})
# At the start of a line: options of Slurm, of Torque and OpenPBS, of LSF (sbatch reads those too) and of burst buffers.
# Whatever follows: sbatch looks for no blank after them; and whatever blanks come before: qsub passes over them.
DIRECTIVE = re.compile(rb"^[ \t\v\f\r]*#(?:SBATCH|PBS|BSUB|BB|DW|STB)[^\n]{0,60}", re.MULTILINE)
# The user's jobs inherit it; it is what sudo sets too.
UMASK = 0o022
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
GIVEN = "{given}"


class Refusal(Exception):
    """Why nothing was done: the exit code, and words for the log of who asked."""

    def __init__(self, code: int, words: str):
        super().__init__(words)
        self.code = code


class Watch:
    """Notices when the caller is gone: the time is up, a signal came, input or parent are gone."""

    def __init__(self, limit_s: float):
        self.parent = os.getppid()
        self.deadline = time.monotonic() + limit_s
        self.number = 0
        self.woken, wake = os.pipe()
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake)
        for number in ENDING:
            signal.signal(number, self._note)
        # Without a handler the signal would wake no one who sleeps.
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def _note(self, number: int, _frame: object) -> None:
        self.number = number

    def wait(self) -> bool:
        """Wait a second at most; whether there is something to read, or the input has ended."""
        pause = min(1.0, max(0.0, self.deadline - time.monotonic()))
        ready, _, _ = select.select([0, self.woken], [], [], pause)
        if self.woken in ready:
            os.read(self.woken, 100)
        return 0 in ready

    def reason(self) -> str:
        """Why it is over; nothing while it is not."""
        if self.number:
            return "signal %d" % self.number
        if os.getppid() != self.parent:
            return "the parent process is gone"
        return "no answer in time" if time.monotonic() >= self.deadline else ""


def main(words: "list[str]") -> int:
    """Do what the verb says; an exit code."""
    if words[:1] == [SERVE]:
        return serve(words[1:])
    try:
        check_account()
        verb = verb_of(words)
        check_input()
        os.umask(UMASK)
        os.chdir("/")
        watch = Watch(SITE["limit_s"])
        given = read_input(
            watch, {"submit": SUBMIT_BYTES, ESTIMATE: LOOK_BYTES, LOOK: LOOK_BYTES}.get(verb, WORD_BYTES)
        )
        argv, script = command(verb, given)
        child = start(argv, script, tuple(SITE["times"].items()) if verb == ESTIMATE else ())
    except Refusal as refusal:
        say(str(refusal))
        return refusal.code
    return finish(child, watch)


def serve(words: "list[str]") -> int:
    """Do what the Hub asked for by SSH; an exit code. sshd gives this program the rights of the Hub's account there."""
    try:
        if len(words) != 1:
            raise Refusal(BAD_USAGE, "expected after serve one word, the group whose members may use the Hub")
        if not SITE.get("questions"):
            raise Refusal(BAD_USAGE, "it was printed for a profile without scheduler.ssh")
        group = decoded(words[0])
        verb, given = asked(os.environ.get("SSH_ORIGINAL_COMMAND", ""))
        check_input()
        os.chdir("/")
        if verb in (HELLO, WHO):
            answer = GREETING if verb == HELLO else described(person(given[0], group))
            sys.stdout.write(answer + "\n")
            return 0
        if verb in verbs():
            become(person(given[0], group), verb)
        watch = Watch(SITE["limit_s"])
        child = start(question(verb, given), b"", tuple(SITE["questions"][verb][2].items()))
    except Refusal as refusal:
        say(str(refusal))
        return refusal.code
    return finish(child, watch)


def asked(line: str) -> "tuple[str, list[str]]":
    """A verb and its words, as many as it needs, from the line that the caller gave to ssh."""
    verb, *encoded = line.split(" ")
    kinds = {HELLO: [], WHO: ["user"], **{name: ["user"] for name in verbs()}}  # type: Dict[str, List[str]]
    kinds.update((name, kinds_of) for name, (kinds_of, _, _) in SITE["questions"].items())
    if verb not in kinds:
        raise Refusal(BAD_USAGE, "the key is for one of %s, not for %s" % (", ".join(kinds), ascii(verb[:60])))
    if len(encoded) != len(kinds[verb]):
        raise Refusal(BAD_USAGE, "%s needs %d words, and has %d" % (verb, len(kinds[verb]), len(encoded)))
    words = [decoded(word) for word in encoded]
    for kind, word in zip(kinds[verb], words):
        if kind != "user":
            checked(word.encode(), SITE["words"][kind])
    return verb, words


def decoded(word: str) -> str:
    """A word that came percent-encoded."""
    try:
        if ENCODED.fullmatch(word):
            return urllib.parse.unquote(word, errors="strict")
    except UnicodeDecodeError:
        pass
    raise Refusal(BAD_USAGE, "%s is no percent-encoded word" % ascii(word[:100]))


def question(verb: str, given: "list[str]") -> "list[str]":
    """The command of a question of the Hub's own, with the words that vary put in."""
    kinds, argv, _ = SITE["questions"][verb]
    for kind, word in zip(kinds, given):
        argv = [part.replace("{%s}" % kind, word) for part in argv]
    return list(argv)


def user_problem(name: str) -> str:
    """Why no command may be given this user's name, as the end of a sentence; "" if one may.

    It is a name of the user database, so all is allowed that sudo, the scheduler and a shell read as that name alone.
    """
    if not name or len(name) > LONGEST_USER:
        return "it has %d characters, and 1 to %d are allowed" % (len(name), LONGEST_USER)
    if not name.isprintable() or name != name.strip():
        return "it begins or ends with a blank, or contains a control character"
    if name[0] in NOT_FIRST_OF_A_USERS_NAME:
        return "it begins with %r, which sudo does not read as part of a name" % name[0]
    found = NOT_IN_A_USERS_NAME.search(name)
    if found:
        return "it contains %r, which is not allowed in a user name" % found.group()
    return ""


def person(name: str, group: str) -> "pwd.struct_passwd":
    """The account of one of the Hub's users; nothing is done for others, and nothing said about them."""
    problem = user_problem(name)
    if problem:
        raise Refusal(BAD_INPUT, "%s is no user's name: %s" % (ascii(name[:100]), problem))
    try:
        found = pwd.getpwnam(name)
    except (KeyError, ValueError):
        raise Refusal(NO_USER, "there is no account %s on this machine" % ascii(name)) from None
    own = found.pw_uid == os.getuid()
    if own or found.pw_uid == 0 or found.pw_uid < SITE["min_uid"] or found.pw_name in SYSTEMS_OWN:
        words = "the account %s is root's, the system's or the Hub's own, and has no jobs"
        raise Refusal(NOT_PERMITTED, words % ascii(name))
    if group_number(group) not in os.getgrouplist(found.pw_name, found.pw_gid):
        raise Refusal(NOT_PERMITTED, "the account %s is not in the group %s" % (ascii(name), ascii(group)))
    return found


def group_number(name: str) -> int:
    """The number of a group, which may be written as `#` and that number."""
    if re.fullmatch(r"#[0-9]{1,10}", name):
        return int(name[1:])
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise Refusal(UNAVAILABLE, "there is no group %s on this machine" % ascii(name)) from None


def described(found: "pwd.struct_passwd") -> str:
    """What the Hub needs to know of an account, as a line of JSON."""
    names = [group_name(number) for number in os.getgrouplist(found.pw_name, found.pw_gid)]
    return json.dumps(
        {
            "name": found.pw_name,
            "uid": found.pw_uid,
            "gid": found.pw_gid,
            "group": group_name(found.pw_gid),
            "groups": names,
            "home": found.pw_dir,
        }
    )


def group_name(number: int) -> str:
    """A group's name, or the number where it has none."""
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def become(user: "pwd.struct_passwd", verb: str) -> None:
    """Go on as sudo, which runs this program as the user; the caller's input and output become theirs as they are."""
    argv = [part.replace("{user}", user.pw_name) for part in SITE["prefix"]] + [SITE["helper"], verb]
    try:
        os.execvpe(argv[0], argv, {"PATH": SITE["path"], "LC_ALL": "C"})
    except OSError as error:
        raise Refusal(UNAVAILABLE, "%s can't be started: %s" % (argv[0], error.strerror)) from error


def check_account() -> None:
    """Only a user's own rights, and never those of root or of an account of the system."""
    if 0 in (os.getuid(), os.geteuid()) or os.getuid() != os.geteuid():
        raise Refusal(NOT_PERMITTED, "it acts only for ordinary users, not for root")
    if os.getuid() < SITE["min_uid"]:
        words = "it acts only for ordinary users: uid %d is lower than the site's scheduler.min_uid, %d"
        raise Refusal(NOT_PERMITTED, words % (os.getuid(), SITE["min_uid"]))
    if account().pw_name in SYSTEMS_OWN:
        raise Refusal(NOT_PERMITTED, "it acts only for ordinary users, not for %s" % account().pw_name)


def account() -> "pwd.struct_passwd":
    """Whose rights it has, by the system's word."""
    try:
        return pwd.getpwuid(os.geteuid())
    except KeyError:
        raise Refusal(UNAVAILABLE, "there is no account with the number %d" % os.geteuid()) from None


def verbs() -> "tuple[str, ...]":
    """What it may be asked for as a user."""
    return (*VERBS, *(verb for verb in (ESTIMATE, LOOK) if SITE.get(verb)))


def verb_of(words: "list[str]") -> str:
    """The one word that it is called with."""
    if len(words) != 1 or words[0] not in verbs():
        raise Refusal(BAD_USAGE, "expected one argument, one of: %s" % ", ".join(verbs()))
    return words[0]


def check_input() -> None:
    """There is a standard input; else the first file that is opened would become it."""
    try:
        os.fstat(0)
    except OSError:
        raise Refusal(BAD_INPUT, "standard input is closed") from None


def command(verb: str, given: bytes) -> "tuple[list[str], bytes]":
    """The batch system's command for a verb, and what it reads."""
    if verb in ("submit", ESTIMATE):
        options, script = unpacked(given)
        words = [*SITE["submit"], *option_words(options, SITE)]
        # The words that make the submit command tell only, and submit nothing.
        return [*words, *(SITE[ESTIMATE] if verb == ESTIMATE else ())], checked_script(script)
    if verb == LOOK:
        return [sys.executable, "-IS", "-c", SITE[LOOK]], given
    word = checked(given, SITE["given"][verb])
    return [part.replace(GIVEN, word) for part in SITE[verb]], b""


# The two that follow serve the Hub as well, where it runs the submit command itself.


def option_words(options: "List[Tuple[str, str]]", rules: "Dict[str, Any]") -> "list[str]":
    """Words of the submit command for pairs of option and value, which the site's rules must allow.

    `rules["options"]` has a pattern for each option that a job may have, `rules["directives"]` the pairs that the site
    adds to jobs, which are taken as they are.
    """
    words = []  # type: List[str]
    for name, value in options:
        pattern = rules["options"].get(name)
        if [name, value] not in rules["directives"]:
            if pattern is None:
                raise Refusal(BAD_INPUT, "the option %s may not be given" % ascii(name[:60]))
            if not re.compile(pattern, re.ASCII).fullmatch(value):
                raise Refusal(BAD_INPUT, "the option %s may not have the value %s" % (name, ascii(value[:100])))
        if rules["long_options"]:
            words.append("--%s=%s" % (name, value) if value else "--" + name)
        else:
            words += ["-" + name, value] if value else ["-" + name]
    return words


def checked_script(script: bytes) -> bytes:
    """The script, if a batch system finds no option of its own in it."""
    found = DIRECTIVE.search(script)
    if found:
        line = ascii(found.group().decode("ascii", "replace"))
        raise Refusal(BAD_INPUT, "the script has a line that a scheduler may read as an option: %s" % line)
    if not script.strip():
        raise Refusal(BAD_INPUT, "the script is empty")
    return script


def packed(options: "List[Tuple[str, str]]", script: bytes) -> bytes:
    """Options and script as `unpacked` reads them."""
    return json.dumps(options).encode("ascii") + b"\n" + script


def unpacked(given: bytes) -> "tuple[list[tuple[str, str]], bytes]":
    """Pairs of option and value from the first line, and the script after it."""
    line, _, script = given.partition(b"\n")
    try:
        pairs = json.loads(line.decode("ascii"))
        # A text of two letters would pass for a pair, and so would a key of an object.
        if not all(isinstance(found, list) for found in [pairs, *pairs]):
            raise TypeError
        options = [(name, value) for name, value in pairs]
    except (ValueError, TypeError, RecursionError):
        options = [(None, None)]
    if not all(isinstance(text, str) for pair in options for text in pair):
        raise Refusal(BAD_INPUT, "the first line is not a list of options and their values in JSON")
    return options, script


def read_input(watch: Watch, longest: int) -> bytes:
    """All that was announced, and nothing besides."""
    data, size = b"", None
    while size is None or len(data) < size:
        if watch.reason():
            raise Refusal(BAD_INPUT, "the input was incomplete: %s" % watch.reason())
        if not watch.wait():
            continue
        chunk = os.read(0, 65536)
        if not chunk:
            raise Refusal(BAD_INPUT, "the input ended too early")
        data += chunk
        if size is None and (b"\n" in data or len(data) > 8):
            size, data = announced(data, longest)
    if len(data) > size:
        raise Refusal(BAD_INPUT, "the input is longer than was announced")
    return data


def announced(data: bytes, longest: int) -> "tuple[int, bytes]":
    """The number of bytes that follow, and those that are there already."""
    match = re.match(rb"([0-9]{1,7})\n", data)
    if not match:
        raise Refusal(BAD_INPUT, "the input does not begin with its length")
    size = int(match.group(1))
    if size > longest:
        raise Refusal(BAD_INPUT, "the input has %d bytes; at most %d are taken" % (size, longest))
    return size, data[match.end() :]


def checked(given: bytes, pattern: str) -> str:
    """The word that was given, if it is one of those that may reach a command."""
    word = given.decode("ascii", "replace")
    if not re.compile(pattern, re.ASCII).fullmatch(word):
        raise Refusal(BAD_INPUT, "%s is not a valid job id or listing mark" % ascii(word[:100]))
    return word


def start(argv: "list[str]", script: bytes, further: "Tuple[Tuple[str, str], ...]" = ()) -> "subprocess.Popen[bytes]":
    """The batch system's command, in a group of its own, with `further` variables after the site's."""
    try:
        with whole(script) as stdin:
            return subprocess.Popen(argv, stdin=stdin, env=environment(further), cwd="/", start_new_session=True)
    except OSError as error:
        raise Refusal(UNAVAILABLE, "%s can't be started: %s" % (argv[0], error.strerror)) from error


def whole(data: bytes) -> "IO[bytes]":
    """A file with all of it, so that the command never takes a part for the whole, whatever happens to us."""
    if not data:
        return open(os.devnull, "rb")
    file = unnamed()
    file.write(data)
    file.seek(0)
    return file


def unnamed() -> "IO[bytes]":
    """A file that no other account can open."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("hpcspawner"), "w+b")
    return tempfile.TemporaryFile()  # before Python 3.8


def environment(further: "Tuple[Tuple[str, str], ...]" = ()) -> "dict[str, str]":
    """What a command gets, and a job inherits: the user's own, by the system's word, and nothing of the caller's."""
    who = account()
    return {
        **SITE["variables"],
        **dict(further),
        "PATH": SITE["path"],
        "HOME": who.pw_dir,
        "USER": who.pw_name,
        "LOGNAME": who.pw_name,
        "SHELL": who.pw_shell or "/bin/sh",
        "LC_ALL": "C",
    }


def finish(child: "subprocess.Popen[bytes]", watch: Watch) -> int:
    """Wait for a command and end as it did."""
    why = follow(child.pid, watch)
    if why:
        say(ENDED + why)
    # Nothing that it has left may hold up whoever waits for the end of the output. It is not reaped yet, so the
    # number is still its own.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    code = child.wait()
    if code and not why:
        say(FAILED + str(code) if code > 0 else ENDED + "by signal %d" % -code)
    if code < 0:
        with contextlib.suppress(OSError, ValueError):  # SIGKILL takes no handler
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code if code >= 0 else 128 - code


def follow(pid: int, watch: Watch) -> str:
    """Wait until a command has ended, which leaves nothing to say, or until it has to be ended, and why."""
    while not os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        if watch.reason():
            return watch.reason()
        if watch.wait():
            return "the process that asked for it has ended"
    return ""


def say(words: str) -> None:
    """Write a line to the caller's log, if the caller still exists."""
    with contextlib.suppress(OSError, AttributeError):  # there may be no error output either
        sys.stderr.write(SAYS + words + "\n")
        sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
