"""A Hub with its database in PostgreSQL. Start it with: jupyterhub -f jupyterhub_config.py"""

from pathlib import Path

import hpcspawner

c = get_config()
here = Path(__file__).parent

# ---- The Hub's database, by the Unix socket of this machine, as the account that the Hub runs as.

c.JupyterHub.db_url = "postgresql+psycopg2:///jupyterhub?host=/run/postgresql"

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
