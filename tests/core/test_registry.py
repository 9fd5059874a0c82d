from __future__ import annotations

import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import losskit
from losskit import AmbiguousError, NotFoundError, PluginError, RecipeError, registry
from losskit.card import KINDS
from losskit.policy import Policy
from losskit.registry import find, get, is_target, lookup, name_of, problems

CARD = "card = Card(formats=[Format(['anchor', 'positive'])], encoders=['dense'])"


def component(body: str, name: str = "ToyLoss") -> str:
    return f"from losskit import Card, Format\nclass {name}:\n    {body}\n"


def add(site, distribution: str, body: str, **options) -> None:
    module = distribution.replace("-", "_")
    site.add(
        distribution,
        points={"losses": {"toy": f"{module}:ToyLoss"}},
        modules={f"{module}.py": component(body)},
        **options,
    )


def refreshed(**policy) -> None:
    registry.refresh(Policy.read(**policy))


# Status


def test_a_sound_component_is_ok_and_nothing_of_it_is_imported(site) -> None:
    site.add_loss("lk-a")
    refreshed()
    spec = get("loss", "toy")
    assert (spec.kind, spec.name, spec.class_name, spec.target) == ("loss", "toy", "ToyLoss", "lk_a:ToyLoss")
    assert (spec.provider, spec.version, spec.builtin, spec.status) == ("lk-a", "1.0", False, "ok")
    assert (spec.qualified, spec.summary, spec.problem) == ("lk-a/toy", "A loss of lk-a.", None)
    assert spec.card.encoders == ("dense",)
    assert not site.imported


def test_built_ins_are_marked_and_come_through_the_same_groups() -> None:
    spec = get("loss", "cosent")
    assert (spec.provider, spec.builtin) == ("losskit", True)
    assert spec.version == losskit.__version__


@pytest.mark.parametrize(
    ("body", "requires", "status", "reason", "fix", "line"),
    [
        ("card = Card(citation=TEXT)", [], "broken", "'TEXT' is not a literal", "mend lk_a:ToyLoss", 4),
        ("pass", [], "broken", "ToyLoss has no card", "mend", 3),
        ("card = Card(encoders=['dens'])", [], "broken", "Card.encoders: expected one of dense", "mend", 4),
        ("card = Card(colour='red')", [], "broken", "Card.colour: expected one of formats", "mend", 4),
        ("card = Card(formats=[Format()])", [], "broken", "missing 1 required positional argument", "mend", 4),
        ("card = print(1)", [], "broken", "print(...): expected losskit.Card(...)", "mend", 4),
        ("card = Format(['text'])", [], "broken", "is not Format(...)", "mend", 4),
        ("card = Card(api='1.0')", [], "ok", "", "", None),
        ("card = Card(api='2', future=1)", [], "incompatible", "written for interface 2", "update losskit", 4),
        ("card = Card(api='1.7')", [], "incompatible", "written for interface 1.7", "update losskit", 4),
        ("card = Card(api='0')", [], "incompatible", "written for interface 0", "update the plugin", 4),
        (f"card = Card(formula={'[' * 300}1{']' * 300})", [], "broken", "source does not parse", "mend", 4),
        ("card = Card(api='new')", [], "broken", "api is 'new', not a version", "mend", 4),
        (CARD, ["losskit>=99"], "incompatible", "it needs losskit>=99, 0", "pip install 'losskit>=99'", None),
        (CARD, ["no-such-thing>2"], "missing-dependency", "no-such-thing>2, nothing", "pip install 'no-such", None),
        (CARD, ["pytest>=999"], "missing-dependency", "it needs pytest>=999, ", "pip install 'pytest>=999'", None),
        ("card = Card(requires=['no-such-thing'])", [], "missing-dependency", "no-such-thing", "pip install", None),
        (CARD, ["not a requirement !"], "broken", "'not a requirement !' cannot be read: InvalidReq", "mend", None),
        (CARD, ["pytest", "gone; extra == 'more'", "gone; python_version < '3'"], "ok", "", "", None),
    ],
)  # fmt: skip
def test_status_says_what_is_wrong_and_where(site, body, requires, status, reason, fix, line) -> None:
    add(site, "lk-a", body, requires=requires)
    site.add_loss("lk-good", "good")
    refreshed()
    spec = get("loss", "toy")
    assert spec.status == status
    if status == "ok":
        assert spec.problem is None
        return
    problem = spec.problem
    assert (problem.distribution, problem.version, problem.target) == ("lk-a", "1.0", "lk_a:ToyLoss")
    assert (spec.card is not None) == (status == "missing-dependency")
    assert reason in problem.reason
    assert fix in problem.fix
    assert problem.line == line
    assert (problem.file == str(site.path / "lk_a.py")) if line else problem.file is None
    assert problem in problems()
    assert get("loss", "good").status == "ok"
    assert not site.imported
    with pytest.raises(PluginError, match=f"'toy' of lk-a 1.0 .*{status}"):
        spec.load()
    assert not site.imported


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("lk_a:Gone", "lk_a defines no class Gone"),
        ("lk_gone.deep:ToyLoss", "module lk_gone is not found"),
        ("lk_a.deep:ToyLoss", "lk_a is not a package"),
        ("lk_a", "the target 'lk_a' is not module:Class"),
        ("lk_a:", "is not module:Class"),
        ("json:loads", "json defines no class loads"),
        ("itertools:chain", "has no source"),
    ],
)
def test_targets_that_lead_nowhere_are_broken(site, target, reason) -> None:
    site.add("lk-a", points={"losses": {"toy": target}}, modules={"lk_a.py": "x = 1\n"})
    refreshed()
    assert get("loss", "toy").status == "broken"
    assert reason in get("loss", "toy").problem.reason


