"""Which language a page has, what a sentence keeps of itself, and that the catalogs are whole and up to date."""

import asyncio
import gettext
import io
import json
import pickle
import re
import string
import tomllib
from pathlib import Path

import pytest
from babel.messages.extract import extract_from_dir
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup, escape
from material import FULL
from support.jobs import a_cluster

from hpcspawner import language
from hpcspawner.errors import RequestError
from hpcspawner.jobs.news import News
from hpcspawner.jobs.record import End, JobRecord, columns_of_end
from hpcspawner.language import Text, _, all_told, joined, several, told, wanted
from hpcspawner.pages.failure import failure
from hpcspawner.pages.pages import Draft, render_form
from hpcspawner.pages.words import words_of
from hpcspawner.request.gate import make
from hpcspawner.request.model import LocalAccount
from hpcspawner.schedulers.records import cancelled
from hpcspawner.schedulers.state import Cause, JobState, JobStatus
from hpcspawner.site.profile import SiteProfile

ROOT = Path(__file__).parents[2]
OFFERED = ("en", "de", "es")
OTHERS = OFFERED[1:]
PROFILE = SiteProfile.model_validate(FULL)


@pytest.fixture
def speaking():
    """Have the test's own context speak a language, and English again afterwards."""
    yield language.speak
    language.speak(language.SOURCE)


# ---- which language


@pytest.mark.parametrize(
    ("accepted", "chosen"),
    [
        ("", "en"),
        ("de", "de"),
        ("de-CH, de;q=0.9, en;q=0.8", "de"),
        ("ES-mx", "es"),
        ("fr, es;q=0.3, de;q=0.2", "es"),
        ("es;q=0.5,de;q=0.7", "de"),
        ("de,es", "de"),
        ("fr", "en"),
        ("*", "en"),
        ("en;q=0", "de"),
        ("en;q=0, *;q=0.1", "de"),
        ("en;q=0.2, *;q=0.7", "de"),
        ("de;q=0, es;q=0", "en"),
        ("de ; q=0.5 , es ; q=0.6", "es"),
        ("de;q=2, es;q=0.1", "es"),
        ("deutsch", "en"),
        ("; ,,\x00de", "en"),
    ],
)
def test_a_browser_gets_the_language_that_it_likes_best(accepted, chosen):
    assert wanted(accepted, OFFERED) == chosen


def test_a_site_that_offers_others_first_gives_them_to_who_asks_for_none():
    assert wanted("fr", ("de", "en")) == "de"
    assert wanted("es", ("de",)) == "de"


@given(st.text() | st.text("dens-;,q=01.* "))
def test_any_header_gives_a_language_that_is_offered(accepted):
    assert wanted(accepted, OFFERED) in OFFERED


async def test_two_requests_on_one_loop_do_not_mix():
    both = asyncio.Barrier(2)

    async def request(asked):
        language.speak(asked)
        await both.wait()
        # What a request begins speaks its language: tasks, and threads by asyncio.
        in_task = asyncio.create_task(asyncio.to_thread(lambda: told(_("Start"))))
        await both.wait()
        return told(_("Start")), await in_task

    german, spanish = await asyncio.gather(*(asyncio.create_task(request(asked)) for asked in OTHERS))
    assert german == ("Starten", "Starten")
    assert spanish == ("Iniciar", "Iniciar")
    assert told(_("Start")) == "Start"


# ---- a sentence


def test_a_sentence_is_english_for_programs_and_keeps_what_it_is_made_of():
    made = joined([_("The job was cancelled by {account}.", account="bob"), _("Expected start: {time}.", time="12:00")])
    assert made == "The job was cancelled by bob. Expected start: 12:00."
    assert f"{made}" == json.loads(json.dumps(made)) == str(made)
    for same in (pickle.loads(pickle.dumps(made)), Text.from_parts(json.loads(json.dumps(made.parts())))):
        assert same == made
        assert told(same, "de") == "Der Job wurde von bob abgebrochen. Erwarteter Start: 12:00."


def test_numbers_have_their_plural():
    counted = [several("{count} core", "{count} cores", count) for count in (0, 1, 2)]
    assert counted == ["0 cores", "1 core", "2 cores"]
    assert [told(one, "de") for one in counted] == ["0 Kerne", "1 Kern", "2 Kerne"]
    assert [told(one, "es") for one in counted] == ["0 núcleos", "1 núcleo", "2 núcleos"]


