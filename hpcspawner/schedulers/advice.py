"""What a user can do about a job that waits, in sentences that fit every scheduler."""

from hpcspawner.language import _

LESS = _("Cancel, and ask for less.")
THEIR_TURN = _("Nothing to do. A shorter wall time or a smaller request may start sooner.")
USE_LESS_AT_ONCE = _("It starts when some of those jobs end. Stop servers and jobs that you no longer need.")
ANOTHER_PARTITION = _("Wait until it opens again, or cancel and choose another partition.")
SHORTER = _("A shorter wall time may fit in before; or cancel and choose another partition.")
ASK = _("Ask the administrators of the cluster.")
PASSES = _("Nothing to do: it passes by itself.")
