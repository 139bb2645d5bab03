"""Names with a node inside, and all who must find the node in them: the Hub's two HTTP clients and its proxy."""

import asyncio
import copy
import ipaddress
import json
import logging
import os
import re
import shutil
import socket
import subprocess
from types import SimpleNamespace

import aiohttp
import jupyterhub
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jupyterhub.app import JupyterHub
from jupyterhub.proxy import ConfigurableHTTPProxy, Proxy
from support.hub import require
from support.internal_tls import InternalTls, Listener
from tornado.httpclient import HTTPError
from tornado.netutil import Resolver
from tornado.simple_httpclient import SimpleAsyncHTTPClient
from traitlets.config import Config

from hpcspawner.nodes import aiohttp_resolver, resolvers
from hpcspawner.nodes.resolvers import HubNames, NodeResolver, install_resolvers, missing_resolver, node_options
from hpcspawner.nodes.server_names import ZONE, node_behind, server_name

NONCE = "abcdefghijklmnop"
NAME = server_name(NONCE, "localhost", ZONE)

LABELS = st.from_regex(r"[a-zA-Z0-9]([a-zA-Z0-9_-]{0,20}[a-zA-Z0-9])?", fullmatch=True)
HOSTS = st.lists(LABELS, min_size=1, max_size=4).map(".".join)
NODES = HOSTS | st.ip_addresses().map(str) | st.from_regex(r"v6\.[0-9a-f-]{1,39}", fullmatch=True)
OTHERS = [
    "n1",
    "n1.example.org",
    "10.0.0.1",
    "::1",
    "",
    ".",
    ZONE,
    f".{ZONE}",
    f"x.{ZONE}",
    f"x{ZONE}",
    f"x.{ZONE}.",
    f"x.n1.{ZONE}.example.org",
    f"x.n1.{ZONE}x",
    "x.n1.internal",
]


# --- the rule


@given(NODES)
def test_the_node_behind_a_servers_name_is_the_one_in_it(node):
    name = server_name(NONCE, node, ZONE)
    assert name == name.lower()
    found = node_behind(name)
    if ":" in node:
        assert ipaddress.ip_address(found) == ipaddress.ip_address(node)
    else:
        assert found == node.lower()


@given(st.ip_addresses(v=6).map(str))
def test_an_address_becomes_labels_that_a_host_name_may_have(address):
    for label in server_name(NONCE, address, ZONE).split("."):
        assert re.fullmatch("[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", label)


@pytest.mark.parametrize("host", OTHERS)
def test_any_other_host_stays_as_it_is(host):
    assert node_behind(host) == host


def test_a_zone_of_the_sites_own_is_for_its_name_servers():
    name = server_name(NONCE, "n1", "jobs.example.org")
    assert name == f"j{NONCE}.n1.jobs.example.org"
    assert node_behind(name) == name


@pytest.mark.parametrize("name", [f"jx.n1.{ZONE.upper()}", f"JX.n1.{ZONE.title()}"])
def test_capitals_do_not_hide_the_node(name):
    assert node_behind(name) == "n1"


# --- the proxy


RULE = """
const dns = require("dns");
let asked;
dns.lookup = (host) => { asked = host; };
require(process.argv[1]);
const hosts = JSON.parse(require("fs").readFileSync(0, "utf8"));
console.log(JSON.stringify(hosts.map((host) => { dns.lookup(host, {}, () => {}); return asked; })));
"""


