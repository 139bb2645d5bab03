"""What is seen of a profile's files before any job runs."""

import pytest

from hpcspawner.script import preflight
from hpcspawner.script.preflight import findings
from hpcspawner.site.profile import parse


@pytest.fixture
def found(tmp_path, monkeypatch):
    """What is wrong with a profile that names this image, proxy and folder: place and problem."""
    monkeypatch.setattr(preflight.platform, "machine", lambda: "x86_64")

    def look(image="/nowhere/at/all.sif", proxy=None, path=()):
        data = {
            "title": "Test",
            "scheduler": {"type": "slurm"},
            "partitions": [{"name": "debug", "max_walltime": "30m"}],
            "environments": [{"name": "it", "path": list(path)}],
            "images": [{"name": "torch", "path": str(image)}],
            "job": {"proxy": str(proxy)} if proxy else {},
        }
        return [(one.place, one.problem) for one in findings(parse(data, "site.toml"))]

    return look


def sif(folder, architecture):
    path = folder / "image.sif"
    path.write_bytes(b"#!/usr/bin/env run-singularity\n".ljust(32, b"\0") + b"SIF_MAGIC\x0001\0" + architecture + b"\0")
    return path


def test_what_may_be_on_the_nodes_alone_is_not_judged(found):
    assert found(proxy="/nowhere/at/all", path=["/nowhere/at/bin", "~/bin"]) == []
    assert found(image="docker://jupyter/scipy-notebook") == []


def test_what_is_missing_beside_what_is_there_is_named(found, tmp_path):
    places = [place for place, _ in found(tmp_path / "gone.sif", tmp_path / "proxy", [f"{tmp_path}/bin"])]
    assert places == ["job.proxy", "images (torch).path", "environments (it).path"]


@pytest.mark.parametrize(("code", "why"), [(b"02", None), (b"04", "made for arm64; this machine is amd64")])
def test_the_architecture_of_a_sif_is_read(found, tmp_path, code, why):
    problems = found(sif(tmp_path, code))
    assert [problem.partition(" is ")[2] for _, problem in problems] == ([why] if why else [])


def test_a_file_that_is_no_image_is_named_and_an_older_image_or_a_folder_is_not(found, tmp_path):
    (tmp_path / "text").write_text("hello")
    (tmp_path / "old.simg").write_bytes(b"#!/usr/bin/env run-singularity\n\0hsqs" + b"\0" * 40)
    assert "is no image that Apptainer knows" in found(tmp_path / "text")[0][1]
    assert found(tmp_path / "old.simg") == []
    assert found(tmp_path) == []


def test_an_environment_without_the_proxy_s_packages_is_named(found, tmp_path):
    proxy = tmp_path / "proxy"
    (proxy / "bin").mkdir(parents=True)
    (proxy / "bin" / "python3").touch()
    (proxy / "lib" / "python3.11" / "site-packages" / "jupyterhub").mkdir(parents=True)
    assert [problem.partition(" has ")[2] for _, problem in found(proxy=proxy)] == ["no jupyter_server_proxy"]
