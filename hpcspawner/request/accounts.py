"""Which accounts may have jobs: those of people, never root or a system account."""

import grp
import os
import pwd

from hpcspawner.errors import AccountRefused, Problem, RequestError
from hpcspawner.language import _
from hpcspawner.programs.helper import SYSTEMS_OWN
from hpcspawner.request.model import LocalAccount
from hpcspawner.schedulers.cluster import Cluster
from hpcspawner.schedulers.people import NotAUser, People
from hpcspawner.site import names
from hpcspawner.site.away import UserNames

_NO_JOB = _("The Hub submits no job for the account {name}: {why}.")


def cluster_name(name: str, rule: UserNames) -> str:
    """The cluster's name of a user of JupyterHub's. Raises AccountRefused where the site's rule gives none."""
    try:
        return rule.on_cluster(name)
    except ValueError as error:
        raise AccountRefused(
            [Problem("user", _("{name} has no account on the cluster: {why}.", name=repr(name), why=error))]
        ) from error


def name_on(cluster: Cluster, name: str) -> str:
    """The account on a cluster that jobs of this user run under, by name. Raises AccountRefused."""
    if not cluster.profile.scheduler.acts_for_users:
        return cluster.client.own_account
    return cluster_name(name, cluster.profile.users)


def of_user(name: str, min_uid: int, *, own: bool = True) -> LocalAccount:
    """The account with a user's name. A login service may give any name, so its uid is what counts.

    `own` tells whether the Hub's own account may have jobs: they can read all that the Hub keeps, where both see it.
    Raises AccountRefused where the uid is root's or below `min_uid`, RequestError where there is no such account.
    """
    try:
        entry = pwd.getpwnam(name)
    except (KeyError, ValueError) as error:
        # A name with a null byte is a ValueError.
        unknown = _("There is no account {name} on the cluster, so no job can be submitted for it.", name=repr(name))
        raise RequestError([Problem("user", unknown)]) from error
    if why := refusal(entry, min_uid):
        raise AccountRefused([Problem("user", why)])
    if entry.pw_uid == os.geteuid() and not own:
        message = _(
            "The account {name} is the Hub's own. Where the Hub has a helper or a key (scheduler.helper, "
            "scheduler.api), it submits no job for its own account, because such a job could read the Hub's secrets."
        )
        raise AccountRefused([Problem("user", message.fill(name=repr(entry.pw_name)))])
    return account(entry)


async def of_login_node(name: str, min_uid: int, people: People) -> LocalAccount:
    """The account with a user's name, by the login node's user database; the Hub's own has none of this user.

    Raises AccountRefused, RequestError as `of_user` does, and SchedulerError where no login node answers.
    """
    if problem := names.user_problem(name):
        raise AccountRefused([Problem("user", _NO_JOB.fill(name=repr(name), why=problem))])
    try:
        person = await people.find(name)
    except NotAUser as error:
        message = _("No job can be submitted for {name} on the cluster: {why}.", name=repr(name), why=error)
        raise RequestError([Problem("user", message)]) from error
    if why := refusal(person.entry, min_uid):
        raise AccountRefused([Problem("user", why)])
    return LocalAccount(person.entry.pw_name, person.entry.pw_dir, person.group)


def of_hub(*, allow_root: bool) -> LocalAccount:
    """The account that the Hub runs as, for sites where that is the account of all jobs.

    Raises AccountRefused for root, unless `allow_root`; RequestError where the account has no name.
    """
    uid = os.geteuid()
    if uid == 0 and not allow_root:
        message = _(
            "The Hub runs as root, and this site runs all jobs as the Hub's own account, so the Hub submits no job: "
            "run it as an ordinary account. (HPCSpawner.allow_root is for containers that have no other account.)"
        )
        raise AccountRefused([Problem("user", message)])
    try:
        entry = pwd.getpwuid(uid)
    except KeyError as error:
        message = _(
            "The Hub's own account, uid {uid}, has no name on this machine, so no job can be submitted.", uid=uid
        )
        raise RequestError([Problem("user", message)]) from error
    return account(entry)


def account(entry: pwd.struct_passwd) -> LocalAccount:
    """An entry of the user database, with what the site's rules for directories need."""
    try:
        group = grp.getgrgid(entry.pw_gid).gr_name
    except KeyError:
        group = str(entry.pw_gid)
    return LocalAccount(entry.pw_name, entry.pw_dir, group)


def refusal(entry: pwd.struct_passwd, min_uid: int) -> str:
    """Why this account gets no job, as a sentence; "" if it may have one."""
    name = repr(entry.pw_name)
    if entry.pw_uid == 0:
        return _("The account {name} is root's (uid 0), and the Hub submits no job for root.", name=name)
    if problem := names.user_problem(entry.pw_name):
        return _NO_JOB.fill(name=name, why=problem)
    if entry.pw_name in SYSTEMS_OWN:
        return _("The account {name} is a system account, and the Hub submits no job for it.", name=name)
    if entry.pw_uid < min_uid:
        message = _(
            "The account {name} has uid {uid}, and the Hub submits jobs only for accounts with uid {least} or higher "
            "(scheduler.min_uid in the site's profile)."
        )
        return message.fill(name=name, uid=entry.pw_uid, least=min_uid)
    return ""
