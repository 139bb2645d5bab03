"""What a user can do about a job that waits, in sentences that fit every scheduler."""

LESS = "Cancel, and ask for less."
THEIR_TURN = "Nothing to do. A shorter wall time or a smaller request may start sooner."
USE_LESS_AT_ONCE = "It starts when some of those jobs end. Stop servers and jobs that you no longer need."
ANOTHER_PARTITION = "Wait until it opens again, or cancel and choose another partition."
SHORTER = "A shorter wall time may fit in before; or cancel and choose another partition."
ASK = "Ask the administrators of the cluster."
PASSES = "Nothing to do: it passes by itself."
