"""The page: what it says against the records, that it needs nothing else, and how a browser shows it."""

import re
import shutil
import sys
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from adamlab import command, records
from adamlab.claims import CLAIMS, judge
from adamlab.claims.words import decisive, describe
from adamlab.protocol import PROTOCOLS
from plots import numbers, report
from plots.studies import gather
from tests.claims.worlds import gupta, madan, write_run

ROOT = Path(__file__).parents[2]
ALPHAS = [(model, *at) for model in ("plain20", "resnet34") for at in [(None, None), ("alpha", 1e-4), ("alpha", 0.1)]]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Both papers' studies, a few settings of each; one run has a device with markup in its name."""
    out = tmp_path_factory.mktemp("results")
    [first, *_] = madan(tmp_path_factory.mktemp("first"), only=ALPHAS[:1])
    device = {"commit": "abc1234", "device": "<img src=x onerror=alert(1)> & co", "versions": {"jax": "1"}}
    write_run(out, replace(first.config, seed=9), first.epochs, provenance=device)
    madan(out, only=ALPHAS)
    gupta(out, only=[("adam", False), ("adam_lawn", False), ("adam", True), ("adam_lawn", True)])
    return out


@pytest.fixture(scope="module")
def page(results):
    return report.render(gather([results]))


class Reader(HTMLParser):
    """Collects tags with their attributes, and text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def test_every_claim_has_its_statement_rule_and_verdict(page):
    text = Reader(page).text
    for claim in CLAIMS:
        assert claim.statement in text
        assert claim.rule in text
    assert re.search(r"✓ reproduced \S*cifar10-lawn-laptop , reduced: plain20", text)


def test_claims_are_counted_with_each_verdict_and_one_study_is_at_a_papers_protocol(page, results):
    found = {(each.claim.name, each.verdict) for name, runs in gather([results]).items() for each in judge(name, runs)}
    counts = Counter(verdict for _, verdict in found)
    counts["not run"] += len(CLAIMS) - len({name for name, _ in found})
    text = Reader(page).text
    said = re.findall(r"(reproduced|contradicted|inconclusive|not run) (\d+) claims?", text)
    assert {verdict: int(count) for verdict, count in said} == +counts
    assert "No study here is at a paper's protocol" not in text


def test_a_figure_is_told_by_its_heading_and_panels(page):
    (alt,) = [attrs["alt"] or "" for tag, attrs in Reader(page).tags if tag == "img" and "Training loss" in str(attrs)]
    assert alt.startswith("Training loss")
    assert alt.endswith("Panels: plain20, alpha; resnet34, alpha. Rows: training loss (nats, log scale).")


def test_the_tables_have_the_records_numbers_beside_the_papers(page, results):
    low = [run for run in records.read_runs(results) if run.config.setting == "alpha=0.0001"]
    accuracy = 100 * sum(run.epochs[-1]["test_accuracy"] for run in low[3:]) / 3  # ResNet-34's
    text = Reader(page).text
    assert re.search(rf"alpha 1e-4 \S+ ± \S+ \S+ ± \S+ {accuracy:.2f} ± \S+ about 65 3", text)
    assert "sensitivity indices, of losses in nats" in text
    assert "abc1234" in text


def test_labels_are_escaped(page):
    reader = Reader(page)
    assert "<img src=x onerror=alert(1)> & co" in reader.text
    assert not any(name.startswith("on") for _, attributes in reader.tags for name in attributes)
    assert all(attributes["src"].startswith("data:image/webp") for tag, attributes in reader.tags if tag == "img")


def test_the_page_needs_nothing_else(page):
    """No script; every address is data, or a place on the page that there is."""
    tags = Reader(page).tags
    places = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(places) == len(set(places))
    assert "script" not in {tag for tag, _ in tags}
    assert "url(" not in page
    for _, attributes in tags:
        for name in ("src", "href"):
            address = attributes.get(name, "data:")
            assert address.startswith("data:") or address.removeprefix("#") in places, address


def test_the_same_records_give_the_same_page(page, results):
    assert report.render(gather([results])) == page


def test_figures_stand_beside_what_the_paper_says_of_them(page):
    found = re.findall(r"<figcaption>(.*?)</figcaption>", page, flags=re.DOTALL)
    training = next(caption for caption in found if "Training loss when" in caption)
    assert re.findall(r"rule-(\w+)", training) == ["S2", "S3", "S4", "S5", "S6", "S7", "S8"]
    flattening = next(caption for caption in found if "Loss flattening" in caption)
    assert re.findall(r"rule-(\w+)", flattening) == ["L7"]


def test_a_figure_of_two_networks_has_both_verdicts_and_its_own_network_alone(tmp_path):
    """L1 is judged for each network; the first figure shows both, that of loss flattening one."""
    cells = [("adam", False), ("adam_lawn", False), ("adam", True), ("adam_lawn", True)]
    for run in gupta(tmp_path, only=cells):
        worse = [line | {"test_accuracy": 1.2 - line["test_accuracy"]} for line in run.epochs]
        write_run(tmp_path, replace(run.config, model="vgg19"), worse)
    page = report.render(gather([tmp_path]))
    assert "No study here is at a paper's protocol" in page
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", page, flags=re.DOTALL)
    first = next(caption for caption in captions if "rule-L1" in caption)
    assert re.findall(r'class="badge (\S+?)".*?rule-L1.*?\((.*?)\)', first) == [
        ("reproduced", "reduced: plain20, 2,000 images, 20 epochs"),
        ("contradicted", "reduced: vgg19, 2,000 images, 20 epochs"),
    ]
    flattening = [caption for caption in captions if "rule-L7" in caption]
    assert [re.findall(r"rule-(\w+)", caption) for caption in flattening] == [["L7"], ["L7"]]


def test_other_data_and_tuning_are_said_to_be_no_evidence(tmp_path):
    only = [("plain20", None, None), ("plain20", "alpha", 1e-4)]
    tuning = replace(PROTOCOLS["laptop"], evaluate_on="validation")
    madan(tmp_path, only=only, protocol=tuning, seeds=(0,))
    gupta(tmp_path, dataset="digits", seeds=(0,), only=[("adam", False)])
    # CIFAR-100 is the LAWN paper's, and this is a study of the other one.
    madan(tmp_path, only=only, dataset="cifar100", seeds=(0,))
    page = report.render(gather([tmp_path]))
    assert page.count("no test image was seen") == 1
    assert page.count("The paper did not train on this data set") == 2
    assert set(re.findall(r'class="badge (\S+)"', page)) == {"not-run", "not-judged-here"}


def test_the_published_page_is_of_the_published_records():
    """After new records: python -m plots.report docs/results -o docs/report.html."""
    text = Reader((ROOT / "docs/report.html").read_text()).text
    for name, runs in gather([ROOT / "docs/results"]).items():
        study = (ROOT / "docs/results").parents[1] / name
        for judgement in judge(study.relative_to(ROOT).as_posix(), runs):
            said = (
                f"{judgement.verdict} {judgement.study.name} , {judgement.study.scope} {describe(decisive(judgement))}"
            )
            assert said in text, said
        for table in numbers.tables(runs):
            for row in table.rows:
                assert " ".join(" ".join(row).split()) in text, row


@pytest.fixture
def refuse(capsys, monkeypatch):
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["report", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            command.run_main(report.main, "plots.report")
        error = capsys.readouterr().err
        assert (stop.value.code, error.count("\n")) == (2, 1)
        return error

    return call


def test_bad_input_is_one_line(refuse, tmp_path):
    assert "no runs below" in refuse(tmp_path / "nothing")
    madan(tmp_path / "results", only=ALPHAS[:1])
    (tmp_path / "file").touch()
    assert "cannot write results to" in refuse(tmp_path / "results", "-o", tmp_path / "file" / "report.html")
    assert "it is a folder" in refuse(tmp_path / "results", "-o", tmp_path)
    assert "File name too long" in refuse(tmp_path / "results", "-o", tmp_path / ("a" * 300))


# A browser that never asks the network for anything: not for the page, and not for itself.
ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
SIZES = {"phone": {"width": 360, "height": 740}, "desktop": {"width": 1280, "height": 900}}


@pytest.fixture(scope="module")
def browser():
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("Chromium is not installed")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture(params=[(size, scheme) for size in SIZES for scheme in ("light", "dark")], ids="-".join)
def tab(request, browser):
    """A tab of each kind, without a network."""
    size, scheme = request.param
    context = browser.new_context(viewport=SIZES[size], color_scheme=scheme, bypass_csp=True, offline=True)
    yield context.new_page()
    context.close()


@pytest.mark.browser
def test_a_browser_shows_it_without_complaint(tab, page, tmp_path):
    """No message on the console, no request, nothing wider than the window, nothing that axe objects to."""
    import axe_playwright_python

    path = tmp_path / "report.html"
    path.write_text(page)
    messages, requests = [], []
    tab.on("console", lambda message: messages.append(message.text))
    tab.on("pageerror", lambda error: messages.append(str(error)))
    tab.on("request", lambda request: requests.append(request.url))
    tab.goto(path.as_uri())
    assert messages == []
    assert [url for url in requests if not url.startswith("data:")] == [path.as_uri()]
    assert tab.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert tab.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 1000)")

    tab.evaluate("document.querySelectorAll('details').forEach(details => details.open = true)")
    tab.add_script_tag(content=(Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text())
    found = tab.evaluate("axe.run(document, {resultTypes: ['violations']})")
    assert len(found["passes"]) > 10
    assert [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in found["violations"]] == []
