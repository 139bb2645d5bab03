"""A Hub for one machine, without a cluster. Start it with: jupyterhub -f jupyterhub_config.py"""

import getpass
import sys
from pathlib import Path

import hpcspawner

c = get_config()

# ---- What the machine offers: a profile that comes with hpcspawner. Jobs call the Hub at this address.

hpcspawner.configure(
    c,
    "local.toml",
    callback_url="https://localhost:8443",
    # The authority that signed the certificate below; a certificate that was made by hand is its own authority.
    # ca_file="/etc/jupyterhub/hub.pem",
)

# Jobs find Jupyter beside the Hub, in the same environment.
c.HPCSpawner.fallback_path = [str(Path(sys.executable).parent)]

# A queue of one machine can be looked at often.
c.HPCSpawner.poll_interval_s = 2

# ---- HTTPS, for this machine's own browser alone.

c.JupyterHub.bind_url = "https://127.0.0.1:8443"
c.JupyterHub.ssl_cert = "/etc/jupyterhub/hub.pem"
c.JupyterHub.ssl_key = "/etc/jupyterhub/hub.key"

# ---- Who may log in. The local scheduler runs every job under the Hub's own account, so it must be you alone: a user
# who can log in has your files.

c.JupyterHub.authenticator_class = "pam"
c.Authenticator.allowed_users = {getpass.getuser()}
