"""What the first bytes of an image say."""

import struct

import pytest

from hpcspawner.programs import look


@pytest.fixture(autouse=True)
def on_amd64(monkeypatch):
    monkeypatch.setattr(look.platform, "machine", lambda: "x86_64")


@pytest.mark.parametrize(("code", "why"), [(b"02", ""), (b"04", "is made for arm64; this machine is amd64")])
def test_the_architecture_of_a_sif_is_read(tmp_path, code, why):
    path = tmp_path / "image.sif"
    path.write_bytes(b"#!/usr/bin/env run-singularity\n".ljust(32, b"\0") + b"SIF_MAGIC\x0001\0" + code + b"\0")
    assert look.why_not_here(path) == why


def test_a_file_that_is_no_image_is_named_and_an_older_image_is_not(tmp_path):
    (tmp_path / "text").write_text("hello")
    (tmp_path / "old.simg").write_bytes(b"#!/usr/bin/env run-singularity\n\0hsqs" + b"\0" * 40)
    assert look.why_not_here(tmp_path / "text") == "is no image that Apptainer knows"
    assert look.why_not_here(tmp_path / "old.simg") == ""
    assert look.why_not_here(tmp_path / "gone") == ""


@pytest.mark.parametrize(("size", "why"), [(300, ""), (299, "is cut short; copy it again")])
def test_a_sif_that_is_shorter_than_its_header_says_is_named(tmp_path, size, why):
    head = b"#!/usr/bin/env run-singularity\n".ljust(32, b"\0") + b"SIF_MAGIC\x0001\0" + b"02\0"
    path = tmp_path / "image.sif"
    path.write_bytes((head.ljust(112, b"\0") + struct.pack("<qq", 200, 100)).ljust(size, b"\0"))
    assert look.why_not_here(path) == why
