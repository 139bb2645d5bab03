"""A Hub with a site's own templates over hpcspawner's. Start it with: jupyterhub -f jupyterhub_config.py"""

from pathlib import Path

import hpcspawner

c = get_config()
here = Path(__file__).parent

hpcspawner.configure(
    c,
    "slurm-minimal.toml",
    callback_url="https://hub.example.org",
    # Only where the nodes' own store does not know who signed the Hub's certificate:
    # ca_file="/etc/jupyterhub/ca.pem",
)

# ---- The site's templates come first; configure() has put hpcspawner's into the list.

c.JupyterHub.template_paths.insert(0, str(here / "templates"))

# What the templates may show.
c.JupyterHub.template_vars = {"support": "support@example.org"}

# ---- The public side: HTTPS.

c.JupyterHub.bind_url = "https://:443"
c.JupyterHub.ssl_cert = "/etc/jupyterhub/hub.pem"
c.JupyterHub.ssl_key = "/etc/jupyterhub/hub.key"

# ---- The cluster's side: where servers on compute nodes ask the Hub who their visitor is.

c.JupyterHub.hub_ip = ""
c.JupyterHub.hub_port = 8081

# ---- Who may log in.

c.JupyterHub.authenticator_class = "pam"
c.PAMAuthenticator.allowed_groups = {"hpcusers"}
