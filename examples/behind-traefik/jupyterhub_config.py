"""A Hub behind Traefik, which speaks HTTPS for it. Start it with: jupyterhub -f jupyterhub_config.py"""

from pathlib import Path

import hpcspawner

c = get_config()
here = Path(__file__).parent

# ---- What the cluster offers, and the Hub's public address as compute nodes reach it: Traefik's.

hpcspawner.configure(c, here / "site.toml", callback_url="https://hub.example.org")

# ---- The public side. The proxy listens for Traefik alone, and believes what it says about the visitor: never give the
# proxy an address that others reach.

c.JupyterHub.bind_url = "http://127.0.0.1:8000"
c.JupyterHub.public_url = "https://hub.example.org/"

# ---- The cluster's side: an address of this machine in the cluster's own network, such as "10.0.0.1".

c.JupyterHub.hub_ip = ""

# ---- Who may log in.

c.JupyterHub.authenticator_class = "pam"
c.PAMAuthenticator.allowed_groups = {"hpcusers"}
