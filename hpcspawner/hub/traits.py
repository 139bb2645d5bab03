"""The settings of HPCSpawner."""

from pathlib import Path

from traitlets import Bool, Enum, Float, List, Unicode, default

from hpcspawner.hub import startup
from hpcspawner.hub.parent import Parent
from hpcspawner.nodes.server_names import ZONE


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

        It travels in the job script. Empty: the compute node's own store is trusted.
        """,
    )
    spool = Unicode(
        config=True,
        help="""
        Folder of the embedded `local` scheduler; other schedulers do not use it.

        Default: `hpcspawner-spool` in the Hub's working directory.
        """,
    )
    fallback_path = List(
        Unicode(),
        config=True,
        help="""
        Folders put at the end of every job's PATH, on the compute node.

        For machines where the Hub's own environment is also there for jobs; the profile's environments win.
        """,
    )
    poll_interval_s = Float(
        10.0,
        config=True,
        help="""
        Seconds that a listing of the batch system's queue is good for.

        One listing serves all users' servers. Below about 5 a busy controller notices; above about 30 the waiting
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
        Seconds that a stop waits for the scheduler to confirm; after that it is confirmed in the background.

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
        File with the secret of which marks of jobs, tokens of servers and keys for reports are derived.

        Made at the first start, with 32 random bytes in hexadecimal digits and mode 0600; the Hub does not start with
        one that other accounts may read. Keep it: without it servers that run are not recognised. Default:
        `hpcspawner_secret` beside the Hub's own database where that is SQLite, else in the Hub's working directory.
        """,
    )
    housekeeping_interval_s = Float(
        60.0,
        config=True,
        help="""
        Seconds between two rounds of housekeeping.

        In each, jobs without a server of the Hub are taken up again, and jobs that nobody wants are cancelled. News of
        a job does not wait for it.
        """,
    )
    orphan_grace_s = Float(
        300.0,
        config=True,
        help="""
        Seconds that a job of this Hub is left alone which no server wants: its server was stopped or removed.

        After that it is cancelled, at most three jobs in a round. A job that the ledger does not know is taken up
        again where its tag proves whose server it is; else it is kept if it was there before the Hub's start.
        """,
    )
    reaper_dry_run = Bool(
        False,
        config=True,
        help="""
        Only write to the log which jobs would be cancelled because nobody wants them.

        For a first look on a site with jobs of other Hubs; servers that are stopped are ended all the same.
        """,
    )

    allow_root = Bool(
        False,
        config=True,
        help="""
        Let all jobs run as root, where the Hub runs as root and the site runs jobs as the Hub's own account.

        Every user is root then: only for a container that has no other account and nothing to lose. Without it such a
        Hub submits no job. It changes nothing where jobs run as their users: root gets none there.
        """,
    )

    certificate_names = Enum(
        ["job", "host"],
        default_value="job",
        config=True,
        help="""
        Whom a server's certificate names: its job, or only its node.

        "job": `j<nonce>.<node>.<certificate_zone>`, so that nobody else on the node can pose as this server. "host" is
        weaker: another user's server on the same node has a certificate for the same name. It is for proxies that
        can't be taught where such names lead, on clusters whose nodes are never shared.
        """,
    )
    certificate_zone = Unicode(
        ZONE,
        config=True,
        help="""
        The zone of the names of servers.

        The Hub and configurable-http-proxy need no name server for the default. Another zone is the site's own, with
        wildcard DNS: `<anything>.<node>.<zone>` must lead to the node.
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
