"""The spawner class and its set-up, as far as they can be told without a Hub."""

import contextvars
import importlib.metadata
import inspect
import re
import subprocess
import sys
import types

import batchspawner
import pytest
from batchspawner.api import BatchSpawnerAPIHandler
from jupyterhub.apihandlers import default_handlers
from jupyterhub.spawner import Spawner
from tornado.web import Application, RequestHandler
from traitlets import Float, Integer
from traitlets.config import Config

import hpcspawner
from hpcspawner.hub import startup
from hpcspawner.hub.doors import Doors
from hpcspawner.hub.hub_ledger import hub_ledger
from hpcspawner.hub.parent import OVERRIDES, Parent, remove_its_endpoint
from hpcspawner.hub.startup_checks import forbidden_routes
from hpcspawner.hub.traits import Traits
from hpcspawner.hub.watch import Watch
from hpcspawner.nodes import resolvers
from hpcspawner.nodes.endpoints import handlers
from hpcspawner.pages.pages import LinkFillsForm, draft
from hpcspawner.site.renamed import SETTINGS
from hpcspawner.spawner import HPCSpawner

URL = "https://hub.example.org"

GOOD = """\
title = "Test cluster"
[scheduler]
type = "slurm"
[[partitions]]
name = "debug"
max_walltime = "30m"
[[environments]]
name = "jupyter"
"""
BAD = GOOD.replace('"slurm"', '"pbs"').replace('"30m"', '"30:00"').replace('"jupyter"', '"jup yter"')

TRAITS = Traits.class_own_traits(config=True)


# --- the parent


def test_every_override_has_its_reason_and_no_other():
    ours = {
        name
        for name, member in {**vars(Parent), **vars(Traits), **vars(Doors), **vars(Watch), **vars(HPCSpawner)}.items()
        if inspect.isfunction(member) and hasattr(batchspawner.BatchSpawnerBase, name)
    }
    assert ours == set(OVERRIDES)
    assert all(OVERRIDES.values())


def test_tools_that_look_for_a_batchspawner_find_one():
    assert issubclass(HPCSpawner, batchspawner.BatchSpawnerBase)
    assert issubclass(HPCSpawner, Spawner)


def test_no_command_of_the_parent_can_run():
    """What the parent would run as a shell line: its methods are replaced by ones that refuse."""
    refusing = [name for name, reason in OVERRIDES.items() if "shell" in reason]
    assert set(refusing) == {"submit_batch_script", "query_job_status", "cancel_batch_job", "run_command"}
    for name in refusing:
        call = getattr(HPCSpawner, name)
        arguments = ["true"] if name == "run_command" else []
        with pytest.raises(RuntimeError, match=rf"does not use {name}\(\) of its parent"):
            call(None, *arguments).send(None)


@pytest.mark.parametrize(
    "name", ["state_ispending", "state_isrunning", "state_isunknown", "state_gethost", "get_req_subvars"]
)
def test_no_text_of_the_parent_is_read_as_a_state(name):
    with pytest.raises(RuntimeError, match="of its parent"):
        getattr(HPCSpawner, name)(None)


def test_a_link_fills_the_form_and_starts_nothing():
    """The Hub calls this before a start; an exception without words is what makes it show the form instead."""

    def visit():
        with pytest.raises(LinkFillsForm) as caught:
            HPCSpawner.options_from_query(None, {"partition": ["gpu"], "next": [""], "_xsrf": ["x"]})
        return caught.value, draft.get()

    error, shown = contextvars.copy_context().run(visit)
    assert (error.jupyterhub_message, error.jupyterhub_html_message) == ("", "")
    assert (shown.values, shown.problems) == ({"partition": "gpu"}, ())
    assert "No server has been started yet" in shown.note


# --- batchspawner's endpoint