def test_a_class_that_another_module_defines_is_followed(site) -> None:
    site.add(
        "lk-a",
        points={"losses": {"toy": "lk_a:Renamed"}},
        modules={"lk_a/__init__.py": "from .deep import ToyLoss as Renamed\n", "lk_a/deep.py": component(CARD)},
    )
    refreshed()
    assert (get("loss", "toy").status, get("loss", "toy").file) == ("ok", str(site.path / "lk_a" / "deep.py"))
    assert name_of(get("loss", "toy").load()) in ("toy", "lk_a.deep:ToyLoss")


def test_entry_points_that_cannot_be_read_stay_one_distributions_problem(site) -> None:
    folder = site.add("lk-a", points={"losses": {"toy": "lk_a:ToyLoss"}})
    (folder / "entry_points.txt").write_text("[losskit.losses]\nno equals sign\n")
    site.add("lk-b", points={"loss": {"toy": "lk_b:ToyLoss"}})
    site.add("lk-c", points={"api": {"train": "lk_c:train"}})
    site.add("lk-d", points={"losses": {"Toy_Loss": "lk_d:ToyLoss"}})
    site.add_loss("lk-good", "good")
    (site.add("lk-e", points={"losses": {"lost": "lk_e:ToyLoss"}}) / "METADATA").unlink()
    refreshed()
    found = {problem.distribution: problem for problem in problems()}
    assert "entry points cannot be read" in found["lk-a"].reason
    assert "there is no entry-point group losskit.loss" in found["lk-b"].reason
    assert "losskit.losses" in found["lk-b"].fix
    assert found["lk-c"].reason == "only losskit itself may fill losskit.api"
    assert found["lk-e"].reason == "it has no METADATA"
    assert found["lk-e"].fix == f"remove {site.path / 'lk_e-1.0.dist-info'}, then pip install lk-e again if you want it"
    assert found["lk-d"].reason == "the name 'Toy_Loss' is not kebab-case"
    assert get("loss", "good").status == "ok"


# Collisions


def test_two_providers_are_ambiguous_and_the_error_lists_both(site) -> None:
    site.add_loss("lk-b", version="2.0")
    site.add_loss("lk-a")
    refreshed()
    assert [(spec.provider, spec.status) for spec in lookup("toy")] == [("lk-a", "ambiguous"), ("lk-b", "ambiguous")]
    with pytest.raises(AmbiguousError) as caught:
        get("loss", "toy")
    said = str(caught.value)
    for text in ("lk-a==1.0", "lk-b==2.0", "lk-a/toy", "lk-b/toy", "[tool.losskit.pins]"):
        assert text in said
    assert get("loss", "lk-a/toy").provider == "lk-a"
    assert get("loss", "LK_B/toy").provider == "lk-b"
    assert get("loss", "lk-b/toy").load().__module__ == "lk_b"


