"""One job: the start, the watch over the server, the report of its end."""

import contextlib
import json
import math
import os
import re
import signal
from collections import namedtuple

from hpcspawner.programs.launcher.codes import MISSING_CODE, SETTINGS_CODE
from hpcspawner.programs.launcher.signals import Signals
from hpcspawner.programs.launcher.start import Start
from hpcspawner.programs.launcher.words import (
    NODE,
    EndError,
    HubBusyError,
    HubError,
    _hidden,
    clean,
    last_lines,
    say,
    signal_name,
    span,
)

SETTINGS_FD = 4
SETTINGS_VERSION = 3
# What each is stands in `LauncherSettings` (script/settings.py), which writes them.
Settings = namedtuple(
    "Settings",
    "version callback ca ticket tls command programs alone program proxy containers bind hidden environment image"
    " directory writable variables ports limit_s idle_limit_s status extensions modules beside files",
)
WARNED_TRIES = 12
END_REPORT_S = 5.0
# What jupyter_server and notebook say when their own option ends them.
_IDLE = re.compile(r"No kernels(?: or terminals)? for (\d+) seconds; shutting down")


class Job(Start):
    """One server on this node, from the ticket to the report of its end."""

    def run(self):
        """Do it all; return how the job exits."""
        try:
            return self._run()
        finally:
            self._remove_folder()

    def _run(self):
        try:
            self._exchange()
            self._prepare()
            self._start()
            self._report_listening()
            return self._report_end(self._watch())
        except EndError as error:
            end = error
        except (HubError, HubBusyError) as error:
            self._end_server()
            say(str(error))
            return error.code
        except Exception as error:
            end = EndError("server-exited", "The launcher failed on %s: %s: %s" % (NODE, type(error).__name__, error))
        say(str(end))
        self._end_server()
        return self._report_end(end)

    def _heed_inside(self):
        """Raise why the server that has ended never began, where that lies with the image."""
        found = self.inside.found if self.inside and not self._ending() else "command"
        if found.startswith("missing "):
            self._require(None, " or ".join([found.partition(" ")[2], *self.settings.alone[:1]]))
        if not found:
            how = self.inside.why_not() or "it ended with exit code %d. See the job's log." % self.server.code
            message = "%s could not enter %s: %s" % (self.container[0], self.place, how)
            raise EndError("missing-program", message, MISSING_CODE)

    def _report_listening(self):
        if self._stopped():
            return
        say("server listens on port %d" % self.port)
        body = {"report_key": self.report_key, "event": "listening", "port": self.port, "phases": self.phases}
        # For as long as it takes: a server that runs must not be lost because the Hub is away.
        answer = self.hub.ask("/report", body, math.inf, self._stopped)
        if self.keeper and answer:
            self.keeper.heard(answer)

    def _pass_on_warning(self):
        """The scheduler has said that the wall time ends soon."""
        if self.keeper:
            self.keeper.change(warned=True)
        self.hub.tell("/report", {"report_key": self.report_key, "event": "warned"}, WARNED_TRIES)

    def _pass_on_end(self):
        """What asked the launcher to end concerns the server, and what runs beside it: a kill may follow soon."""
        self.server.send(signal.SIGTERM)
        if self.beside:
            self.beside.send(signal.SIGTERM)

    def _watch(self):
        """Stay as the server's parent until it ends, and pass on what asks for its end."""
        passed = 0
        warned = False
        while not self._ended():
            if self.signals.warned and not warned:
                warned = True
                self._pass_on_warning()
            if passed < len(self.signals.ending):
                passed = len(self.signals.ending)
                self._pass_on_end()
            idle = self._idle_program()
            if idle:
                return idle
            self.signals.pause(self._next_look_s)
        # A scheduler may signal both of us, and the server may be faster.
        self.signals.until(self._ending, 0.1)
        self._heed_inside()
        if self.server.code is None and self._ending():
            self._end_server()  # the proxy was faster
        code = self.server.code
        if code is None:
            message = "The proxy in front of the server ended with exit code %d on %s." % (self.front.code, NODE)
            raise EndError("server-exited", message)
        number = -code if code < 0 else None
        how = "was ended by %s" % signal_name(number) if number else "ended with exit code %d" % code
        say("server %s" % how)
        idle_s = self._idle_s() if code == 0 and not self._ending() else None
        if idle_s is not None:
            self._end_server()
            return EndError("idle", "The server was idle for %s and shut down." % span(idle_s), 0, 0)
        message = "%s %s on %s." % (self.title, how, NODE)
        if number == signal.SIGKILL:
            message += " This often means that the server used more memory than the job asked for."
        self._end_server()
        reason, seen = ("signalled", self.signals.ending[0]) if self._ending() else ("server-exited", number)
        return EndError(reason, message, 128 + number if number else code, None if number else code, seen)

    @property
    def _next_look_s(self):
        """How long to wait until something is looked at again."""
        limit_s = self.settings.idle_limit_s if self.settings.program else None
        return 60 if limit_s is None else min(60, max(1, limit_s / 10))

    def _idle_program(self):
        """End a program that nobody has used for as long as it may be idle, and say so."""
        limit_s = self.settings.idle_limit_s
        if not self.settings.program or limit_s is None or self._ending() or self.behind.idle_s(self.server) <= limit_s:
            return None
        self._end_server()
        say("the server was idle for %d seconds and shuts down" % limit_s)
        return EndError("idle", "The server was idle for %s and shut down." % span(limit_s), 0, 0)

    def _idle_s(self):
        """How long the server was idle, if it ended for that; else None."""
        if self.extensions and self.extensions.ended:
            return self.settings.idle_limit_s
        found = [_IDLE.search(line) for line in last_lines(self.log, self.log_start)]
        return next((int(match.group(1)) for match in reversed(found) if match), None)

    def _remove_folder(self):
        if self.folder:
            self.folder.remove()

    def _remove_spare_log(self):
        """If the job's own folder can't be written, the log on this node could not be found or removed."""
        if os.environ.get("HPC_LOG_SPARE") and self.log != os.devnull:
            with contextlib.suppress(OSError):
                os.unlink(self.log)

    def _report_end(self, end):
        self._remove_folder()  # before the report: a scheduler may kill this process soon
        if self.report_key:
            body = {"report_key": self.report_key, "event": "ended", "log": last_lines(self.log, self.log_start)}
            body.update(end.report, message=clean(end.report["message"], 500))
            try:
                self.hub.ask("/report", body, END_REPORT_S, lambda: False, tries=3)
                self._remove_spare_log()
            except (HubError, HubBusyError) as error:
                say("could not report the end to the Hub. %s" % error)
        return end.code


def read_settings():
    """The settings, read to their end and closed, so that the server can't inherit them."""
    with open(SETTINGS_FD, "rb") as file:
        settings = Settings(**json.loads(file.read().decode("utf-8")))
    if settings.version != SETTINGS_VERSION:
        raise ValueError("another version")
    return settings


def main():
    """Run the job's server; return how the job exits."""
    signals = Signals()
    try:
        settings = read_settings()
        _hidden.add(settings.ticket)
        job = Job(settings, signals)
    except HubError as error:
        say(str(error))
        return error.code
    except (OSError, ValueError, TypeError) as error:
        say("this job's settings can't be read: %s" % type(error).__name__)
        return SETTINGS_CODE
    return job.run()


if __name__ == "__main__":
    # Not sys.exit(): a second signal during the interpreter's own end would hide the exit code.
    os._exit(main())
