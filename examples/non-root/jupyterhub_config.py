"""A Hub that is not root, behind nginx or Apache on the same machine. jupyterhub.service starts it."""

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

# ---- The public side: a web server on this machine has the certificate and passes on what comes for the Hub
# (examples/behind-nginx, examples/behind-apache). Only root could open port 443, and read the certificate's key.

c.JupyterHub.bind_url = "http://127.0.0.1:8000"

# ---- Where the Hub keeps its own files: systemd makes this folder for the account alone.

c.JupyterHub.db_url = "sqlite:////var/lib/jupyterhub/jupyterhub.sqlite"
c.JupyterHub.cookie_secret_file = "/var/lib/jupyterhub/cookie_secret"  # noqa: S105
c.ConfigurableHTTPProxy.pid_file = "/var/lib/jupyterhub/proxy.pid"
c.JupyterHub.internal_certs_location = "/var/lib/jupyterhub/internal-ssl"

# ---- The cluster's side. Servers on compute nodes ask the Hub here who their visitor is. Empty: every address of this
# machine. Better name the one in the cluster's own network, such as "10.0.0.1".

c.JupyterHub.hub_ip = ""
c.JupyterHub.hub_port = 8081

# Or at the public address, where the environments on the nodes trust its certificate; hub_ip can be left out then:
# c.Spawner.hub_connect_url = "https://hub.example.org"

# ---- Who may log in. PAM asks for passwords of others only as root, so a login service does it: OAuth or LDAP, whose
# user names are those of the cluster. (This line lets nobody in until one is chosen.)

# c.JupyterHub.authenticator_class = "generic-oauth"

# ---- What else a site may want to change; the values are the defaults.

# Seconds that one listing of the queue is good for, for all servers together.
# c.HPCSpawner.poll_interval_s = 10

# Seconds from a running job to a listening server; waiting in the queue is not counted.
# c.HPCSpawner.start_limit_s = 300

# Several servers for each user, each with a name:
# c.JupyterHub.allow_named_servers = True