def test_a_loss_and_a_wrapper_share_one_namespace(site) -> None:
    site.add_loss("lk-a")
    site.add("lk-b", points={"wrappers": {"toy": "lk_b:ToyLoss"}}, modules={"lk_b.py": component(CARD)})
    refreshed()
    for kind in ("loss", "wrapper", None):
        with pytest.raises(AmbiguousError, match=r"provided by lk-a==1\.0, lk-b==1\.0"):
            get(kind, "toy")
    assert get("wrapper", "lk-b/toy").provider == "lk-b"


def test_a_name_that_one_distribution_gives_twice_is_for_its_authors_to_mend(site) -> None:
    points = {group: {"toy": "lk_a:ToyLoss"} for group in ("losses", "wrappers")}
    site.add("lk-a", points=points, modules={"lk_a.py": component(CARD)})
    refreshed()
    for reference in ("toy", "lk-a/toy", "loss:toy"):
        with pytest.raises(AmbiguousError) as caught:
            get("loss", reference)
        assert caught.value.fix == "update lk-a, or report it to its authors"


def test_the_pin_that_is_advised_for_an_alias_decides(site) -> None:
    card = CARD.replace("encoders", "aliases=['old-toy'], encoders")
    for distribution in ("lk-a", "lk-b"):
        module = distribution.replace("-", "_")
        points = {"losses": {f"toy-{module[-1]}": f"{module}:ToyLoss"}}
        site.add(distribution, points=points, modules={f"{module}.py": component(card)})
    refreshed()
    with pytest.raises(AmbiguousError) as caught:
        get("loss", "old-toy")
    assert caught.value.fix.endswith('under [tool.losskit.pins]: old-toy = "lk-a"')
    registry.refresh(Policy(pins={"old-toy": ("lk-a", "here")}))
    assert get("loss", "old-toy").name == "toy-a"


def test_the_built_in_stands_unless_a_pin_says_otherwise(site) -> None:
    site.add_loss("lk-a", "cosent", class_name="CoSENTLoss")
    refreshed()
    assert get("loss", "cosent").builtin
    assert get("loss", "CoSENTLoss").builtin
    assert get("loss", "lk-a/cosent").status == "ok"
    registry.refresh(Policy(pins={"cosent": ("lk-a", "here")}))
    assert get("loss", "cosent").provider == "lk-a"
    registry.refresh(Policy(pins={"similarity:cosent": ("lk-a", "here")}))
    assert get("loss", "cosent").builtin


def test_a_pin_decides_and_one_that_leads_nowhere_is_said(site) -> None:
    site.add_loss("lk-a")
    site.add_loss("lk-b")
    registry.refresh(Policy(pins={"loss:toy": ("lk-b", "here")}))
    assert get("loss", "toy").provider == "lk-b"
    assert {spec.status for spec in lookup("toy")} == {"ok"}
    registry.refresh(Policy(pins={"toy": ("lk-c", "pyproject.toml")}))
    with pytest.raises(AmbiguousError):
        get("loss", "toy")
    assert lookup("toy")[0].problem.reason == "pyproject.toml pins the name to lk-c, which does not provide it"
    registry.refresh(Policy(pins={"toy": ("lk-a", "pyproject.toml")}, block={"lk-a": "the environment"}))
    assert lookup("toy")[1].problem.reason == "pyproject.toml pins the name to lk-a, which is blocked"
    with pytest.raises(
        AmbiguousError, match=r"lk-b==1.0, and pinned to lk-a by pyproject.toml. Fix: write lk-b/toy, or"
    ):
        get("loss", "toy")


def test_blocking_one_of_two_leaves_the_other(site) -> None:
    site.add_loss("lk-a")
    site.add_loss("lk-b")
    refreshed(block=["lk-a"])
    assert get("loss", "toy").provider == "lk-b"
    assert [spec.status for spec in lookup("toy")] == ["blocked", "ok"]
    with pytest.raises(PluginError, match="lk-a is blocked by the command line"):
        get("loss", "lk-a/toy").load()


def test_the_same_distribution_twice_on_the_path_is_one(site, tmp_path, monkeypatch) -> None:
    site.add_loss("lk-a")
    other = type(site)(tmp_path / "other")
    other.add_loss("lk_a", version="2.0")
    for order in (str(other.path), str(site.path)):
        monkeypatch.syspath_prepend(order)
        refreshed()
        assert len(lookup("toy")) == 1
    assert get("loss", "toy").version == "1.0"


