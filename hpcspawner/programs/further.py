"""Part of `parallel.py`, which travels beside it: further jobs by ipyparallel and dask-jobqueue."""

import contextlib
import getpass
import json
import os
import shlex
import subprocess

COMMAND_S = 20
TRIES = 3

# For the commands that submit jobs: what the Hub has told the server is for the server alone.
SUBMIT = """\
#!/bin/bash
here=${0%/*}
for name in "${!JUPYTERHUB_@}" "${!JPY_@}" "${!HPC_@}"; do unset "$name"; done
# Of the server's job, and wrong in another.
case ${0##*/} in srun) ;; *) unset "${!SRUN_@}" "${!SLURM_CPU_BIND@}" "${!SLURM_MEM_@}" ;; esac
PATH=:$PATH:
PATH=${PATH//":$here:"/:}
PATH=${PATH#:}
PATH=${PATH%:}
exec "${0##*/}" "$@"
"""


def say(text):
    """Write one line to the job's log."""
    with contextlib.suppress(OSError):
        os.write(2, ("hpcspawner: %s\n" % text).encode("utf-8", "replace"))


def filled(words, **values):
    """Words with `{name}` and the like filled in."""

    def fill(word):
        for name, value in values.items():
            word = word.replace("{%s}" % name, str(value))
        return word

    return [fill(word) for word in words]


def plain(text):
    """The same text, in a format string."""
    return text.replace("{", "{{").replace("}", "}}")


class Further:
    """Jobs of one server; what it needs are settings, a folder, this node's address, and how to be set up."""

    def _lines(self, *options):
        """Lines of a job's script with options."""
        return [self.backend["prefix"] + one for one in filled(options, name=self.name, log=self.log)]

    def _own_options(self):
        return [*self.backend["options"], *self.backend["log"]]

    def _hpc(self):
        """Of the profile `hpc`: controller here, engines in a job."""
        backend = self.backend
        # A format string: our braces are doubled, and those of the tasks are not.
        fixed = map(plain, self._lines(backend["name"], *self._own_options(), *backend["chosen"]))
        start = " ".join([*backend["start"], plain(shlex.quote(self.enter))])
        program = " {program_and_args} --profile-dir='{profile_dir}' --cluster-id='{cluster_id}'"
        found = "PATH=$PATH" + "".join(":" + plain(shlex.quote(folder)) for folder in self.settings["path"])
        lines = ["#!/bin/bash", *fixed, *self._lines(*backend["tasks"]), found, start + program, ""]
        kind = {"slurm": "Slurm", "pbs": "PBS"}[backend["kind"]]
        cluster = [
            "c = get_config()",
            "c.Cluster.engine_launcher_class = %r" % backend["kind"],
            "c.Cluster.controller_ip = %r" % self.address,
            "c.Cluster.controller_location = %r" % self.address,
            # Engines read the keys from the folder: a scheduler may keep a job's variables.
            "c.Cluster.send_engines_connection_env = False",
            "c.%sEngineSetLauncher.batch_template = %r" % (kind, "\n".join(lines)),
            "c.%sEngineSetLauncher.batch_file_name = %r"
            % (kind, self.shared.folder("ipython", "profile_hpc", "engines.sh")),
            "",
        ]
        return {"ipcluster_config.py": "\n".join(cluster), "ipcontroller_config.py": self._controller()}

    def _controller(self):
        """Of every controller: it is reached on the cluster's network alone, and traffic is encrypted."""
        lines = ("ip = %r" % self.address, "location = %r" % self.address, "enable_curve = True")
        return "c = get_config()\n" + "".join("c.IPController.%s\n" % line for line in lines)

    def _dask(self):
        """The folder of dask's configuration: ours first, so that the user's own wins."""
        folder = os.path.dirname(self.shared.folder("dask", ""))
        configuration = {
            "jobqueue": {self.backend["kind"]: self._workers()},
            "distributed": {"comm": {"tls": self._tls()}},
        }
        self.shared.write("dask/00-hpcspawner.yaml", json.dumps(configuration, indent=1))
        own_folder = os.environ.get("DASK_CONFIG") or os.path.expanduser("~/.config/dask")
        if os.path.isdir(own_folder):
            for name in os.listdir(own_folder):
                os.symlink(os.path.join(own_folder, name), os.path.join(folder, "10-" + name))
        # Workers read it too: it has their certificates.
        with open(self.environment, "a") as file:
            file.write("\nexport DASK_CONFIG=%s\n" % shlex.quote(folder))
        return folder

    def _workers(self):
        """What dask-jobqueue has by itself, so that `SLURMCluster()` needs no argument."""
        backend = self.backend
        wanted = {
            "name": self.name,
            "cores": self.settings["cores"],
            "memory": "%dMiB" % self.settings["memory_mib"],
            "processes": 1,
            "queue": backend["queue"] or None,
            "account": backend["account"] or None,
            "walltime": backend["walltime"] or None,
            "job-extra-directives": self._directives(),
            "job-script-prologue": [". " + shlex.quote(self.environment)],
            # A scheduler without TLS runs what any user of the network sends.
            "scheduler-options": {"host": self.address, "protocol": "tls://", "dashboard_address": "127.0.0.1:0"},
            "shebang": "#!/bin/bash",
        }
        return dict(wanted, **{"resource-spec": backend["worker"]} if backend["worker"] else {})

    def _tls(self):
        """A certificate for scheduler, workers and notebook, which trust no other."""
        key, certificate = self.shared.folder("dask", "key.pem"), self.shared.folder("dask", "certificate.pem")
        openssl = os.environ.get("HPC_OPENSSL") or "openssl"
        made = [openssl, *["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3650", "-subj", "/CN=hpcspawner"]]
        if not self._succeeds([*made, "-keyout", key, "-out", certificate]):
            say("dask clusters can't be started: openssl made no certificate")
        pair = {"cert": certificate, "key": key}
        return {"ca-file": certificate, "scheduler": pair, "worker": pair, "client": pair}

    def _directives(self):
        """Options as dask-jobqueue takes them: with all but `#SBATCH ` or `#PBS `."""
        return [line.partition(" ")[2] for line in self._lines(*self._own_options())]

    # ---- their end

    def _cancel(self):
        """End the jobs; again where a command was killed, as by a scheduler that ends all that runs in this job."""
        for _ in range(TRIES):
            if self._cancelled():
                return
        say("jobs called %s may be left: they could not be cancelled" % self.name)

    def _cancelled(self):
        backend = self.backend
        words = {"name": self.name, "user": getpass.getuser()}
        if not backend["select"]:
            return self._succeeds(filled(backend["cancel"], **words))
        ids = self._said(filled(backend["select"], **words))
        return ids is not None and (not ids.split() or self._succeeds([*backend["cancel"], *ids.split()]))

    # ---- commands

    def _path(self):
        return os.pathsep.join([os.environ.get("PATH", os.defpath), *self.settings["path"]])

    def _succeeds(self, argv):
        return self._said(argv) is not None

    def _said(self, argv):
        """What a command printed; None if it failed."""
        try:
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=COMMAND_S,
                check=False,
                # Signals for us and our engines are not for it.
                start_new_session=True,
                env=dict(os.environ, PATH=self._path()),
            )
        except (OSError, subprocess.SubprocessError) as error:
            say("%s: %s" % (argv[0], error))
            return None
        return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None
