"""A Hub that is not on the cluster and reaches it by SSH. Start it with: jupyterhub -f jupyterhub_config.py"""

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

c.JupyterHub.bind_url = "https://:8443"
c.JupyterHub.ssl_cert = "/etc/jupyterhub/tls/hub.pem"
c.JupyterHub.ssl_key = "/etc/jupyterhub/tls/hub.key"

# ---- Servers on compute nodes ask the Hub here who their visitor is: an address of this machine that they reach.

c.JupyterHub.hub_ip = ""
c.JupyterHub.hub_port = 8081

# ---- What is kept (databases, secrets) lies in the folder that the Hub is started in: in the container a volume.

# ---- Who may log in. No user has to exist here; site.toml says what the cluster calls them.

# c.JupyterHub.authenticator_class = "generic-oauth"
# c.OAuthenticator.allowed_groups = {"hpcusers"}