def test_order_on_the_path_changes_nothing(site, tmp_path, monkeypatch) -> None:
    site.add_loss("lk-b", "toy")
    site.add_loss("lk-d", "other")
    more = type(site)(tmp_path / "more")
    more.add_loss("lk-a", "toy")
    more.add_loss("lk-c", "other")
    seen = []
    for folders in ((site, more), (more, site)):
        for folder in folders:
            monkeypatch.syspath_prepend(str(folder.path))
        refreshed()
        seen.append((find(), problems()))
    assert seen[0] == seen[1]


# References


def test_references(site) -> None:
    source = component("card = Card(formats=[Format(['text'])], aliases=['old-toy'])")
    site.add("lk-a", points={"losses": {"toy": "lk_a:ToyLoss"}}, modules={"lk_a.py": source})
    site.add("lk-b", points={"losses": {"old-toy": "lk_b:ToyLoss2"}}, modules={"lk_b.py": component(CARD, "ToyLoss2")})
    refreshed()
    for reference in ("toy", "loss:toy", "lk-a/toy", "loss:lk-a/toy", "ToyLoss"):
        assert get("loss", reference).qualified == "lk-a/toy"
        assert get(None, reference).qualified == "lk-a/toy"
    assert get("loss", "old-toy").qualified == "lk-b/old-toy"
    refreshed(block=["lk-b"])
    assert get("wrapper", "matryoshka") == get("loss", "matryoshka") == get(None, "wrapper:matryoshka")
    with pytest.raises(NotFoundError, match="expected a loss, got a similarity"):
        get("loss", "similarity:cosine")


def test_an_alias_answers_where_no_name_does(site) -> None:
    add(site, "lk-a", "card = Card(formats=[Format(['text'])], aliases=['older-toy'])")
    refreshed()
    assert get("loss", "older-toy").name == "toy"


def test_one_name_in_two_kinds_needs_its_kind(site) -> None:
    site.add("lk-a", points={"similarities": {"cosent": "lk_a:ToyLoss"}}, modules={"lk_a.py": component(CARD)})
    refreshed()
    with pytest.raises(AmbiguousError, match="loss:cosent, similarity:cosent"):
        get(None, "cosent")
    assert get(None, "similarity:cosent").provider == "lk-a"
    assert get("loss", "cosent").builtin


CACHED = "with execution {name: grad-cache, mini_batch_size: 32}"


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("cosnt", "did you mean 'cosent'"),
        ("lk-none/cosent", "did you mean"),
        ("CachedMultipleNegativesRankingLoss", f"write multiple-negatives-ranking {CACHED}"),
        ("cached-multiple-negatives-ranking", f"write multiple-negatives-ranking {CACHED}"),
        ("CachedMultiVectorMultipleNegativesRankingLoss", f"{CACHED}; every loss can be cached; a loss works with"),
        ("SparseCoSENTLoss", "write cosent; a loss works with every encoder that its card names"),
        ("SparseNothingLoss", "losskit list"),
        ("zzz", "losskit list"),
        ("no_such_module:Class", "module no_such_module is not found"),
        ("json:NoClass", "json defines no class NoClass"),
        ("gone/file.py:Class", "there is no file gone/file.py"),
    ],
)
def test_a_miss_says_what_to_write(reference, said) -> None:
    with pytest.raises(NotFoundError) as caught:
        get("loss", reference)
    assert said in str(caught.value)
    assert isinstance(caught.value, LookupError)


def test_code_is_referred_to_by_its_target(site, home) -> None:
    add(site, "lk-a", CARD)
    (home / "work" / "mine.py").write_text(component("pass", "Mine") + component(CARD, "Yours"))
    refreshed()
    registered = get("loss", "lk_a:ToyLoss")
    assert (registered.card.encoders, registered.qualified) == (("dense",), "lk_a:ToyLoss")
    mine, yours = get("loss", "mine.py:Mine"), get("loss", "mine.py:Yours")
    assert (mine.card, mine.status, yours.card.encoders) == (None, "ok", ("dense",))
    assert not site.imported
    cls = mine.load()
    assert (cls.__name__, mine.load()) == ("Mine", cls)
    assert name_of(cls) == f"{home / 'work' / 'mine.py'}:Mine"
    assert get("loss", name_of(cls)).load() is cls
    assert pickle.loads(pickle.dumps(cls)) is cls


