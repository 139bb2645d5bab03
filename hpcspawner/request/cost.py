"""What a request costs at most, by the site's rates."""

from hpcspawner.language import _, joined
from hpcspawner.schedulers.base import Resources
from hpcspawner.site.cost import Rates
from hpcspawner.site.profile import SiteProfile


def rates(profile: SiteProfile, partition: str) -> Rates | None:
    """The rates of a partition, else the site's; None where it costs nothing."""
    place = profile.partition(partition)
    found = place.cost if place is not None and place.cost is not None else profile.cost
    return found if found is not None and (found.core_hour or found.gpu_hour) else None


def most(profile: SiteProfile, wanted: Resources) -> float | None:
    """What the job costs if it runs for all of its wall time; None where the site names no rates.

    A whole node costs all the cores that the profile says it has.
    """
    found, place = rates(profile, wanted.partition), profile.partition(wanted.partition)
    if found is None or place is None:
        return None
    cores = place.max_cpus if wanted.whole_nodes else wanted.cpus or 1
    an_hour = cores * found.core_hour + (wanted.gpus or 0) * found.gpu_hour
    return wanted.nodes * an_hour * wanted.walltime.seconds / 3600


def amount(profile: SiteProfile, number: float) -> str:
    """The number with the site's unit: `0.25 SU`, `1,200 SU`."""
    unit = profile.cost.unit if profile.cost is not None else ""
    text = f"{number:,.0f}" if number >= 100 else f"{number:.3g}"
    return f"{text} {unit}".rstrip()


def sentence(profile: SiteProfile, wanted: Resources, renewals: int) -> str:
    """What to tell the user who asks; "" where the site names no rates."""
    number = most(profile, wanted)
    if number is None:
        return ""
    message = _("It costs {amount} at most, if it runs for all of {walltime}.")
    costs = message.fill(amount=amount(profile, number), walltime=wanted.walltime)
    return joined([costs, _("Each renewal costs as much again.") if renewals else ""])
