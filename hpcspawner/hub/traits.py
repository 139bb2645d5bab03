"""The settings of HPCSpawner."""

from pathlib import Path
from typing import Any

from traitlets import Any as AnyValue
from traitlets import Bool, Enum, Float, List, Unicode, default, observe

from hpcspawner.hub import startup
from hpcspawner.hub.parent import Parent
from hpcspawner.nodes.server_names import ZONE
from hpcspawner.site.renamed import SETTINGS, told

# Each server of each user has a spawner; the log has one line of it.
_told: set[str] = set()


class Traits(Parent):
    """Every setting, with its default where that is not a constant."""

    sites = List(
        Unicode(),
        config=True,
        help="""
        Paths of the profiles of the clusters, one TOML file each; the first cluster is the default.

        `hpcspawner.configure(c, "site.toml")` or `configure(c, ["one.toml", "two.toml"])` sets it and checks the files
        when the Hub starts.
        """,
    )
    site = AnyValue(
        config=True,
        help="""
        The old name of `sites`.

        It works until release 0.3, with a warning in the log.
        """,
    )

    @observe(*SETTINGS)
    def _use_new_name(self, change: Any) -> None:
        to = SETTINGS[change.name]
        if change.name not in _told:
            _told.add(change.name)
            self.log.warning("hpcspawner: %s", told(f"HPCSpawner.{change.name}", to))
        is_list = isinstance(self.traits()[to.new], List) and not isinstance(change.new, list | tuple)
        setattr(self, to.new, [change.new] if is_list else change.new)

    callback_url = Unicode(
        config=True,
        help="""
        Public https address of this Hub as compute nodes reach it, such as `https://hub.example.org`.

        The job's launcher calls `<callback_url><base_url>hub/api/hpcspawner/…` there, through the proxy.
        """,
    )
    ca_file = Unicode(
        config=True,
        help="""
        PEM file with the authority that signed the Hub's certificate.

        It travels in the job script. Empty: the launcher trusts the compute node's own store.
        """,
    )
    spool = Unicode(
        config=True,
        help="""
        Folder of the embedded `local` scheduler; other schedulers ignore it.

        Default: `hpcspawner-spool` in the Hub's working directory.
        """,
    )
    fallback_path = List(
        Unicode(),
        config=True,
        help="""
        Folders put at the end of every job's PATH, on the compute node.

        For machines where jobs can use the Hub's own environment; the profile's environments come first.
        """,
    )
    poll_interval_s = Float(
        10.0,
        config=True,
        help="""
        Seconds for which the Hub reuses one listing of the scheduler's queue; between two while servers wait.

        One listing serves all users' servers. Values below about 5 load a busy controller; above about 30 the waiting
        page lags. A started server reports itself at once.
        """,
    )
    start_limit_s = Float(
        300.0,
        config=True,
        help="""
        Seconds from a running job to a listening server.

        A first start on a cold parallel file system takes a minute or two; a server that needs more is broken.
        """,
    )
    stop_limit_s = Float(
        10.0,
        config=True,
        help="""
        Seconds that a stop waits for the scheduler's confirmation; after that the Hub waits in the background.

        JupyterHub shows "stopping" during this time.
        """,
    )

    ledger_url = Unicode(
        config=True,
        help="""
        SQLAlchemy URL of the database that keeps the record of every job, such as `postgresql://…`.

        Default: `hpcspawner.sqlite` beside the Hub's own database where that is SQLite, else the Hub's own database,
        in a table of its own.
        """,
    )
    secret_file = Unicode(
        config=True,
        help="""
        File with the secret from which the Hub derives job tags, server tokens and report keys.

        Made at the first start, with 32 random bytes in hexadecimal digits and mode 0600; the Hub does not start with
        one that other accounts may read. Keep it: without it the Hub does not recognise running servers. Default:
        `hpcspawner_secret` beside the Hub's own database where that is SQLite, else in the Hub's working directory.
        """,
    )
    housekeeping_interval_s = Float(
        60.0,
        config=True,
        help="""
        Seconds between two rounds of housekeeping.

        In each round the Hub takes up jobs that no server object has yet, and cancels jobs that no server needs. A
        change of a job's state does not wait for the next round.
        """,
    )
    orphan_grace_s = Float(
        300.0,
        config=True,
        help="""
        Seconds before the Hub cancels one of its jobs that no server needs, because the server was stopped or removed.

        The Hub cancels at most three such jobs in a round. It takes up a job that is missing from the ledger where the
        job's tag proves which server it belongs to; otherwise it keeps the job if it is older than the Hub's start.
        """,
    )
    reaper_dry_run = Bool(
        False,
        config=True,
        help="""
        Only log the jobs that would be cancelled because no server needs them.

        For a first try on a site with jobs of other Hubs. Stopping a server still cancels its job.
        """,
    )

    allow_root = Bool(
        False,
        config=True,
        help="""
        Let all jobs run as root, where the Hub runs as root and the site runs jobs as the Hub's own account.

        Every user is root then: use it only in a container that has no other account and nothing to lose. Without it
        such a Hub submits no job. It changes nothing where jobs run as their users: there the Hub submits no job for
        root.
        """,
    )

    certificate_names = Enum(
        ["job", "host"],
        default_value="job",
        config=True,
        help="""
        What a server's certificate identifies: its job (safe) or only its node (weaker).

        "job": `j<nonce>.<node>.<certificate_zone>`, so that no other server on the node can pose as this one. "host" is
        weaker: another user's server on the same node has a certificate for the same name. Use it only for proxies that
        can't resolve such names, on clusters where users never share nodes.
        """,
    )
    certificate_zone = Unicode(
        ZONE,
        config=True,
        help="""
        DNS zone of the servers' names.

        The Hub and configurable-http-proxy need no name server for the default. Another zone is the site's own, with
        wildcard DNS: `<anything>.<node>.<zone>` must resolve to the node.
        """,
    )

    ip_follows_cluster = False
    """Whether the admin has left `ip` to the scheduler of the job's cluster."""

    @default("spool")
    def _spool_default(self) -> str:
        return str(Path.cwd() / "hpcspawner-spool")

    @default("ledger_url")
    def _ledger_url_default(self) -> str:
        return startup.ledger_url_beside_the_hubs()

    @default("secret_file")
    def _secret_file_default(self) -> str:
        return startup.secret_file_beside_the_hubs()

    @default("ip")
    def _ip_default(self) -> str:
        self.ip_follows_cluster = True
        return "0.0.0.0"  # noqa: S104 - until the job's cluster is known; the launcher's key decides who gets in

    @default("env_keep")
    def _env_keep_default(self) -> list[str]:
        return []
