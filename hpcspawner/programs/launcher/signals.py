"""The signals that the launcher heeds, and waiting that they cut short."""

import os
import select
import signal
import time

from hpcspawner.programs.launcher.words import say, signal_name

ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
WARNING = signal.SIGUSR1
NOTED = (WARNING, signal.SIGUSR2)


class Signals:
    """Signals in the order they came. They interrupt nothing: all waiting is done here."""

    def __init__(self):
        self.ending = []
        self.warned = False
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        signal.set_wakeup_fd(self._writer)
        for number in (*ENDING, *NOTED, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)

    def wake(self):
        """End a pause from another thread."""
        os.write(self._writer, b"\0")

    def pause(self, seconds):
        """Wait until a signal comes, a child ends, `wake` is called or the time has passed."""
        if not select.select([self._reader], [], [], max(0, seconds))[0]:
            return
        for number in os.read(self._reader, 4096):
            if number in ENDING:
                self.ending.append(number)
            if number == WARNING:
                self.warned = True
                say("the scheduler warns: the wall time ends soon")
            elif number in ENDING or number in NOTED:
                say("signal %s received" % signal_name(number))

    def until(self, condition, seconds):
        """Wait until `condition()` holds or the time has passed; say whether it holds."""
        deadline = time.monotonic() + seconds
        while not condition() and time.monotonic() < deadline:
            self.pause(min(0.1, deadline - time.monotonic()))
        return condition()
