import html.parser

import pytest
import torch

import gpbo
from gpbo.analysis import fit_surrogate
from gpbo.markup import settings, table, text

EVIL = "<script>alert('x')</script>&\""


class Balanced(html.parser.HTMLParser):
    """Fails on a tag that is not closed; collects tags and text."""

    def __init__(self, page):
        super().__init__()
        self.open, self.seen, self.words = [], set(), []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.seen.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_a_table_is_well_formed_and_escapes_everything():
    page = Balanced(table([EVIL, "b"], [[EVIL, 1.0], [None, EVIL]], caption=EVIL))
    assert page.seen == {"table", "caption", "thead", "tbody", "tr", "th", "td"}
    assert page.words == [EVIL, EVIL, "b", EVIL, "1", EVIL]


def test_of_a_long_table_the_end_is_shown():
    page = Balanced(table(["n"], ([k] for k in range(1000))))
    assert page.words[:3] == ["n", "900 more above", "900"]
    assert page.words[-1] == "999"


@pytest.mark.parametrize(
    ("value", "words"), [(None, ""), (0.1234567891, "0.123457"), (3, "3"), (True, "True"), ("a", "a")]
)
def test_values_as_people_read_them(value, words):
    assert text(value) == words


def test_a_config_in_a_line():
    assert settings({"lr": 1e-5, "kind": None}) == "lr=1e-05, kind="


SPACE = gpbo.SearchSpace(
    {
        EVIL: gpbo.Categorical([EVIL, "sgd"]),
        "lr": gpbo.Float(1e-5, 1e-1, log=True, when={EVIL: "sgd"}),
        "n": gpbo.Int(2, 8, step=2),
        "k": gpbo.Categorical([1, 2], ordered=True),
        "constant": 3,
    },
    constraints=["n * k <= 16"],
)


def test_a_space_as_a_page():
    words = Balanced(SPACE._repr_html_()).words
    assert words[:5] == ["constraints: 'n * k <= 16'", "parameter", "kind", "values", "when"]
    lr = words.index("lr")
    assert words[lr : lr + 4] == ["lr", "float", "1e-05 to 0.1 on a log scale", f"{EVIL} is 'sgd'"]
    assert words[words.index("n") :][:3] == ["n", "int", "2 to 8 in steps of 2"]
    assert words[words.index("k") :][:3] == ["k", "ordered choice", "1, 2"]
    assert words[words.index("constant") :][:3] == ["constant", "constant", "3"]


def test_a_study_and_its_trials_as_pages():
    study = gpbo.Study(SPACE, name=EVIL)
    assert "no best trial yet" in Balanced(study._repr_html_()).words[0]
    study.add({EVIL: EVIL, "n": 2, "k": 1, "constant": 3}, 1.5)
    study.add({EVIL: "sgd", "lr": 0.01, "n": 2, "k": 1, "constant": 3}, float("nan"))
    failed = study.ask()
    study.fail(failed, f"Traceback\n  line\nValueError: {EVIL}")
    page = Balanced(study._repr_html_())
    assert "best value 1.5 of trial 0" in page.words[0]
    assert "script" not in page.seen
    assert f"ValueError: {EVIL}" in page.words
    words = Balanced(study.trials[0]._repr_html_()).words
    assert words[:2] == ["trial", "0"]
    assert words[words.index("value") + 1] == "1.5"
    assert f"ValueError: {EVIL}" in Balanced(study.trials[2]._repr_html_()).words


def test_studies_of_several_objectives_and_of_budgets_as_pages():
    study = gpbo.Study({"x": gpbo.Float(0, 1)}, direction=["minimize"] * 2, outcome_constraints="load <= 1")
    study.add({"x": 0.5}, [1.0, 2.0], outcomes={"load": 0.5})
    words = Balanced(study._repr_html_()).words
    assert "1 on the Pareto front" in words[0]
    assert words[1:] == [
        "number",
        "state",
        "value_0",
        "value_1",
        "x",
        "error",
        "0",
        "complete",
        "1",
        "2",
        "0.5",
    ]
    assert Balanced(study.trials[0]._repr_html_()).words[-2:] == ["outcomes", "load=0.5"]
    study = gpbo.Study({"x": gpbo.Float(0, 1)}, scheduler=gpbo.ASHA(1, 3), suggester=gpbo.RandomSuggester())
    study.tell(study.ask(), 0.25)
    assert "budget" in Balanced(study._repr_html_()).words
    assert "value at budget 1" in Balanced(study.trials[0]._repr_html_()).words


def test_a_diagnosis_as_a_page():
    study = gpbo.Study(
        {"x": gpbo.Float(0, 1)}, scheduler=gpbo.ASHA(1, 9, audit=0.2), suggester=gpbo.RandomSuggester()
    )
    study.optimize(lambda config, budget: config["x"] + 1 / budget, 80, progress=False)
    told = study.diagnose()
    words = Balanced(told._repr_html_()).words
    assert words[:5] == ["budget", "next", "trials", "audits", "Kendall's tau"]
    first = told.rungs[0]
    row = words[words.index("verdict") + 1 :][:8]
    counts = ["1", "3", f"{first.n} of {first.n_low}", str(first.n_audits)]
    assert row == [*counts, *map(str, (first.kendall, first.recall, first.false_stops)), first.verdict]
    assert words[len(words) - len(told.advice) :] == list(told.advice)
    alone = gpbo.Study({"x": gpbo.Float(0, 1)}).diagnose()
    assert Balanced(alone._repr_html_()).words == list(alone.advice)


def test_a_process_as_a_page():
    study = gpbo.Study({"x": gpbo.Float(0, 1)})
    for k in range(5):
        study.add({"x": k / 5}, float(k))
    gp = fit_surrogate(study).gp
    words = Balanced(gp.condition(torch.tensor([[0.9]], dtype=torch.float64))._repr_html_()).words
    assert words[0] == "Gaussian process, Matern 2.5: 5 values and 1 pending"
    assert words[words.index("lengthscale 0") + 1] == text(gp.hypers.lengthscale.item())
