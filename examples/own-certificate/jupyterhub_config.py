"""A Hub whose own proxy speaks HTTPS, with the site's certificate. Start it with: jupyterhub -f jupyterhub_config.py"""

from pathlib import Path

import hpcspawner

c = get_config()
here = Path(__file__).parent

# ---- HTTPS by the Hub's own proxy: browsers never come by plain HTTP again, and who does is sent here.

c.ConfigurableHTTPProxy.command = hpcspawner.https_proxy(redirect_port=80)

# ---- What the cluster offers, and the Hub's public address as compute nodes reach it.

hpcspawner.configure(c, here / "site.toml", callback_url="https://hub.example.org")

# ---- The public side, with its certificate.

c.JupyterHub.bind_url = "https://:443"
c.JupyterHub.public_url = "https://hub.example.org/"
c.JupyterHub.ssl_cert = "/etc/jupyterhub/hub.pem"
c.JupyterHub.ssl_key = "/etc/jupyterhub/hub.key"

# ---- The cluster's side: an address of this machine in the cluster's own network, such as "10.0.0.1".

c.JupyterHub.hub_ip = ""

# ---- Who may log in.

c.JupyterHub.authenticator_class = "pam"
c.PAMAuthenticator.allowed_groups = {"hpcusers"}
