"""Options of a user's before they are judged: the cluster that they name, and the preset that they stand for."""

from collections.abc import Mapping
from typing import Any

from hpcspawner.errors import Problem, RequestError
from hpcspawner.jobs.job import Job
from hpcspawner.jobs.saved import SavedPresets
from hpcspawner.language import _
from hpcspawner.schedulers.cluster import Cluster, Clusters
from hpcspawner.site.profile import SiteProfile
from hpcspawner.units import shown


def chosen(options: object, clusters: Clusters) -> Cluster:
    """The cluster that options name, else the default. Raises RequestError for one that is not offered."""
    name = options.get("cluster") if isinstance(options, Mapping) else None
    if name is None or name == "":
        return clusters.default
    found = clusters.offers(name) if isinstance(name, str) else None
    if found is None:
        offered = ", ".join(one.name for one in clusters.offered)
        why = _("{name} is not a cluster of this Hub. Choose one of: {offered}.", name=shown(name), offered=offered)
        raise RequestError([Problem("cluster", why)])
    return found


def with_preset(options: Mapping[str, Any], profile: SiteProfile) -> Mapping[str, Any]:
    """Options with those of the preset that they name, to be seen in the form."""
    preset = next((one for one in profile.presets if one.name == options.get("preset")), None)
    return {**preset.options, **options} if preset else options


def with_saved(options: Any, saved: SavedPresets, user: str, cluster: Cluster) -> Any:
    """Options with those of the user's own preset that they name; a preset of the site's comes first.

    Raises RequestError for `own_preset` with a name that the user has not saved.
    """
    if not isinstance(options, Mapping):
        return options
    given = {name: value for name, value in options.items() if value not in (None, "", [])}
    name = given.pop("own_preset", None)
    preset = given.get("preset")
    if name is None and isinstance(preset, str) and preset not in {one.name for one in cluster.profile.presets}:
        name = preset
    found = saved.find(user, cluster.name, name)
    if found is not None:
        given.pop("preset", None)
        return {**found.options, **given}
    if "own_preset" in options:
        raise RequestError([Problem("preset", _("You have no preset {name} here.", name=shown(name, 80)))])
    return options


def choices_of(job: Job) -> dict[str, Any]:
    """What the job was asked for, on its own cluster: the default one may be another by now."""
    return {**job.record.choices, "cluster": job.record.cluster}
