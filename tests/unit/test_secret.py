"""The Hub's own secret: made for its account alone, the same after a restart, and never one that others may know."""

import logging
import os
import stat
import threading

import pytest

from hpcspawner.errors import SecretUnusable
from hpcspawner.jobs import secret

LOG = logging.getLogger("test")
GOOD = "ab" * 32


@pytest.fixture
def file(tmp_path):
    return tmp_path / "hpcspawner_secret"


def written(file, text, mode=0o600):
    file.write_bytes(text)
    file.chmod(mode)
    return file


def test_it_is_made_once_and_kept(file, caplog):
    caplog.set_level(logging.INFO)
    made = secret.kept(file, LOG)
    assert len(made) == 32
    assert secret.kept(file, LOG) == made
    assert caplog.text.count(f"made the secret file {file}") == 1
    assert made.hex() not in caplog.text


def test_no_two_hubs_make_the_same(tmp_path):
    assert secret.kept(tmp_path / "one", LOG) != secret.kept(tmp_path / "two", LOG)


def test_it_is_never_there_for_others(file, monkeypatch):
    modes = []

    class Watched:
        @staticmethod
        def token_hex(size):
            modes.append(stat.S_IMODE(file.stat().st_mode))
            return "ab" * size

    monkeypatch.setattr(secret, "secrets", Watched)
    before = os.umask(0)
    try:
        secret.kept(file, LOG)
    finally:
        os.umask(before)
    assert modes == [0o600]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(GOOD, id="as it is made"),
        pytest.param(f"{GOOD}\n", id="with a line break"),
        pytest.param(f"  {GOOD.upper()}\r\n", id="in capitals, from another system"),
        pytest.param(GOOD * 2, id="longer"),
    ],
)
def test_a_secret_of_the_admins_own_is_taken(file, text):
    assert secret.kept(written(file, text.encode()), LOG).startswith(bytes.fromhex(GOOD))


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o660, 0o644, 0o601, 0o602])
def test_one_that_others_may_read_or_write_is_refused(file, mode):
    with pytest.raises(SecretUnusable, match=rf"{file} has mode {mode:04o}, but only the Hub's account may .* to 0600"):
        secret.kept(written(file, GOOD.encode(), mode), LOG)
    assert file.read_text() == GOOD, "what to do with it is the admin's choice"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"", id="empty, as after a crash"),
        pytest.param(b"\n", id="an empty line"),
        pytest.param(GOOD[:62].encode(), id="too short"),
        pytest.param(GOOD[:63].encode(), id="half a byte"),
        pytest.param(b"x" * 64, id="no hexadecimal digits"),
        pytest.param(bytes(range(128, 192)), id="no text"),
    ],
)
def test_one_that_is_too_short_to_be_secret_is_refused(file, text):
    with pytest.raises(SecretUnusable, match="must hold 32 bytes or more, written as 64 or more hexadecimal digits"):
        secret.kept(written(file, text), LOG)


def test_one_that_belongs_to_another_account_is_refused(file, monkeypatch):
    written(file, GOOD.encode())
    if os.geteuid() == 0:
        os.chown(file, 1234, -1)
    else:
        # Who is not root can't give a file away, so the Hub is another one.
        monkeypatch.setattr(os, "geteuid", lambda: 1)
    owner = file.stat().st_uid
    with pytest.raises(
        SecretUnusable, match=f"belongs to the account with uid {owner}, but must belong to the Hub's account or"
    ):
        secret.kept(file, LOG)


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(SecretUnusable, match=f"{path} (is not a file|can't be used)"):
            secret.kept(path, LOG)


def test_a_folder_that_there_is_not_is_said(tmp_path):
    with pytest.raises(
        SecretUnusable, match=r"can't be used: No such file or directory\. Set HPCSpawner.secret_file to"
    ):
        secret.kept(tmp_path / "none" / "secret", LOG)


def test_a_link_to_nowhere_makes_nothing(tmp_path):
    (tmp_path / "secret").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SecretUnusable):
        secret.kept(tmp_path / "secret", LOG)
    assert not (tmp_path / "elsewhere").exists()


def test_two_that_make_it_at_once_have_the_same(file):
    """The loser may see the winner's file before it is whole; it is then refused, and never another secret."""
    found = []

    def take():
        try:
            found.append(secret.kept(file, LOG))
        except SecretUnusable:
            found.append(None)

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {one for one in found if one} == {secret.kept(file, LOG)}