def node(*arguments, stdin="", options=""):
    """What Node.js prints."""
    environment = {"PATH": os.environ["PATH"], "NODE_OPTIONS": options}
    done = subprocess.run(
        [require("node"), *arguments],
        input=stdin,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@settings(max_examples=3, deadline=None)
@given(st.lists(NODES, min_size=50, max_size=200))
def test_the_proxy_has_the_same_rule(nodes):
    hosts = [*OTHERS, *(server_name(NONCE, one, ZONE) for one in nodes), *nodes, f"jX.V6.n1.{ZONE.upper()}"]
    hosts += [f"j.{one}.{ZONE}" for one in nodes]
    assert json.loads(node("-e", RULE, str(resolvers.HOOK), stdin=json.dumps(hosts))) == [
        node_behind(one) for one in hosts
    ]


@pytest.mark.parametrize(
    "folder", ["plain", "with space", 'a "quoted" one', "back\\slash", "it's", "ünï", "$HOME `id`"]
)
def test_the_proxy_loads_the_hook_wherever_it_lies(tmp_path, monkeypatch, folder):
    """And what the Hub's own environment asks of Node.js still counts."""
    hook = tmp_path / folder / "names.js"
    hook.parent.mkdir()
    shutil.copy(resolvers.HOOK, hook)
    monkeypatch.setattr(resolvers, "HOOK", hook)
    monkeypatch.setenv("NODE_OPTIONS", "--stack-trace-limit=7")
    shown = node("-p", "JSON.stringify([Error.stackTraceLimit, Object.keys(require.cache)])", options=node_options())
    assert json.loads(shown) == [7, [str(hook)]]


ASK = """
const fs = require("fs");
const [url, ca, cert, key, host] = process.argv.slice(1);
const pem = { ca: fs.readFileSync(ca), cert: fs.readFileSync(cert), key: fs.readFileSync(key) };
const request = require("https").request(url, { ...pem, headers: { Host: host } });
request.on("response", (answer) => console.log(answer.statusCode));
request.on("error", (error) => console.log(error.code));
request.end();
"""


# --- the real clients, against real servers


@pytest.fixture(scope="module")
def internal(tmp_path_factory):
    return InternalTls(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def resolver():
    """What this process has as its resolver is put back."""
    before = Resolver._save_configuration()
    yield
    Resolver._restore_configuration(before)


@pytest.fixture(params=["tornado", "aiohttp", "node"])
def ask(request, internal, resolver):
    """Has the client of that name ask an https address; "200", or anything else."""

    async def by_tornado(url, host):
        Resolver.configure(NodeResolver)
        client = SimpleAsyncHTTPClient(force_instance=True)
        try:
            return str((await client.fetch(url, ssl_options=internal.tls.context, headers={"Host": host})).code)
        except (OSError, HTTPError) as error:
            return type(error).__name__
        finally:
            client.close()

    async def by_aiohttp(url, host):
        connector = aiohttp.TCPConnector(resolver=aiohttp_resolver.NodeResolver(), ssl=internal.tls.context)
        async with aiohttp.ClientSession(connector=connector) as session:
            try:
                async with session.get(url, headers={"Host": host}) as answer:
                    return str(answer.status)
            except aiohttp.ClientError as error:
                return type(error).__name__

    async def by_node(url, host):
        cert, key, ca = internal.own
        return await asyncio.to_thread(
            lambda: node("-e", ASK, url, ca, cert, key, host, options=node_options()).strip()
        )

    return {"tornado": by_tornado, "aiohttp": by_aiohttp, "node": by_node}[request.param]


async def test_a_server_is_found_and_known_by_its_name(internal, ask):
    async with Listener(await internal.server(NAME)) as server:
        assert await ask(f"https://{NAME}:{server.port}/user/alice", NAME) == "200"
    assert server.read.startswith(b"GET /user/alice HTTP/1.1\r\n")


async def test_a_server_with_another_jobs_certificate_reads_nothing(internal, ask):
    """Whatever name the browser has asked for, the other job's included."""
    other = server_name("ponmlkjihgfedcba", "localhost", ZONE)
    async with Listener(await internal.server(other, asks=False)) as server:
        assert await ask(f"https://{NAME}:{server.port}/", other) != "200"
        assert await ask(f"https://{NAME}:{server.port}/", NAME) != "200"
    assert server.calls == 2
    assert server.read == b""


async def test_any_other_host_is_found_as_always(internal, ask):
    async with Listener(await internal.server("localhost")) as server:
        assert await ask(f"https://localhost:{server.port}/", "localhost") == "200"


async def test_a_browsers_host_name_is_not_the_servers(internal, ask):
    async with Listener(await internal.server(NAME)) as server:
        assert await ask(f"https://{NAME}:{server.port}/", "hub.example.org") == "200"


async def test_aiohttp_is_told_the_whole_name():
    """Some of its versions check the certificate for what the resolver calls the host."""
    (found, *_) = await aiohttp_resolver.NodeResolver().resolve(
        server_name(NONCE, "127.0.0.1", ZONE), 1, socket.AF_UNSPEC
    )
    assert (found["hostname"], found["host"]) == (server_name(NONCE, "127.0.0.1", ZONE), "127.0.0.1")


# --- the configuration


def taught(command=None):
    c = Config()
    if command is not None:
        c.ConfigurableHTTPProxy.command = command
    install_resolvers(c)
    return c


@pytest.mark.parametrize(
    ("command", "words"),
    [
        pytest.param(None, ["configurable-http-proxy"], id="none"),
        pytest.param("/opt/bin/proxy", ["/opt/bin/proxy"], id="one word"),
        pytest.param(["proxy", "--log-level=debug"], ["proxy", "--log-level=debug"], id="several"),
        pytest.param(("env", "A=b", "proxy"), ["env", "A=b", "proxy"], id="a tuple"),
    ],
)
def test_the_proxys_command_keeps_what_it_was(resolver, command, words):
    c = taught(command)
    assert c.ConfigurableHTTPProxy.command == ["env", f"NODE_OPTIONS={node_options()}", *words]
    assert ConfigurableHTTPProxy(config=c).command == c.ConfigurableHTTPProxy.command


def test_words_added_to_the_proxys_command_are_kept(resolver):
    c = Config()
    c.ConfigurableHTTPProxy.command.append("--log-level=debug")
    install_resolvers(c)
    assert ConfigurableHTTPProxy(config=c).command[2:] == ["configurable-http-proxy", "--log-level=debug"]


def hub(proxy_class=ConfigurableHTTPProxy, **traits):
    """As much of a Hub as is asked."""
    log = logging.getLogger("names")
    return SimpleNamespace(proxy=proxy_class(config=taught(), **traits), log=log)


def test_a_hub_as_configured_knows_the_names(resolver, caplog):
    assert missing_resolver(hub()) == ""
    assert caplog.records == []


def test_a_command_that_was_set_afterwards_lacks_the_hook(resolver):
    assert "was overwritten after hpcspawner.configure()" in missing_resolver(hub(command=["configurable-http-proxy"]))


def test_a_hook_in_a_strange_folder_is_seen_in_the_command(resolver, monkeypatch, tmp_path):
    monkeypatch.setattr(resolvers, "HOOK", tmp_path / 'a "quoted\\" one' / "names.js")
    assert missing_resolver(hub()) == ""


def test_a_proxy_that_somebody_else_starts_is_theirs_to_teach(resolver, caplog):
    assert missing_resolver(hub(should_start=False, auth_token="x")) == ""
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert f"NODE_OPTIONS={node_options()}" in record.getMessage()


def test_another_proxy_has_a_resolver_of_its_own(resolver):
    class OtherProxy(Proxy):
        """Of a kind that we know nothing about."""

    assert "the proxy is a OtherProxy" in missing_resolver(hub(OtherProxy))


def test_jupyterhub_5_with_pycurl_does_not_ask_our_resolver(resolver, monkeypatch):
    curl = type("CurlAsyncHTTPClient", (), {})
    monkeypatch.setattr(resolvers.AsyncHTTPClient, "configured_class", lambda: curl)
    monkeypatch.setattr(jupyterhub, "version_info", (5, 5, 4, "", ""))
    assert "uninstall it" in missing_resolver(hub())
    monkeypatch.setattr(jupyterhub, "version_info", (6, 1, 1, "", ""))
    assert missing_resolver(hub()) == ""


# --- the names in the Hub's own certificate

OWN = f"DNS:{resolvers.socket.gethostname()}"


def alt_names(*merged, **traits):
    """What JupyterHub makes of it: the settings stand below the line that makes the list."""
    c = Config()
    c.JupyterHub.trusted_alt_names = HubNames(c)
    for name, value in traits.items():
        c.JupyterHub[name] = value
    app = JupyterHub()
    # As an application takes a file's settings: copied, and merged with the command line's.
    for config in (Config({"JupyterHub": {"port": 1}}), c, *merged):
        app.update_config(copy.deepcopy(config))
    return app.trusted_alt_names


@pytest.mark.parametrize(
    ("traits", "expected"),
    [
        ({}, []),
        ({"hub_bind_url": "http://127.0.0.1:8081"}, ["IP:127.0.0.1"]),
        ({"hub_bind_url": "https://Hub.Example.org:8081/x"}, ["DNS:hub.example.org"]),
        ({"hub_bind_url": "http://[2001:db8::1]:8081"}, ["IP:2001:db8::1"]),
        ({"hub_bind_url": "http://:8081"}, []),
        ({"hub_bind_url": "http://*:8081"}, []),
        ({"hub_connect_url": "https://10.0.0.1:8081"}, ["IP:10.0.0.1"]),
        ({"hub_connect_ip": "head"}, ["DNS:head"]),
        ({"hub_ip": ""}, []),
        ({"hub_ip": "0.0.0.0"}, []),
        ({"hub_ip": "::"}, []),
        ({"hub_ip": "10.0.0.1"}, ["IP:10.0.0.1"]),
        (
            {"hub_ip": "0.0.0.0", "hub_connect_ip": "head", "hub_bind_url": "http://head:1"},
            ["DNS:head"],
        ),
    ],
)
def test_the_hubs_certificate_names_all_by_which_it_is_called(traits, expected):
    assert alt_names(**traits) == [*expected, OWN]


def test_more_names_may_be_appended_before_and_after():
    c = Config()
    c.JupyterHub.trusted_alt_names = ["DNS:earlier"]
    c.JupyterHub.trusted_alt_names = HubNames(c)
    c.JupyterHub.trusted_alt_names.append("DNS:later")
    c.JupyterHub.trusted_alt_names += ["IP:10.0.0.9"]
    c.JupyterHub.hub_connect_ip = "head"
    assert JupyterHub(config=c).trusted_alt_names == ["DNS:earlier", "DNS:later", "IP:10.0.0.9", "DNS:head", OWN]


def test_names_added_to_none_are_kept():
    c = Config()
    c.JupyterHub.trusted_alt_names.append("DNS:earlier")
    c.JupyterHub.trusted_alt_names = HubNames(c)
    assert JupyterHub(config=c).trusted_alt_names == ["DNS:earlier", OWN]


def test_the_list_outlives_a_merge_with_the_command_line():
    line = Config({"JupyterHub": {"log_level": 10}})
    assert alt_names(line, hub_connect_ip="head") == ["DNS:head", OWN]