def test_a_value_is_no_sentence_and_no_format():
    # A partition may be called like a word of ours, and a name of a user's like a placeholder.
    assert told(_("Node {name}", name="Start"), "de") == "Knoten Start"
    assert told(_("Node {name}", name="{name.__class__}{0}"), "de") == "Knoten {name.__class__}{0}"
    assert told("Start", "de") == "Start"


def test_what_becomes_json_is_told_in_the_reader_s_language(speaking):
    speaking("de")
    told_all = all_told({"a": [_("Start")], "b": {"c": _("Stop"), "d": "Stop"}, "e": 1, "f": None})
    assert told_all == {"a": ["Starten"], "b": {"c": "Beenden", "d": "Stop"}, "e": 1, "f": None}


@pytest.mark.parametrize("parts", [{}, {"messages": 1, "values": {}, "number": 1}, {"messages": [], "values": {}}, []])
def test_what_is_no_sentence_is_not_taken_for_one(parts):
    with pytest.raises(ValueError, match="not the parts of a sentence"):
        Text.from_parts(parts)


def test_the_end_of_a_job_is_kept_with_what_its_sentence_is_made_of():
    end = End(Cause.CANCELLED, cancelled("root").message, 1.0)
    columns = json.loads(json.dumps(columns_of_end(end)))
    record = JobRecord("t", "c", "alice", "", "alice", "jupyter", **columns)
    assert record.end.message == "The job was cancelled by root (an administrator)."
    assert told(record.end.message, "de") == "Der Job wurde von root (einem Administrator) abgebrochen."


def test_the_news_are_told_to_each_page_in_its_language(speaking):
    async def read():
        return [event["message"] async for event in news]

    async def both():
        await news.say(_("Submitting the job"))
        await news.status("7", JobStatus(JobState.PENDING), _("No node has what the job asks for."))
        await news.close()
        pages = []
        for asked in OFFERED:
            language.speak(asked)
            pages.append(await read())
        return pages

    news = News()
    english, german, spanish = asyncio.run(both())
    assert english == ["Submitting the job", "Job 7 is pending: No node has what the job asks for."]
    assert german == [
        "Der Job wird eingereicht",
        "Job 7 ist in der Warteschlange: Kein Knoten hat, was der Job anfordert.",
    ]
    assert spanish[1] == "El trabajo 7 está en cola: Ningún nodo tiene lo que pide el trabajo."


def test_a_refusal_is_english_in_the_log_and_german_on_the_page(speaking):
    speaking("de")
    with pytest.raises(RequestError) as refused:
        make({"walltime": "9999d", "partition": "nowhere"}, PROFILE, LocalAccount("alice", "/home/alice"))
    assert "is not offered" in str(refused.value)
    assert "is not offered" in refused.value.explained
    assert "wird nicht angeboten. Wählen Sie eines von:" in told(refused.value.sentence)


@pytest.mark.parametrize("asked", OTHERS)
def test_the_form_has_no_english_word_of_ours(speaking, asked):
    speaking(asked)
    html = render_form(a_cluster(PROFILE), (), Draft({"cpus": "0"}))
    for word in (
        "Start<",
        "Wall time",
        "Where it runs",
        "Give up after",
        "How long to wait",
        "up to ",
        "Choose one of",
    ):
        assert word not in html, word
    assert {"de": "Laufzeit", "es": "Tiempo límite"}[asked] in html


def test_what_to_do_about_an_end_is_told_with_the_site_s_contact(speaking):
    shown = failure(_("The job was cancelled."), Cause.UNKNOWN, PROFILE, {})
    assert told(shown.advice, "de").startswith("Starten Sie erneut; wenn es wieder vorkommt, wenden Sie sich bitte an ")


