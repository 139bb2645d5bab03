"""The one place that checks a user's options, from the form, a link, REST, storage or a preset."""

from dataclasses import replace
from typing import Any

from hpcspawner.errors import RequestError
from hpcspawner.request.folders import shortened
from hpcspawner.request.judge import Judge
from hpcspawner.request.model import Choice, JobRequest, LocalAccount
from hpcspawner.request.offer import Offer, offer
from hpcspawner.request.own import NOT_KNOWN, Own
from hpcspawner.site.environments import NO_IMAGE
from hpcspawner.site.profile import NEVER, SiteProfile


def make(options: object, profile: SiteProfile, user: LocalAccount, own: Own = NOT_KNOWN) -> JobRequest:
    """Check options of any origin and shape against what a site offers, to a user of this standing; see `judge`."""
    return judge(options, offer(profile, own), user)


def judge(options: object, offered: Offer, user: LocalAccount) -> JobRequest:
    """Check options of any origin and shape; raise RequestError with every problem in them.

    Options that are absent, null or empty take those of the preset, where one is named, and else the site's defaults,
    brought within the partition's limits.
    """
    profile, asked = offered.profile, Judge(options, offered)
    asked.cluster()
    partition = asked.partition()
    resources = asked.resources(partition) if partition else None
    directory = asked.directory(user)
    environment = asked.environment(user)
    interface = asked.listed("interface", profile.interfaces, profile.default_interface)
    image = asked.image(environment.image if environment else None, user)
    setup = asked.own_setup()
    details = asked.flag("details")
    queue_limit = asked.of_site("queue_limit")
    idle_limit = asked.idle_limit()
    renewals = asked.renewals()
    if asked.problems or resources is None:
        raise RequestError(asked.problems)
    request = JobRequest(
        resources=resources,
        directory=directory,
        environment=environment,
        image=image,
        interface=interface,
        own_setup=setup,
        details=details,
        queue_limit=queue_limit,
        idle_limit=idle_limit,
        renewals=renewals,
    )
    return replace(request, choices=_choices(request, profile, user))


def _choices(request: JobRequest, profile: SiteProfile, user: LocalAccount) -> dict[str, Choice]:
    resources = request.resources
    asked: dict[str, Any] = {
        "partition": resources.partition,
        "account": None if profile.account == "hidden" else resources.account,
        "qos": resources.qos,
        "reservation": resources.reservation,
        "features": list(resources.features) or None,
        "environment": request.environment.name,
        "image": request.image.name if request.image else NO_IMAGE,
        "interface": request.interface.name,
        "walltime": str(resources.walltime),
        "nodes": resources.nodes,
        "cpus": None if resources.whole_nodes else resources.cpus,
        "memory": str(resources.memory) if resources.memory else None,
        "gpus": resources.gpus if resources.gpus or _has_default_gpus(profile, resources.partition) else None,
        "gpu_type": resources.gpu_type,
        "own_setup": request.own_setup or None,
        "details": request.details or None,
        "directory": shortened(request.directory, user),
        # Limits as the site has them are no choice: they are to follow the site's when it changes them.
        **_unlike("queue_limit", str(request.queue_limit), str(profile.default_queue_limit)),
        **_unlike("idle_limit", str(request.idle_limit or NEVER), str(profile.default_idle_limit or NEVER)),
        **_unlike("renewals", request.renewals, profile.defaults.renewals),
    }
    return {name: value for name, value in asked.items() if value is not None}


def _has_default_gpus(profile: SiteProfile, partition: str) -> bool:
    """Whether no GPU is a choice of its own, because the default is to have one."""
    return profile.defaults.gpus > 0 and any(one.gpus for one in profile.partitions if one.name == partition)


def _unlike(name: str, value: Choice, default: Choice) -> dict[str, Choice]:
    return {} if value == default else {name: value}