@pytest.mark.parametrize("path", ["./mine.py", "../work/mine.py", "a folder: b/mine.py"])
def test_files_are_found_by_any_path(home, path) -> None:
    file = home / "work" / path
    file.parent.mkdir(exist_ok=True)
    file.write_text(
        component(CARD, "Base") + "\n    def __init__(self, scale: float = 1.0): ...\n\nclass Mine(Base): ...\n"
    )
    mine = get("loss", f"{path}:Mine")
    assert (mine.status, [option.name for option in mine.options]) == ("ok", ["scale"])
    assert mine.card is not None
    assert mine.load().__name__ == "Mine"


def test_a_file_alone_means_the_one_class_with_a_card_in_it(home) -> None:
    file = home / "work" / "mine.py"
    file.write_text(component("pass", "Base") + component(CARD, "Mine"))
    mine = get("loss", "mine.py")
    assert (mine.name, mine.target, mine.class_name) == ("mine.py", "mine.py:Mine", "Mine")
    assert mine.load().__name__ == "Mine"
    file.write_text(component(CARD, "Mine") + component(CARD, "Yours"))
    registry.refresh()
    with pytest.raises(NotFoundError, match=r"classes with a card: Mine, Yours. Fix: write mine.py:Class"):
        get("loss", "mine.py")
    file.write_text("")
    registry.refresh()
    with pytest.raises(NotFoundError, match="the file defines no class with a card"):
        get("loss", "mine.py")
    with pytest.raises(NotFoundError, match=r"there is no file no\.py"):
        get("loss", "no.py")


def test_is_target() -> None:
    assert [is_target(text) for text in ("cosent", "loss:cosent", "a/b", "a.b:C", "x/y.py:C", "C:/x.py:D", "x.py")] == [
        False, False, False, True, True, True, True,
    ]  # fmt: skip


def test_name_of_is_the_name_or_the_qualified_one_or_the_target(site) -> None:
    site.add_loss("lk-a", "toy")
    site.add_loss("lk-b", "cosent")
    refreshed()
    assert name_of(get("loss", "toy").load()) == "toy"
    assert name_of(get("loss", "lk-b/cosent").load()) == "lk-b/cosent"
    assert name_of(get("loss", "cosent").load()) == "cosent"
    assert name_of(threading.Thread) == "threading:Thread"


# Finding


def test_find_filters(site) -> None:
    source = component("""card = Card(encoders=["sparse"], formats=[
        Format(["anchor", "positive", "negative*"]), Format(["text", "text"], labels="score")])""")
    site.add("lk-a", points={"losses": {"toy": "lk_a:ToyLoss"}}, modules={"lk_a.py": source})
    add(site, "lk-b", "card = 1", version="2")
    refreshed()

    def found(**filters) -> bool:
        return "lk-a/toy" in [spec.qualified for spec in find(**filters)]

    assert found(kind="loss", encoder="sparse", provider="LK_A", status="ambiguous")
    assert not found(status="ok")
    assert found(inputs=["anchor", "positive"])
    assert found(inputs=["anchor", "positive", "negative", "negative"])
    assert found(inputs=("text", "text"), labels="score")
    assert found(labels="none")
    assert not found(inputs=["text", "text"], labels="none")
    assert not found(inputs=["anchor"])
    assert not found(inputs=["positive", "anchor"])
    assert not found(kind="wrapper")
    assert not found(encoder="dense")
    assert found(search="TOYL")
    assert found(search="t?y")
    assert not found(search="nothing")


def test_find_lists_by_kind_and_name() -> None:
    specs = find()
    assert [(KINDS.index(spec.kind), spec.name) for spec in specs] == sorted(
        (KINDS.index(spec.kind), spec.name) for spec in specs
    )


@pytest.mark.parametrize(
    ("filters", "said"),
    [
        ({"kind": "los"}, "kind: expected one of loss, .* got 'los'. Fix: did you mean 'loss'"),
        ({"encoder": "dens"}, "did you mean 'dense'"),
        ({"labels": "scor"}, "did you mean 'score' or 'scores'"),
        ({"status": "fine"}, "expected one of ok, missing-dependency"),
        ({"inputs": ["ancor"]}, "inputs: .*did you mean 'anchor'"),
    ],
)
def test_find_refuses_values_that_nothing_can_have(filters, said) -> None:
    with pytest.raises(RecipeError, match=said):
        find(**filters)


