"""A Hub with wrapspawner 1.0 around batchspawner 1.3.0, as `hpcspawner init --from` reads it."""

import batchspawner  # noqa: F401 - registers its endpoint

c = get_config()
c.JupyterHub.spawner_class = "wrapspawner.ProfilesSpawner"
c.JupyterHub.hub_ip = "10.0.0.1"
c.JupyterHub.authenticator_class = "pam"

c.ProfilesSpawner.profiles = [
    (
        "Compute, two CPUs, 20 minutes",
        "compute",
        "batchspawner.SlurmSpawner",
        {"req_partition": "compute", "req_nprocs": "2", "req_memory": "1G", "req_runtime": "00:20:00"},
    ),
    (
        "Two GPUs, an hour",
        "gpus",
        "batchspawner.SlurmSpawner",
        {"req_partition": "gpu-shared", "req_ngpus": "2", "req_memory": "4G", "req_runtime": "01:00:00"},
    ),
    ("The login node", "here", "jupyterhub.spawner.LocalProcessSpawner", {"ip": "127.0.0.1"}),
]

c.SlurmSpawner.req_options = "--account=tro100"
c.BatchSpawnerBase.batchspawner_singleuser_cmd = "/opt/jupyter/bin/batchspawner-singleuser"
c.SlurmSpawner.exec_prefix = "sudo -E -u {username}"
c.SlurmSpawner.req_srun = ""
c.Spawner.cmd = ["/opt/jupyter/bin/jupyterhub-singleuser"]
c.Spawner.default_url = "/lab"
c.Spawner.start_timeout = 180
