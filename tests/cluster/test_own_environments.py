"""A user's own environments: found as the user, offered on the open form, started; and the check of a choice before."""

import contextlib
import html
import os
import re
import time

import pytest
from cluster.conftest import on_head, queue_is_empty_within
from cluster.test_bad_input import start
from support.browser import a_page, fill, log_in, look_at, press_start, run_cell, unfold

PLACE = '[[partitions]]\nname = "debug"'
SITE = """\
look = true

[own_environments]
folders = ["{{home}}"]

[own_images]
folders = ["{lab}/images"]

"""
# What conda makes, but for its packages: its list, a folder with `conda-meta`, and scripts that activating reads.
CONDA = """\
set -eu
env=~/miniforge3/envs/torch
mkdir -p ~/.conda "$env/conda-meta" "$env/etc/conda/activate.d" "$env/bin"
touch "$env/conda-meta/history"
for one in "$LAB_ENV"/bin/*; do case "$one" in */[Aa]ctivate*) ;; *) ln -sfn "$one" "$env/bin/";; esac; done
ln -sfn "$LAB_ENV/lib" "$env/lib"
echo 'export TORCH_SAYS=hello' > "$env/etc/conda/activate.d/torch.sh"
printf '%s\\n' "$env" ~bob/secret ~/gone > ~/.conda/environments.txt
/usr/bin/python3 -m venv --without-pip ~/bare
"""
# Closed to alice, and not to root, though alice's list and a link of hers name it.
SECRET = "mkdir -p ~/secret/conda-meta ~/secret/bin; ln -sf /usr/bin/python3 ~/secret/bin/python; chmod 700 ~/secret"


@pytest.fixture(scope="module")
def scheduler():
    return "slurm"


@pytest.fixture(scope="module")
def running_hub(make_hub, lab):
    on_head("bash", "-c", SECRET, user="bob")
    on_head("env", f"LAB_ENV={lab}/env", "bash", "-c", CONDA, user="alice")
    on_head("ln", "-sfn", "/home/bob/secret", "/home/alice/bobs", user="alice")
    try:
        with make_hub("slurm", change=(PLACE, SITE.format(lab=lab) + PLACE)) as hub:
            yield hub
    finally:
        on_head("bash", "-c", "rm -rf ~/miniforge3 ~/.conda ~/bare ~/bobs", user="alice")
        on_head("bash", "-c", "rm -rf ~/secret", user="bob")


def check(hub, session, **choices):
    """What the Hub answers to a check; it takes one of a user's in three seconds."""
    page = session.get(f"{hub.url}/hub/spawn", timeout=60).text
    form = {"partition": "debug", **choices, "_xsrf": re.search(r"_xsrf=([^\"&]*)", page)[1]}
    deadline = time.monotonic() + 60
    while (answer := session.post(f"{hub.url}/hub/hpcspawner/check", data=form, timeout=60)).status_code == 429:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    return answer


def test_they_are_found_offered_chosen_and_a_cell_runs(hub):
    with a_page() as page:
        log_in(page, hub, "alice")
        page.goto(f"{hub.url}/hub/spawn")
        unfold(page)
        own = page.locator("#hpc-own")
        own.locator("button").first.wait_for()
        assert [own.locator(f"div:has(> button) > {tag}").all_inner_texts() for tag in ("button", "span")] == [
            ["~/miniforge3/envs/torch", "~/bare"],
            ["conda", "virtual environment, without jupyterhub, jupyterlab, ipykernel"],
        ]
        assert look_at(page, "own environments") == []
        own.get_by_role("button", name="~/miniforge3/envs/torch").click()
        assert page.locator("#hpc-environment").input_value() == "~/miniforge3/envs/torch"
        page.click("#hpc-check")
        page.locator("#hpc-checked", has_text="directory, environment and image are usable").wait_for()
        fill(page, partition="debug")
        press_start(page)
        page.wait_for_url("**/user/alice/**", timeout=120_000)
        code = "import os; print(os.environ['TORCH_SAYS'], os.environ['CONDA_PREFIX'])"
        assert run_cell(page, code) == "hello /home/alice/miniforge3/envs/torch"
        assert page.complaints == []
    hub.stop_server("alice")
    queue_is_empty_within(40, "alice")


