"""A Hub whose idle servers JupyterHub's own culler ends. Start it with: jupyterhub -f jupyterhub_config.py"""

import sys
from pathlib import Path

import hpcspawner

c = get_config()
here = Path(__file__).parent

# ---- What the cluster offers, and the Hub's public address as compute nodes reach it.

hpcspawner.configure(c, here / "site.toml", callback_url="https://hub.example.org")

# ---- The public side, with its certificate.

c.JupyterHub.bind_url = "https://:443"
c.JupyterHub.ssl_cert = "/etc/jupyterhub/hub.pem"
c.JupyterHub.ssl_key = "/etc/jupyterhub/hub.key"

# ---- The cluster's side: an address of this machine in the cluster's own network, such as "10.0.0.1".

c.JupyterHub.hub_ip = ""

# ---- Who may log in.

c.JupyterHub.authenticator_class = "pam"
c.PAMAuthenticator.allowed_groups = {"hpcusers"}

# ---- Who ends idle servers: a service, with the certificates that the Hub makes for its own.

c.JupyterHub.services = [
    {
        "name": "idle-culler",
        "command": [
            sys.executable,
            "-m",
            "jupyterhub_idle_culler",
            "--timeout=14400",
            "--cull-every=600",
            "--ssl-enabled=true",
            "--internal-certs-location=internal-ssl",
        ],
    }
]
c.JupyterHub.load_roles = [
    {
        "name": "idle-culler",
        "services": ["idle-culler"],
        "scopes": ["list:users", "read:users:activity", "read:servers", "delete:servers"],
    }
]
