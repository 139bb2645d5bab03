"""Interfaces that are other programs than Jupyter: what a profile may say, and what the proxy in front lets through."""

import ast

import pytest

from hpcspawner.errors import ProfileError
from hpcspawner.programs.joined import source
from hpcspawner.site.interfaces import Interface
from hpcspawner.site.profile import parse


def interface(**keys):
    return Interface(name="it", **keys)


def problems(job=None, **keys):
    """What is wrong with a profile that has this interface."""
    data = {
        "title": "Test",
        "scheduler": {"type": "slurm"},
        "partitions": [{"name": "debug", "max_walltime": "30m"}],
        "environments": [{"name": "jupyter"}],
        "interfaces": [{"name": "it", **keys}],
        "job": {"proxy": "/opt/proxy"} if job is None else job,
    }
    with pytest.raises(ProfileError) as caught:
        parse(data, "site.toml")
    return " ".join(caught.value.problems)


def test_a_program_shows_its_own_root_first_and_jupyter_its_lab():
    assert interface(command=["x", "--port={port}"]).first_page == "/"
    assert interface(command=["x", "--port={port}"], url="/a/").first_page == "/a/"
    assert interface().first_page == "/lab"


def test_a_program_that_is_told_its_address_keeps_it():
    assert not interface(command=["x", "{socket}"]).keeps_address
    assert interface(command=["x", "{socket}", "--base={base_url}/"]).keeps_address
    assert interface(command=["x", "{socket}"], variables={"ROOT": "{base_url}"}).keeps_address


def test_braces_that_are_no_placeholder_are_the_command_s_own():
    assert not interface(command=["x", '{"a": 1}', "{A}"]).is_program


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"command": ["x", "{socket}", "{port}"]}, "both {socket} and {port}"),
        ({"command": ["x", "{prot}"]}, "there is no {prot}"),
        ({"command": ["x", "{base_url}"]}, "it has neither {socket} nor {port}"),
        ({"command": ["x", "{port}", "{user}"]}, "{user} is not a placeholder here; use {socket}, {port}"),
        ({"command": ["x", "{port}", "{secret}"]}, "{secret} would stand in the list of processes"),
        ({"command": ["x", "{port}"], "variables": {"A": "{token}"}}, "{token} is not a placeholder here"),
        ({"command": ["x", "{port}"], "files": {"../a": ""}}, "files"),
        ({"command": ["x", "{port}"], "headers": {"A b": ""}}, "headers"),
        ({"command": ["x", "{port}"], "headers": {"A": "a\r\nb"}}, "line breaks"),
        ({"command": ["x", "{port}"], "alone": ["jupyter-lab"]}, "alone: only for Jupyter"),
        ({"variables": {"A": "b"}}, "variables: only for a command with {socket} or {port}"),
        ({"polls": ["/a"]}, "polls: only for a command with {socket} or {port}"),
    ],
)
def test_a_mistake_is_named(keys, why):
    assert why in problems(**keys)


def test_a_program_needs_the_proxy():
    found = problems(job={}, command=["x", "{port}"])
    assert "job.proxy names an environment on the nodes with jupyter-server-proxy" in found


def functions(*names):
    """These functions of the proxy, without what it imports from the environment that it runs in."""
    kept = [
        one
        for one in ast.parse(source("front.py")).body
        if getattr(one, "name", None) in names or isinstance(one, ast.Assign)
    ]
    found = {"urlsplit": __import__("urllib.parse").parse.urlsplit, "Any": object}
    exec(compile(ast.Module(kept, []), "front.py", "exec"), found)
    return [found[name] for name in names]


@pytest.mark.parametrize(
    ("cookie", "kept"),
    [
        ("a=b; Path=/; HttpOnly", "a=b; HttpOnly; Path=/user/alice/"),
        ("a=b", "a=b; Path=/user/alice/"),
        ("a=b; Path=/user/alice/x; Domain=example.org", "a=b; Path=/user/alice/x"),
        ("a=b; path=/user/alicex", "a=b; Path=/user/alice/"),
        ("a=b; Path=/user/alice", "a=b; Path=/user/alice"),
    ],
)
def test_a_program_s_cookies_go_to_its_own_server_alone(cookie, kept):
    (kept_below,) = functions("kept_below")
    assert kept_below(cookie, "/user/alice") == kept


FROM_PAGE = {
    "Host": "hub",
    "Sec-Fetch-Mode": "cors",
    "Sec-Fetch-Site": "same-origin",
    "Origin": "https://hub",
    "Referer": "https://hub/user/alice/x",
}


@pytest.mark.parametrize(
    ("headers", "method", "may"),
    [
        ({}, "GET", True),
        ({}, "POST", False),
        ({"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "cross-site"}, "GET", True),
        (FROM_PAGE, "POST", True),
        (FROM_PAGE | {"Referer": "https://hub/user/alicex/"}, "POST", False),
        (FROM_PAGE | {"Referer": "https://hub/user/bob/"}, "GET", False),
        (FROM_PAGE | {"Origin": "https://elsewhere"}, "POST", False),
        (FROM_PAGE | {"Sec-Fetch-Site": "same-site"}, "GET", False),
        ({"Host": "hub", "Origin": "https://hub"}, "POST", True),
        ({"Host": "hub", "Origin": "null"}, "POST", False),
    ],
)
def test_requests_by_cookie_come_from_the_program_s_pages(headers, method, may):
    (comes_from_below,) = functions("comes_from_below")
    assert comes_from_below(headers, "/user/alice", method) is may
