"""A Hub for a cluster with Slurm, whose servers run in the site's modules.

Start it with: jupyterhub -f jupyterhub_config.py
"""

from pathlib import Path

import hpcspawner

c = get_config()
here = Path(__file__).parent

# ---- What the cluster offers, and the Hub's public address as compute nodes reach it.

hpcspawner.configure(
    c,
    here / "site.toml",
    callback_url="https://hub.example.org",
    # Only where the nodes' own store does not know who signed the Hub's certificate:
    # ca_file="/etc/jupyterhub/ca.pem",
)

# ---- The public side: HTTPS.

c.JupyterHub.bind_url = "https://:443"
c.JupyterHub.ssl_cert = "/etc/jupyterhub/hub.pem"
c.JupyterHub.ssl_key = "/etc/jupyterhub/hub.key"

# ---- The cluster's side. Servers on compute nodes ask the Hub here who their visitor is. Empty: every address of this
# machine. Better name the one in the cluster's own network, such as "10.0.0.1".

c.JupyterHub.hub_ip = ""
c.JupyterHub.hub_port = 8081

# Or at the public address, where the environments on the nodes trust its certificate; hub_ip can be left out then:
# c.Spawner.hub_connect_url = "https://hub.example.org"

# ---- Who may log in. User names must be those of the cluster; jobs are submitted under them, by the sudo rule that
# README.md shows.

c.JupyterHub.authenticator_class = "pam"
c.PAMAuthenticator.allowed_groups = {"hpcusers"}
