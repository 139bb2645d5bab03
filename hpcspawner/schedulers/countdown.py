"""The warning before the wall time ends, where the scheduler sends none."""

from hpcspawner.schedulers.base import Resources

# It ends with the script, and within ten seconds where its end was not seen to.
_WARNING = """\
# {title} sends no warning before the wall time ends, so the script counts.
hpc_left={after_s}
if [ "$hpc_left" -gt 0 ]; then
  while [ "$hpc_left" -gt 0 ]; do
    sleep $((hpc_left < 10 ? hpc_left : 10))
    hpc_left=$((hpc_left - 10))
    kill -0 "$$" || exit
  done && kill -USR1 "$$"
fi </dev/null >/dev/null 2>&1 &\
"""


def countdown(title: str, resources: Resources) -> str:
    """Lines of bash by which the job script warns itself; `title` is the scheduler's or the service's."""
    after_s = resources.walltime.seconds - resources.warning_s if resources.warning_s else 0
    return _WARNING.format(title=title, after_s=max(after_s, 0))