@pytest.mark.parametrize(
    "imports",
    [
        pytest.param(["hpcspawner.spawner"], id="alone"),
        pytest.param(["batchspawner", "hpcspawner.spawner"], id="batchspawner before"),
        pytest.param(["hpcspawner.spawner", "batchspawner", "batchspawner.api"], id="batchspawner after"),
    ],
)
@pytest.mark.parametrize("ours", [True, False], ids=["configured", "only installed"])
def test_the_endpoint_of_batchspawner_is_removed_from_a_hub_of_ours_alone(imports, ours, site):
    code = f"""
import importlib
import hpcspawner
from traitlets.config import Config
for name in {imports!r}:
    importlib.import_module(name)
if {ours}:
    hpcspawner.configure(Config(), {str(site)!r}, callback_url={URL!r})
import sys
from jupyterhub.apihandlers import default_handlers
assert "batchspawner.api" in sys.modules
assert len(default_handlers) > 20
print([entry[0] for entry in default_handlers if "batchspawner" in entry[0] + entry[1].__module__])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == ("[]\n" if ours else "['/api/batchspawner']\n")


@pytest.mark.parametrize(
    "routes",
    [
        pytest.param([(r"/hub/api/batchspawner", BatchSpawnerAPIHandler)], id="its own route"),
        pytest.param([(r"/hub/api/other", BatchSpawnerAPIHandler)], id="another route"),
        pytest.param([(r".*", [(r"/hub/api/batchspawner", BatchSpawnerAPIHandler)])], id="below another"),
        pytest.param([(r"/hub/api/batchspawner", "batchspawner.api.BatchSpawnerAPIHandler")], id="by name"),
    ],
)
def test_the_check_at_start_finds_the_endpoint_where_it_is(routes):
    application = Application([(r"/hub/health", RequestHandler), *routes])
    assert len(forbidden_routes(application)) == 1


def test_the_check_at_start_finds_the_endpoint_behind_a_host_name():
    application = Application([(r"/", RequestHandler)])
    application.add_handlers(r"hub\.example\.org", [(r"/hub/api/batchspawner", BatchSpawnerAPIHandler)])
    assert len(forbidden_routes(application)) == 1


def test_the_check_at_start_finds_nothing_in_the_hubs_own_handlers_and_ours():
    remove_its_endpoint()
    application = Application([*((route, handler) for route, handler, *_ in default_handlers), *handlers(hub_ledger)])
    assert forbidden_routes(application) == []


# --- entry point and traits


def test_the_entry_point_names_the_class():
    (entry,) = importlib.metadata.entry_points(group="jupyterhub.spawners", name="hpc")
    assert entry.load() is HPCSpawner


def test_the_package_shows_four_names():
    assert set(hpcspawner.__all__) == {"HPCSpawner", "__version__", "configure", "https_proxy"}
    assert hpcspawner.HPCSpawner is HPCSpawner
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        hpcspawner.nothing  # noqa: B018


@pytest.mark.parametrize("name", TRAITS)
def test_a_trait_explains_itself_in_a_first_line_of_its_own(name):
    first, *rest = inspect.cleandoc(TRAITS[name].help).splitlines()
    assert first.endswith(".")
    assert first[0].isupper()
    assert not rest or rest[0] == ""
    # Somebody who reads no more than the first line knows what it is; the rest says default, unit and cost.
    assert [line for line in rest if line.strip()]


@pytest.mark.parametrize("name", [name for name, trait in TRAITS.items() if isinstance(trait, Float | Integer)])
def test_a_number_names_its_unit(name):
    assert name.endswith("_s")
    assert re.match(r"Seconds ", inspect.cleandoc(TRAITS[name].help))


def test_the_traits_are_the_documented_ones():
    assert set(TRAITS) == {
        *SETTINGS,
        "sites",
        "callback_url",
        "ca_file",
        "spool",
        "fallback_path",
        "poll_interval_s",
        "start_limit_s",
        "stop_limit_s",
        "ledger_url",
        "secret_file",
        "allow_root",
        "housekeeping_interval_s",
        "orphan_grace_s",
        "reaper_dry_run",
        "certificate_names",
        "certificate_zone",
    }


# --- one line in the configuration


@pytest.fixture
def site(tmp_path):
    path = tmp_path / "site.toml"
    path.write_text(GOOD, encoding="utf-8")
    return path


@pytest.fixture
def ca(tmp_path):
    path = tmp_path / "ca.pem"
    path.write_text("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n", encoding="ascii")
    return path


def configured(site, **given):
    c = Config()
    profile = hpcspawner.configure(c, site, **({"callback_url": URL} | given))
    return c, profile


def refusal(site, **given):
    with pytest.raises(SystemExit) as caught:
        configured(site, **given)
    assert isinstance(caught.value.code, str), "the Hub must end with a message and a bad exit code"
    return caught.value.code


def test_one_line_sets_what_a_hub_needs(site, ca):
    c, profile = configured(site, ca_file=ca)
    assert profile.title == "Test cluster"
    assert c.JupyterHub.spawner_class == "hpcspawner.spawner.HPCSpawner"
    assert c.HPCSpawner == {"sites": [str(site)], "callback_url": URL, "ca_file": str(ca)}
    assert c.JupyterHub.cleanup_servers is False
    assert c.JupyterHub.concurrent_spawn_limit == 0
    assert c.Spawner.start_timeout >= 7 * 24 * 3600
    routes = [entry[0] for entry in c.JupyterHub.extra_handlers]
    assert routes == [
        r"/api/hpcspawner/ticket",
        r"/api/hpcspawner/report",
        r"/hpcspawner/cost",
        r"/hpcspawner/facts",
        r"/hpcspawner/script",
        r"/hpcspawner/when",
        r"/hpcspawner/environments",
        r"/hpcspawner/check",
        r"/hpcspawner/presets",
        r"/hpcspawner/help",
        r"/hpcspawner/cancel",
        r"/hpcspawner/servers",
        r"/hpcspawner/servers/all",
        r"/hpcspawner/servers/own",
        r"/hpcspawner/static/(.*)",
    ]
    (templates,) = c.JupyterHub.template_paths
    assert templates.endswith("pages/templates")


def test_tls_to_the_nodes_is_on_unless_it_is_switched_off(site):
    on, _ = configured(site)
    assert on.JupyterHub.internal_ssl is True
    assert isinstance(on.JupyterHub.trusted_alt_names, resolvers.HubNames)
    assert on.ConfigurableHTTPProxy.command[-1] == "configurable-http-proxy"
    assert str(resolvers.HOOK) in " ".join(on.ConfigurableHTTPProxy.command)
    off, _ = configured(site, tls_to_nodes=False)
    assert off.JupyterHub.internal_ssl is False
    assert "trusted_alt_names" not in off.JupyterHub
    assert "command" not in off.ConfigurableHTTPProxy


def test_what_was_set_before_is_kept_where_ours_is_added(site):
    c = Config()
    c.ConfigurableHTTPProxy.command = hpcspawner.https_proxy(redirect_port=80)
    c.JupyterHub.trusted_alt_names = ["DNS:head"]
    words = list(c.ConfigurableHTTPProxy.command)
    hpcspawner.configure(c, site, callback_url=URL)
    assert c.ConfigurableHTTPProxy.command[-len(words) :] == words
    assert list(c.JupyterHub.trusted_alt_names) == ["DNS:head"]


def test_text_is_a_path_too_and_becomes_absolute(site, monkeypatch):
    monkeypatch.chdir(site.parent)
    c, _ = configured("site.toml")
    assert c.HPCSpawner.sites == [str(site)]
    assert "ca_file" not in c.HPCSpawner


def test_a_shipped_profile_is_found_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    c, profile = configured("comet.toml")
    assert profile.title == "Comet"
    assert c.HPCSpawner.sites[0].endswith("/comet.toml")


def test_a_file_here_comes_before_a_shipped_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "comet.toml").write_text(GOOD)
    assert configured("comet.toml")[1].title == "Test cluster"


def test_every_mistake_in_the_profile_is_told_in_one_message(site):
    site.write_text(BAD)
    message = refusal(site)
    assert "3 mistakes" in message
    for place in ("scheduler.type", "partitions[1] (debug).max_walltime", "environments[1] (jup yter).name"):
        assert f"{site}: {place}: " in message


@pytest.mark.parametrize(
    "url",
    [
        "http://hub.example.org",
        "hub.example.org",
        "",
        "HTTP://hub.example.org",
        "https:/hub.example.org",
        "//hub.example.org",
    ],
)
def test_an_address_that_is_not_https_is_refused(site, url):
    message = refusal(site, callback_url=url)
    assert repr(url) in message
    assert "'https://hub.example.org'" in message


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("https://hub.example.org/jupyter", "so 'https://hub.example.org' is enough"),
        ("https://hub.example.org:8443/hub", "so 'https://hub.example.org:8443' is enough"),
        ("https://hub.example.org?x=1", "is enough"),
        ("https://hub.example.org/#x", "is enough"),
        ("https://", "no host"),
        ("https://:8443", "no host"),
        ("https:///hub", "no host"),
        (" https://hub.example.org", "a blank"),
        ("https://hub.example.org ", "a blank"),
        ("https://hub .example.org", "a blank"),
        ("https://hub.example.org\n", "a blank"),
        ("https://localhost", "the node itself"),
        ("https://LOCALHOST:8443", "the node itself"),
        ("https://hub.localhost", "the node itself"),
        ("https://127.0.0.1", "the node itself"),
        ("https://[::1]:8443", "the node itself"),
        ("https://0.0.0.0:8000", "can't be called"),
        ("https://[::]", "can't be called"),
        ("https://hub.example.org:port", "it is not a URL"),
        ("https://hub.example.org:99999", "it is not a URL"),
        ("https://[::1", "it is not a URL"),
        ("https://user:word@hub.example.org", "it contains a user name"),
        ("https://*", "not a valid host name"),
        ("https://hub,other", "not a valid host name"),
    ],
)
def test_an_address_that_no_job_could_call_is_refused(site, url, words):
    message = refusal(site, callback_url=url)
    assert words in message
    assert "'https://hub.example.org'" in message


@pytest.mark.parametrize(
    "url",
    [
        "https://hub",
        "https://hub.example.org/",
        "https://hub.example.org:8443",
        "https://10.1.2.3",
        "https://[fd00::1]",
    ],
)
def test_an_address_that_jobs_can_call_is_taken(site, url):
    c = Config()
    hpcspawner.configure(c, site, callback_url=url)
    assert c.HPCSpawner.callback_url == url


def test_a_profile_that_there_is_not_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = refusal("nope.toml")
    assert str(tmp_path / "nope.toml") in message
    assert "slurm-minimal.toml" in message


def test_a_path_that_there_is_not_is_no_shipped_profile(tmp_path):
    message = refusal(tmp_path / "comet.toml")
    assert f"{tmp_path}/comet.toml: can't be read: No such file or directory" in message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(None, "can't be read", id="missing"),
        pytest.param(b"\xff\xfe", "can't be read", id="binary"),
        pytest.param(b"", "holds no certificate in PEM form", id="empty"),
        pytest.param(b"-----BEGIN PRIVATE KEY-----\n", "holds no certificate in PEM form", id="a key"),
    ],
)
def test_an_authority_that_is_none_is_refused(site, tmp_path, content, words):
    file = tmp_path / "wrong.pem"
    if content is not None:
        file.write_bytes(content)
    message = refusal(site, ca_file=file)
    assert str(file) in message
    assert words in message


def test_reading_the_configuration_outside_a_hub_starts_nothing(site):
    """`jupyterhub token` reads it too."""
    configured(site)
    assert not startup._keep


class Loaded:
    """A server as the next Hub process finds it in JupyterHub's table."""

    name, user = "", types.SimpleNamespace(name="alice")

    def __init__(self, row, server="its address"):
        self.ledger = types.SimpleNamespace(recall=lambda *_: row)
        self.orm_spawner = types.SimpleNamespace(server=server)
        self.server, self.wired = server, []
        self._checked_at_boot = False

    def _wire(self, row):
        self.wired.append(row)


def test_a_start_that_was_never_finished_leaves_jupyterhubs_table_without_a_stop():
    """A thousand stops held up the Hub's start for a quarter of a minute; housekeeping takes the jobs up."""
    loaded = Loaded(None)
    HPCSpawner.load_state(loaded, {})
    assert (loaded.server, loaded.wired, loaded._checked_at_boot) == (None, [], False)


def test_a_server_with_a_job_is_checked_when_the_hub_starts():
    loaded = Loaded("row")
    HPCSpawner.load_state(loaded, {"hpcspawner": {}})
    assert (loaded.server, loaded.wired, loaded._checked_at_boot) == ("its address", ["row"], True)