def test_a_site_s_own_sentence_replaces_ours_and_ours_stay_beside_it(tmp_path):
    folder = tmp_path / "de" / "LC_MESSAGES"
    folder.mkdir(parents=True)
    po = io.BytesIO(b'msgid "Start"\nmsgstr "Los"\n\nmsgid "Node {name}"\nmsgstr "{wrong} {}"\n')
    with (folder / "hpcspawner.mo").open("wb") as file:
        write_mo(file, read_po(po, locale="de"))
    try:
        language.look_first_in(tmp_path)
        assert told(_("Start"), "de") == "Los"
        assert told(_("Stop"), "de") == "Beenden"
        assert told(_("Start"), "es") == "Iniciar"
        # A mistake of the site's in a catalog costs its sentence, not the page.
        assert told(_("Node {name}", name="n1"), "de") == "Node n1"
    finally:
        language.look_first_in(language.FOLDER)


# ---- the catalogs


def mappings():
    """How `make translations` reads the sources, from the same file."""
    found = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["babel"]["mappings"]
    methods = [(one["pattern"], one["method"]) for one in found]
    options = {one["pattern"]: {k: v for k, v in one.items() if k not in ("pattern", "method")} for one in found}
    return methods, options


def sources():
    """Every message in the source: its id, or ids."""
    methods, options = mappings()
    keywords = {"_": None, "several": (1, 2)}
    found = extract_from_dir(ROOT, method_map=methods, options_map=options, keywords=keywords)
    return {message for _file, _line, message, _comments, _context in found}


def catalog(name):
    file = language.FOLDER / name / "LC_MESSAGES" / "hpcspawner.po"
    return read_po(io.BytesIO(file.read_bytes()), locale=name)


def ids(one):
    return one.id if isinstance(one.id, str) else tuple(one.id)


def as_tuple(text):
    return (text,) if isinstance(text, str) else tuple(text)


def placeholders(text):
    return sorted(name for _text, name, _spec, _conversion in string.Formatter().parse(text) if name is not None)


def test_english_german_and_spanish_are_there():
    assert language.available() == OFFERED


@pytest.mark.parametrize("name", OTHERS)
def test_a_catalog_has_the_sentences_of_the_source_and_no_others(name):
    in_catalog, in_source = {ids(one) for one in catalog(name) if one.id}, sources()
    assert len(in_source) > 500
    assert in_catalog == in_source, "make translations brings the catalogs up to date"


@pytest.mark.parametrize("name", OTHERS)
def test_each_sentence_is_translated_with_the_same_placeholders(name):
    for one in catalog(name):
        if not one.id:
            continue
        assert not one.fuzzy, one.id
        for text in as_tuple(one.string):
            assert text.strip(), f"{name} has no sentence for {one.id!r}"
            assert placeholders(text) == placeholders(as_tuple(one.id)[-1]), f"{name}: {one.id!r}"
            assert text[-1:] not in " \n"


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_shipped_is_what_the_translators_wrote(name):
    compiled = io.BytesIO()
    write_mo(compiled, catalog(name))
    shipped = (language.FOLDER / name / "LC_MESSAGES" / "hpcspawner.mo").read_bytes()
    read = [gettext.GNUTranslations(io.BytesIO(one))._catalog for one in (compiled.getvalue(), shipped)]
    for one in read:
        # The header holds the date of the last change.
        one.pop("")
    assert read[0] == read[1], "make translations compiles the catalogs"


WORD = re.compile(r'\bsay\((?:[^"()`]*\? )?"(\w+)"(?: : "(\w+)")?')
READ = re.compile(r"\bwords\.(\w+)")


@pytest.mark.parametrize(
    ("script", "files", "pattern"),
    [("form", ["form", "own"], WORD), ("starting", ["starting"], READ), ("waiting", ["waiting"], READ)],
)
def test_each_script_finds_the_words_that_it_asks_for(script, files, pattern):
    static = ROOT / "hpcspawner" / "pages" / "static"
    text = "".join((static / f"{name}.js").read_text(encoding="utf-8") for name in files)
    asked = {name for found in pattern.finditer(text) for name in found.groups() if name}
    assert asked, "the scripts ask in another way than this test knows"
    assert asked <= json.loads(words_of(script)).keys()


def test_a_sentence_in_markup_is_escaped_once():
    text = Text(("Your {word} are not known.",), {"word": "<'accounts'>"})
    once = "Your &lt;&#39;accounts&#39;&gt; are not known."
    assert Markup("<p>{}</p>").format(text) == f"<p>{once}</p>"
    assert Markup("<p>%s</p>") % text == f"<p>{once}</p>"
    assert escape(text) == once
