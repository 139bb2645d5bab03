"""A Hub whose users log in by OpenID Connect. Start it with: jupyterhub -f jupyterhub_config.py"""

from pathlib import Path

import hpcspawner

c = get_config()
here = Path(__file__).parent

# ---- What the cluster offers, and what it calls the users: the table [users] of site.toml.

hpcspawner.configure(c, here / "site.toml", callback_url="https://hub.example.org")

# ---- The public side, with its certificate.

c.JupyterHub.bind_url = "https://:443"
c.JupyterHub.ssl_cert = "/etc/jupyterhub/hub.pem"
c.JupyterHub.ssl_key = "/etc/jupyterhub/hub.key"

# ---- The cluster's side: an address of this machine in the cluster's own network, such as "10.0.0.1".

c.JupyterHub.hub_ip = ""

# ---- Who may log in: all that the provider knows. Who has no account on the cluster gets no server.
# The client's id and secret stand in OAUTH_CLIENT_ID and OAUTH_CLIENT_SECRET of the Hub's environment, not here.

provider = "https://login.example.org"
c.JupyterHub.authenticator_class = "generic-oauth"
c.GenericOAuthenticator.authorize_url = f"{provider}/oauth2/authorize"
c.GenericOAuthenticator.token_url = f"{provider}/oauth2/token"
c.GenericOAuthenticator.userdata_url = f"{provider}/userinfo"
c.GenericOAuthenticator.oauth_callback_url = "https://hub.example.org/hub/oauth_callback"
c.GenericOAuthenticator.scope = ["openid", "email"]
c.GenericOAuthenticator.username_claim = "email"
c.GenericOAuthenticator.login_service = "your organisation's account"
c.GenericOAuthenticator.allow_all = True
