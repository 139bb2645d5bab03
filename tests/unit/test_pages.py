"""What a researcher sees: the form's HTML, the news of a waiting job, the words of a failure."""

import asyncio
from dataclasses import replace
from datetime import datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from material import FULL, NASTY
from support.jobs import a_cluster

from hpcspawner.errors import (
    Problem,
    Reason,
    RequestError,
    SchedulerNotSetUp,
    SchedulerRejected,
    SchedulerUnreachable,
    ServerLost,
)
from hpcspawner.jobs.news import STEPS, News, Wait
from hpcspawner.pages.pages import Draft, ShownError, as_hub_error, draft, for_the_log, render_form, server_of
from hpcspawner.request.options import OPTIONS
from hpcspawner.schedulers.state import JobState, JobStatus
from hpcspawner.site.profile import SiteProfile, load

PROFILES = sorted((Path(__file__).parents[2] / "profiles").glob("*.toml"))
PROFILE = SiteProfile.model_validate(FULL)
EVIL = """it's </script><script>alert("1")</script> & <b>{{ 7 * 7 }}</b>"""

VOID = {"input", "br"}


class Page(HTMLParser):
    """Elements of a piece of HTML, each with its attributes and the text in it."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.elements = []
        self._open = []
        self.feed(html)
        self.close()
        assert not self._open, f"never closed: {[element['tag'] for element in self._open]}"

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f"an attribute twice: {tag} {attrs}"
        element = {"tag": tag, "text": "", "inside": [other["tag"] for other in self._open], **dict(attrs)}
        self.elements.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_endtag(self, tag):
        assert self._open, f"</{tag}> closes nothing"
        assert self._open[-1]["tag"] == tag
        self._open.pop()

    def handle_data(self, data):
        for element in self._open:
            element["text"] += data

    def all(self, tag, **attributes):
        return [
            element
            for element in self.elements
            if element["tag"] == tag and all(element.get(name) == value for name, value in attributes.items())
        ]

    def one(self, tag, **attributes):
        (found,) = self.all(tag, **attributes)
        return found

    def chosen(self, name):
        """The value that a browser would send for a select."""
        start = self.elements.index(self.one("select", name=name))
        options = []
        for element in self.elements[start + 1 :]:
            if element["tag"] != "option":
                break
            options.append(element)
        return next((option["value"] for option in options if "selected" in option), options[0]["value"])


def page(profile=PROFILE, values=None, problems=(), note=""):
    cluster = a_cluster(profile)
    return Page(render_form(cluster, (cluster,), Draft(values or {}, tuple(problems), note)))


def controls(found):
    return [element for element in found.elements if element["tag"] in ("input", "select", "textarea")]


# --- the form


def test_every_field_is_an_option_of_the_gate():
    names = {element["name"] for element in controls(page())}
    # Which cluster is a choice only where there are several.
    assert names == set(OPTIONS) - {"cluster", "preset"}


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_every_control_of_a_shipped_profile_has_a_name_and_a_label(path):
    found = page(load(path))
    labels = {element["for"]: element["text"].strip() for element in found.all("label")}
    ids = [element["id"] for element in found.elements if "id" in element]
    assert len(ids) == len(set(ids))
    assert controls(found)
    for control in controls(found):
        assert control["name"] in OPTIONS
        assert labels[control["id"]]
    assert set(labels) <= set(ids)


@pytest.mark.parametrize("problems", [(), (Problem("cpus", "Too many."),)], ids=["new", "refused"])
def test_what_describes_a_control_is_on_the_page(problems):
    found = page(problems=problems)
    ids = {element["id"] for element in found.elements if "id" in element}
    described = [element["aria-describedby"].split() for element in found.elements if "aria-describedby" in element]
    assert described
    assert [one for ids_of_one in described for one in ids_of_one if one not in ids] == []


def test_every_partition_tells_what_it_allows():
    found = page()
    rows = [" ".join(element["text"].split()) for element in found.all("tr") if "data-hpc-free" not in element][2:]
    assert rows == [
        "debug up to 30m 2 up to 4 up to 4G none",
        "compute up to 2d 1 all 24 all none",
        "gpu up to 1d 1 up to 16 up to 32G 1 to 4 v100, 1 to 2 a100",
    ]


def test_the_form_needs_no_script():
    html = render_form(a_cluster(PROFILE), (), Draft({}))
    assert "<script" not in html
    assert "onclick" not in html


def test_whatever_stands_in_a_profile_is_text_on_the_page():
    profile = SiteProfile.model_validate(
        FULL
        | {
            "title": EVIL,
            "words": {"partition": EVIL, "account": EVIL},
            "partitions": [one | {"title": EVIL, "help": EVIL} for one in FULL["partitions"]],
            "environments": [{"name": "x", "title": EVIL, "help": EVIL}],
            "images": [{"name": "i", "title": EVIL, "help": EVIL, "path": f"/{EVIL}"}],
            "interfaces": [{"name": "f", "title": EVIL, "help": EVIL}],
            "defaults": {"directory": f"/{EVIL}"},
            "directories": {"allowed": [f"/{EVIL}"]},
        }
    )
    found = page(profile)
    assert not found.all("script")
    assert not found.all("b")
    assert found.one("input", name="directory")["value"] == f"/{EVIL}"
    assert [option["text"] for option in found.all("option", value="x")] == [EVIL]
    assert found.one("p", **{"class": "text-body-secondary"})["text"] == EVIL


@pytest.mark.parametrize("text", [*NASTY, pytest.param(EVIL, id="html"), pytest.param('" onfocus="x', id="attribute")])
def test_a_refused_value_is_kept_and_is_text_on_the_page(text):
    problems = [Problem("directory", f"Directory {text!r} is not offered."), Problem(text, text)]
    found = page(values={"directory": text, "partition": text}, problems=problems)
    assert found.one("input", name="directory")["value"] == text
    assert found.chosen("partition") == text
    assert not found.all("script")
    assert not [element for element in found.elements if any(name.startswith("on") for name in element)]
    assert found.one("div", id="hpc-directory-error")["text"] == f"Directory {text!r} is not offered."
    assert text in found.one("div", role="alert")["text"]


def test_a_refused_choice_is_said_to_be_none_of_those_offered():
    found = page(values={"partition": "gone"})
    assert found.one("option", value="gone")["text"] == "gone (not offered)"
    assert [option["value"] for option in found.all("option") if "selected" in option].count("gone") == 1


def test_an_offered_choice_is_shown_once():
    found = page(values={"partition": "gpu", "features": ["ssd"], "details": True})
    assert found.chosen("partition") == "gpu"
    assert len(found.all("option", value="gpu")) == 1
    ticked = [(box["name"], box["value"]) for box in found.all("input", type="checkbox") if "checked" in box]
    assert ticked == [("details", "true"), ("features", "ssd")]


def test_a_problem_stands_beside_its_field_and_marks_it():
    found = page(problems=[Problem("walltime", "At most 30m.")])
    field = found.one("input", name="walltime")
    assert "is-invalid" in field["class"].split()
    assert "hpc-walltime-error" in field["aria-describedby"].split()
    assert found.one("div", id="hpc-walltime-error")["text"] == "At most 30m."
    assert [one["name"] for one in controls(found) if "is-invalid" in one["class"].split()] == ["walltime"]
    assert "No server was started" in found.one("div", role="alert")["text"]


def test_a_problem_that_belongs_to_no_field_stands_above_the_form():
    found = page(problems=[Problem("colour", "There is no option 'colour'.")])
    assert found.one("li")["text"] == "There is no option 'colour'."


def test_nothing_is_said_to_be_wrong_where_nothing_is():
    found = page()
    assert not found.all("div", role="alert")
    assert not [one for one in controls(found) if "is-invalid" in one["class"].split()]


def test_a_note_is_text_above_the_form():
    assert page(note=EVIL).one("p", role="status")["text"] == EVIL
    assert not page().all("p", role="status")


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(OPTIONS), st.one_of(st.text(max_size=30), st.integers(), st.lists(st.text(max_size=9)))
    )
)
def test_any_values_make_a_page_that_is_whole(values):
    found = page(values=values)
    assert {element["name"] for element in controls(found)} == set(OPTIONS) - {"cluster", "preset"}
    assert not found.all("script")


async def test_a_draft_stays_with_its_own_web_request():
    async def visit(name):
        draft.set(Draft({"directory": name}))
        await asyncio.sleep(0.01)
        return draft.get().values["directory"]

    tasks = [asyncio.create_task(visit(f"/{number}")) for number in range(20)]
    assert await asyncio.gather(*tasks) == [f"/{number}" for number in range(20)]
    assert draft.get() is None


# --- failures


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        pytest.param(RequestError([Problem("a", "No a."), Problem("b", "No b.")]), 400, "No a. No b.", id="request"),
        pytest.param(
            SchedulerRejected("Invalid account", "sbatch --parsable", "Invalid account"),
            400,
            "The scheduler did not accept the job: Invalid account",
            id="rejected",
        ),
        pytest.param(
            SchedulerUnreachable("The scheduler is not answering.", "sbatch", "Unable to contact"),
            503,
            "The scheduler is not answering. No server was started. If the job was submitted anyway, the Hub will "
            "cancel it. Please try again later.",
            id="unreachable",
        ),
        pytest.param(
            SchedulerNotSetUp("The command 'sbatch' was not found on the Hub.", "sbatch", "not in /usr", "install it"),
            500,
            "This site is not set up for starting servers yet: The command 'sbatch' was not found on the Hub. "
            "Please contact the help desk (help@example.org); the Hub's log has the details.",
            id="not set up",
        ),
        pytest.param(
            ServerLost("Job 12 ended.", Reason.JOB_ENDED),
            500,
            "Job 12 ended.",
            id="lost",
        ),
    ],
)
def test_an_error_says_to_the_user_what_to_do(error, status, words):
    profile = SiteProfile.model_validate(FULL | {"contact": {"name": "the help desk", "email": "help@example.org"}})
    shown = as_hub_error(error, profile)
    assert isinstance(shown, ShownError)
    assert (shown.status_code, shown.jupyterhub_message) == (status, words)


def test_commands_and_cures_are_for_the_log_alone():
    error = SchedulerNotSetUp("The Hub may not.", "sudo -u alice /usr/bin/sbatch", "a password is required", "visudo")
    shown = as_hub_error(error, PROFILE)
    for words in ("sudo -u alice", "a password is required", "visudo"):
        assert words in for_the_log(error)
        assert words not in str(shown)
        assert words not in shown.jupyterhub_message


@pytest.mark.parametrize("words", ["100% of it", "%s %d %(name)s", "{braces}", "line\nbreak"])
def test_the_schedulers_words_are_no_format(words):
    shown = as_hub_error(SchedulerRejected(words, words, words), PROFILE)
    assert words in str(shown)
    assert words in shown.jupyterhub_message
    assert words in shown.log_message % shown.args


def test_the_last_lines_of_a_lost_server_are_text_on_the_page():
    shown = as_hub_error(ServerLost(f"It ended: {EVIL}", Reason.SERVER_FAILED, [EVIL, "second line"]), PROFILE)
    html = Page(f"<p>{shown.jupyterhub_html_message}</p>")
    assert not html.all("script")
    assert html.one("pre")["text"] == f"{EVIL}\nsecond line"
    assert html.elements[0]["text"] == f"It ended: {EVIL}"
    assert shown.jupyterhub_message == f"It ended: {EVIL}"


def test_without_a_log_there_is_no_html():
    assert as_hub_error(ServerLost("It ended.", Reason.JOB_ENDED), PROFILE).jupyterhub_html_message is None


# --- news

PENDING = JobStatus(JobState.PENDING, reason="Priority", starts_at=1795240800)


async def told(news):
    return [event async for event in news]


async def test_every_reader_gets_all_news_in_order():
    news = News()
    early = asyncio.create_task(told(news))
    await news.say("first", 5)
    await news.status("12", PENDING, "Jobs with a higher priority are ahead of this one.")
    await news.say("second")
    await news.close()
    late = await told(news)
    assert await early == late
    assert [event["message"] for event in late] == [
        "first",
        "Job 12 is pending: Jobs with a higher priority are ahead of this one. "
        "Expected start: 06:00 on 21 November 2026 (UTC).",
        "second",
    ]


async def test_the_same_state_is_told_once():
    news = News()
    for _ in range(3):
        await news.status("12", PENDING, "Jobs with a higher priority are ahead of this one.")
    await news.status("12", JobStatus(JobState.UNKNOWN), "")
    await news.status("12", PENDING, "Jobs with a higher priority are ahead of this one.")
    await news.status("12", JobStatus(JobState.RUNNING, host="n1"), "")
    await news.close()
    assert [event["message"] for event in await told(news)] == [
        "Job 12 is pending: Jobs with a higher priority are ahead of this one. "
        "Expected start: 06:00 on 21 November 2026 (UTC).",
        "Job 12 is running on n1; the server is starting",
    ]


async def test_a_new_guess_of_the_start_alone_is_no_news():
    news = News()
    await news.status("12", PENDING, "Jobs with a higher priority are ahead of this one.")
    later = JobStatus(JobState.PENDING, reason="Priority", starts_at=1795244400)
    assert not news.differs("12", later)
    await news.status("12", later, "Jobs with a higher priority are ahead of this one.")
    await news.close()
    assert len(await told(news)) == 1


async def test_a_sentence_that_was_just_said_is_not_said_again():
    news = News()
    for sentence in ("It does not answer.", "It does not answer.", "It answers.", "It does not answer."):
        await news.say(sentence)
    await news.close()
    assert [event["message"] for event in await told(news)] == [
        "It does not answer.",
        "It answers.",
        "It does not answer.",
    ]


async def test_only_the_newest_record_of_a_job_is_kept():
    news = News()
    await news.status("12", PENDING, "", "the first record")
    await news.status("12", JobStatus(JobState.RUNNING, host="n1"), "", "the second record")
    await news.close()
    assert [event["job"].get("details") for event in await told(news)] == [None, "the second record"]


SINCE = int(datetime.fromisoformat("2020-11-20T06:00").timestamp())
DAY_S = 24 * 3600
WAIT = Wait(advice="Nothing to do.", since=SINCE, until=SINCE + 2 * DAY_S, ahead=3)


async def test_fewer_jobs_ahead_are_no_line_of_what_happened():
    news = News()
    await news.status("12", PENDING, "Priority.", "", WAIT)
    for ahead in (3, 2, 2, 0, None):
        await news.moved_up(replace(WAIT, ahead=ahead))
    await news.close()
    first, *later = await told(news)
    assert first["job"]["ahead"] == "3"
    assert later == [{"job": {"ahead": words}} for words in ("2", "none", "")]
    assert news.latest["ahead"] == ""
    assert news.latest["state"] == "pending"


async def test_a_start_goes_through_its_steps():
    news = News()
    assert news.step == "submitted"
    for status, step in [
        (PENDING, "waiting"),
        (JobStatus(JobState.PENDING, native_state="CONFIGURING"), "assigned"),
        (JobStatus(JobState.RUNNING, host="n1"), "starting"),
    ]:
        await news.status("12", status, "", "", WAIT)
        assert news.step == step
        assert bool(news.latest["since"]) == (status.state is JobState.PENDING)
    await news.say("The server listens; opening it", 90)
    assert news.step == STEPS[-1]


async def test_news_hold_the_facts_that_the_page_shows():
    news = News()
    await news.status("12", PENDING, "Jobs with a higher priority are ahead of this one.", "JobId=12", WAIT)
    assert news.latest == {
        "id": "12",
        "state": "pending",
        "reason": "Jobs with a higher priority are ahead of this one.",
        "host": "",
        "starts": "06:00 on 21 November 2026 (UTC)",
        "starts_at": 1795240800,
        "details": "JobId=12",
        "advice": "Nothing to do.",
        "since": "06:00 on 20 November 2020 (UTC)",
        "since_at": SINCE,
        "until": "06:00 on 22 November 2020 (UTC)",
        "until_at": SINCE + 2 * 86400,
        "ahead": "3",
    }
    await news.say("something else")
    assert news.latest["id"] == "12"
    assert News().latest == {}


async def test_progress_never_goes_back_in_an_ordinary_life():
    news = News()
    await news.say("asking", 5)
    for state in (JobState.PENDING, JobState.HELD, JobState.RUNNING):
        await news.status("12", JobStatus(state, host="n1"), "")
    await news.close()
    steps = [event["progress"] for event in await told(news)]
    assert steps == sorted(steps)
    assert all(0 < step < 100 for step in steps)


async def test_a_reader_can_not_change_what_others_read():
    news = News()
    await news.say("first")
    await news.close()
    for event in await told(news):
        event["message"] = "changed"
    assert [event["message"] for event in await told(news)] == ["first"]


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("/hub/spawn?_xsrf=x", ""),
        ("/hub/spawn/alice?next=/hub/spawn/bob/evil", ""),
        ("/jupyter/hub/spawn/alice/my%20server%2F2?_xsrf=x", "my server/2"),
        ("/hub/spawn/hub/spawn", "spawn"),
        ("", ""),
    ],
)
def test_the_server_that_a_form_is_for(address, name):
    assert server_of(address) == name
