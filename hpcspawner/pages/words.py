"""The sentences of the pages' scripts, which a page hands to its script: no script has words of its own."""

import json

from hpcspawner.language import _, all_told

_OF = {
    "form": {
        "whole": _("{partition} gives whole nodes, with all of it."),
        "no_gpus": _("{partition} has no GPUs."),
        "no_types": _("{partition} does not tell types apart."),
        "no_qos": _("{partition} has no QOS to choose."),
        "one_node": _("{partition} gives one node."),
        "walltime_up_to": _("Up to {most} in {partition}; write it as 30m, 12h or 1d 12h."),
        "memory_up_to": _("Per node, up to {most} in {partition}; write it as 512M or 1.5G. Empty: the default."),
        "only": _("{count} in {partition}."),
        "from_to": _("{low} to {high} in {partition}."),
        "write_walltime": _("{option}: write it as 90m, 12h or 1d 12h."),
        "write_memory": _("{option}: write it as 512M, 64G or 1.5T."),
        "at_most": _("{option}: you asked for {asked}; at most {most} is allowed here."),
        "whole_number": _("{option} must be a whole number."),
        "allowed": _("{option}: you asked for {asked}; allowed here: {low} to {high}."),
        "allowed_only": _("{option}: you asked for {asked}; allowed here: only {count}."),
        "pick": _("{walltime} of wall time"),
        "copied": _("Copied. The link fills in this form and starts nothing."),
        "asking": _("Asking…"),
        "looking": _("Looking…"),
        "no_answer": _("The Hub did not answer. Please try again later."),
        "own": _("Your own, as found now:"),
    },
    "starting": {"starting": _("Starting…")},
    "waiting": {
        "submitted": _("Submitted"),
        "waiting": _("Waiting"),
        "assigned": _("Starting"),
        "starting": _("Starting"),
        "ready": _("Ready"),
        "is_ready": _("Your server is ready."),
        "did_not_start": _("Your server did not start."),
        "will_notify": _("You will be notified"),
        "may_not_notify": _("The browser does not allow it"),
        "cancelling": _("Cancelling…"),
        "cancel": _("Cancel"),
        "cancel_failed": _("Cancelling failed ({why}). Please try again."),
        "hub_is_away": _("the Hub is not answering"),
    },
}


def words_of(script: str) -> str:
    """The sentences of one script by name, in the reader's language, as JSON; values go where {…} stands."""
    return json.dumps(all_told(_OF[script]), ensure_ascii=False)