def test_nothing_of_another_user_s_is_told(hub):
    session = hub.log_in("alice")
    answer = session.get(f"{hub.url}/hub/hpcspawner/environments", timeout=60)
    assert [one["name"] for one in answer.json()["environments"]] == ["~/miniforge3/envs/torch", "~/bare"]
    message = check(hub, session, environment="~/bobs", directory="/home/bob/secret").json()["message"]
    assert "The environment /home/alice/bobs has no Python that runs" in message
    assert "The directory /home/bob/secret can't be opened" in message
    assert "Permission denied" in message


def test_nobody_who_is_not_logged_in_asks(hub):
    for name in ("environments", "check"):
        assert hub.get(f"/hub/hpcspawner/{name}", allow_redirects=False).status_code in (302, 403, 405)


def test_without_a_script_the_path_is_typed(hub):
    with a_page(javascript=False) as page:
        log_in(page, hub, "alice")
        page.goto(f"{hub.url}/hub/spawn")
        assert page.locator("#hpc-own").is_hidden()
        assert page.locator("#hpc-check").is_hidden()
        page.fill("#hpc-environment", "~/nowhere/../bare")
        page.click("#hpc-start")
        assert (
            "name the folder of a virtual or conda environment" in page.locator("#hpc-environment-error").inner_text()
        )


def test_one_that_was_deleted_meanwhile_is_named_by_the_check_and_by_the_start(hub):
    session = hub.log_in("alice")
    on_head("mv", "/home/alice/bare", "/home/alice/bare.away", user="alice")
    try:
        asked = {"partition": "debug", "environment": "~/bare"}
        assert "There is no environment in /home/alice/bare on " in check(hub, session, **asked).json()["message"]
        _, message, _ = start(hub, asked)
        assert "there is no folder /home/alice/bare/bin on n1" in html.unescape(message)
    finally:
        on_head("mv", "/home/alice/bare.away", "/home/alice/bare", user="alice")
        queue_is_empty_within(40, "alice")


@pytest.mark.parametrize(
    ("image", "why"),
    [
        ("gone.sif", "There is no image {images}/gone.sif on "),
        ("unreadable.sif", "You may not read the image {images}/unreadable.sif. Ask its owner"),
        ("arm64.sif", "The image {images}/arm64.sif is made for arm64; this machine is amd64. Choose another image"),
        ("damaged.sif", "The image {images}/damaged.sif is cut short; copy it again. Choose another image"),
    ],
)
def test_an_image_that_can_t_start_is_named_before_anything_is_queued(hub, lab, image, why):
    answer = check(hub, hub.log_in("alice"), image=f"{lab}/images/{image}")
    assert why.format(images=f"{lab}/images") in answer.json()["message"]


@contextlib.contextmanager
def small_disk(folder, options="size=32k"):
    """A file system of 32 kB in this folder, where the Hub looks, or with these options."""
    folder.mkdir(exist_ok=True)
    on_head("mount", "-t", "tmpfs", "-o", f"{options},mode=1777", "tmpfs", str(folder))
    try:
        yield
    finally:
        on_head("umount", "-l", str(folder))


def test_a_directory_that_is_missing_closed_or_full_is_named_before_anything_is_queued(hub, lab):
    session, folder = hub.log_in("alice"), lab / "small-of-look"
    assert "The directory /nowhere can't be opened" in check(hub, session, directory="/nowhere").json()["message"]
    assert "You may not write to the directory /usr" in check(hub, session, directory="/usr").json()["message"]
    with small_disk(folder):
        full = check(hub, session, directory=str(folder)).json()
    assert full["problems"] == [
        {
            "field": "directory",
            "message": f"Nothing more can be written to {folder}: its file system is full. Remove files there.",
        }
    ]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ("size=1g,ro", "Nothing can be written to {folder} on {host}: its file system is read-only there."),
        ("size=1g,nr_inodes=400", "Only 399 more files can be kept in {folder}. Remove files there."),
        ("size=90m", "Only 90 MB are left in {folder}. Remove files there."),
    ],
)
def test_a_file_system_that_takes_no_more_is_named_by_its_cause(hub, lab, options, why):
    session, folder = hub.log_in("alice"), lab / "small-of-look"
    with small_disk(folder, options):
        (problem,) = check(hub, session, directory=str(folder)).json()["problems"]
    assert problem["message"] == why.format(folder=folder, host=os.uname().nodename)


def test_a_check_is_judged_by_the_gate(hub):
    session = hub.log_in("alice")
    refused = check(hub, session, memory="much")
    assert refused.status_code == 400
    assert "memory" in refused.json()["message"].lower()