# Loading


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("raise RuntimeError('boom')", "RuntimeError: boom at import.*Fix: report it to the authors of lk-a"),
        ("import sys; sys.exit(3)", "SystemExit: 3 at import"),
        ("import no_such_module", "ModuleNotFoundError.*Fix: pip install the distribution that provides 'no_such_mod"),
        ("ToyLoss = 3", "got int 3"),
        ("ToyLoss.card = None", "got the card None"),
        ("del ToyLoss", "AttributeError"),
    ],
)
def test_loading_what_fails_names_distribution_version_and_target(site, source, said) -> None:
    module = component(CARD) + source + "\n"
    site.add("lk-a", "1.5", points={"losses": {"toy": "lk_a:ToyLoss"}}, modules={"lk_a.py": module})
    refreshed()
    spec = get("loss", "toy")
    assert spec.status == "ok"
    with pytest.raises(PluginError, match=said) as caught:
        spec.load()
    assert str(caught.value).startswith("loss 'toy' of lk-a 1.5 (lk_a:ToyLoss): expected a class with a card, got ")
    assert caught.value.exit_code == 3


def test_loading_from_many_threads_gives_one_class(site) -> None:
    module = "import time; time.sleep(0.05)\n" + component(CARD)
    site.add("lk-a", points={"losses": {"toy": "lk_a:ToyLoss"}}, modules={"lk_a.py": module})
    refreshed()
    with ThreadPoolExecutor(8) as pool:
        classes = set(pool.map(lambda _: get("loss", "toy").load(), range(32)))
    assert len(classes) == 1
    assert (site.path / "imported").read_text().split() == ["lk_a"]


def test_provenance_hashes_the_file(site) -> None:
    from hashlib import sha256

    add(site, "lk-a", CARD)
    refreshed()
    file = site.path / "lk_a.py"
    assert get("loss", "toy").provenance() == {
        "distribution": "lk-a",
        "version": "1.0",
        "file": str(file),
        "sha256": sha256(file.read_bytes()).hexdigest(),
    }


# The namespace of classes


def test_losses_are_reached_by_their_class_names(site) -> None:
    site.add_loss("lk-a", "first")
    site.add_loss("lk-b", "twin-one", class_name="TwinLoss")
    site.add_loss("lk-c", "twin-two", class_name="TwinLoss")
    site.add("lk-d", points={"losses": {"bad": "lk_d:BadLoss"}}, modules={"lk_d.py": component("card = 1", "BadLoss")})
    refreshed()
    assert "BadLoss" not in dir(losskit.losses)
    assert {"ToyLoss", "MatryoshkaLoss", "CoSENTLoss"} <= set(dir(losskit.losses))
    assert not site.imported
    assert losskit.losses.ToyLoss.__module__ == "lk_a"
    from losskit.losses import MatryoshkaLoss

    assert MatryoshkaLoss is get("wrapper", "matryoshka").load()
    with pytest.raises(AttributeError, match="did you mean 'CoSENTLoss'"):
        _ = losskit.losses.CoSENTLos
    with pytest.raises(AmbiguousError):
        _ = losskit.losses.TwinLoss
    assert not hasattr(losskit.losses, "__wrapped__")


def test_what_is_wrong_with_a_file_is_said_without_a_distribution(home) -> None:
    Path("deep.py").write_text("class A:\n    card = " + "(" * 3000)
    assert str(get("loss", "deep.py:A").problem).startswith("deep.py:A: broken: source does not parse: ")
    Path("large.py").write_text("#" * (3 << 20))
    with pytest.raises(NotFoundError, match=r"more than 2 MB\. Fix: move what is registered into a module without"):
        get("loss", "large.py:A")


@pytest.mark.parametrize("reference", ["x\n", "Cached\ny", "x" * 100_000, ""], ids=len)
def test_no_name_is_too_odd_to_be_missed(reference) -> None:
    with pytest.raises(NotFoundError, match="no loss is named") as caught:
        get("loss", reference)
    assert len(str(caught.value)) < 400


def test_a_file_is_another_one_in_another_folder(home, monkeypatch) -> None:
    for folder in ("first", "second"):
        Path(folder).mkdir()
        Path(folder, "mine.py").write_text(f'class Mine:\n    """Of the {folder}."""\n')
    found = []
    for folder in ("first", "second"):
        with monkeypatch.context() as there:
            there.chdir(folder)
            found.append(registry.get("loss", "mine.py:Mine").summary)
    assert found == ["Of the first.", "Of the second."]
