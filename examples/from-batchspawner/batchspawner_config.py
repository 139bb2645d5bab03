"""A Hub with batchspawner 1.3.0, as `hpcspawner init --from` reads it."""

import batchspawner  # noqa: F401 - registers its endpoint

c = get_config()
c.JupyterHub.spawner_class = "batchspawner.SlurmSpawner"
c.JupyterHub.hub_ip = "10.0.0.1"
c.JupyterHub.authenticator_class = "pam"

c.BatchSpawnerBase.req_runtime = "00:20:00"
c.BatchSpawnerBase.req_memory = "1G"
c.BatchSpawnerBase.batchspawner_singleuser_cmd = "/opt/jupyter/bin/batchspawner-singleuser"
c.SlurmSpawner.req_partition = "debug"
c.SlurmSpawner.req_options = "--constraint=skylake --account=tro100"
c.SlurmSpawner.req_srun = ""
c.SlurmSpawner.exec_prefix = "sudo -E -u {username}"
c.SlurmSpawner.cmd = ["/opt/jupyter/bin/jupyterhub-singleuser"]
c.SlurmSpawner.default_url = "/lab"
c.SlurmSpawner.environment = {"FROM_BEFORE": "kept"}
c.Spawner.start_timeout = 180
c.Spawner.http_timeout = 120
