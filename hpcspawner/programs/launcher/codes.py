"""How the launcher exits, for those who read the exit code."""

IDLE_END = "idle-end"
# Exit codes where the launcher can't report to the Hub, which has a sentence for each.
BROKEN_CODE = 1
REFUSED_CODE = 3
UNTRUSTED_CODE = 4
UNANSWERED_CODE = 5
SETTINGS_CODE = 6
WRONG_NAME_CODE = 7
WRONG_TIME_CODE = 8
NOT_RUN_CODE = 126
NO_PYTHON_CODE = 127
# And where it can.
MISSING_CODE = 127
