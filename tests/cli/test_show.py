from __future__ import annotations

import json

import losskit as package

MINE = """
class Mine:
    '''My own.'''
    def __init__(self, model, power=2): ...
"""


def test_show_says_what_the_card_and_the_constructor_say(losskit) -> None:
    result = losskit("show", "multiple-negatives-ranking")
    assert (result.returncode, result.stderr) == (0, "")
    for text in (
        "loss multiple-negatives-ranking",
        "losskit_plugins.losses.multiple_negatives_ranking:MultipleNegativesRankingLoss",
        f"losskit {package.__version__}, built in",
        "anchor positive negative*, labels: none",
        "scale\tfloat | None\tNone\t",
        "partition_mode\tPartition\tjoint\tjoint per_direction",
        'losskit.build("multiple-negatives-ranking", model)',
        "citation\n@",
    ):
        assert text in result.stdout


def test_the_example_names_what_is_required(losskit) -> None:
    shown = losskit("show", "matryoshka").stdout
    assert "loss: {name: matryoshka, loss: ..., dims: ...}" in shown
    assert 'losskit.build({"name": "matryoshka", "loss": ..., "dims": ...}, model)' in shown
    assert 'losskit.build("cosine", kind="similarity")' in losskit("show", "cosine").stdout


def test_json_holds_card_place_and_provenance(losskit, site) -> None:
    site.add_loss("lk-a")
    shown = json.loads(losskit("show", "toy", "--json").stdout)
    assert (shown["schema"], shown["problems"]) == (1, [])
    [toy] = shown["components"]
    assert toy["card"]["formats"] == [{"inputs": ["anchor", "positive"], "labels": "none", "outputs": None}]
    assert (toy["file"], toy["line"]) == (str(site.path / "lk_a.py"), 5)
    assert toy["provenance"]["distribution"] == "lk-a"
    assert len(toy["provenance"]["sha256"]) == 64
    assert not site.imported


def test_all_of_one_name_are_shown_and_kinds_distinguish(losskit, site) -> None:
    source = "import losskit\nclass A:\n    '''Another thing.'''\n    card = losskit.Card()\n"
    points = {"similarities": {"cosent": "lk_a:A"}, "losses": {"cosent": "lk_a:A"}}
    site.add("lk-a", points=points, modules={"lk_a.py": source})

    def shown(*arguments: str) -> list[tuple[str, str]]:
        components = json.loads(losskit("show", *arguments, "--json").stdout)["components"]
        return [(item["kind"], item["provider"]) for item in components]

    assert shown("cosent") == [("loss", "losskit"), ("loss", "lk-a"), ("similarity", "lk-a")]
    assert shown("similarity:cosent") == shown("cosent", "--kind", "similarity") == [("similarity", "lk-a")]
    assert shown("loss:lk-a/cosent") == [("loss", "lk-a")]
    assert shown("CoSENTLoss") == [("loss", "losskit")]
    assert losskit("show", "cosent").stdout.count("Another thing.") == 2


def test_what_is_broken_is_shown_with_its_problem(losskit, site) -> None:
    source = "import losskit\nclass A:\n    card = losskit.Card(formula=str(1))\n"
    site.add("lk-a", points={"losses": {"bad": "lk_a:A"}}, modules={"lk_a.py": source})
    result = losskit("show", "bad")
    assert result.returncode == 0
    assert "broken" in result.stdout
    assert f"({site.path / 'lk_a.py'}:4). Fix: mend lk_a:A" in result.stderr


def test_classes_are_shown_by_their_targets(losskit, home, site) -> None:
    site.add_loss("lk-a")
    assert "A loss of lk-a." in losskit("show", "lk_a:ToyLoss").stdout
    (home / "work" / "mine.py").write_text(MINE)
    shown = losskit("show", "mine.py:Mine").stdout
    assert "My own." in shown
    assert "power\t\t2\t" in shown
    assert losskit("show", "mine.py:Yours").returncode == 2
    assert not site.imported
