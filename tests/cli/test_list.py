from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import pytest

KEYS = [
    "kind", "name", "class", "target", "provider", "version", "builtin", "status", "summary", "formats", "encoders",
    "options",
]  # fmt: skip
PROBLEM = ["distribution", "version", "target", "status", "reason", "fix", "file", "line"]


def on_terminal(site, *arguments: str, columns: int = 80, **environment: str) -> str:
    """What the command writes to a terminal so many columns wide."""
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    variables = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES", "NO_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "-m", "losskit_cli", *arguments],
        env={**variables, "PYTHONPATH": str(site.path), "TERM": "xterm-256color", **environment},
        stdin=child,
        stdout=child,
        stderr=subprocess.DEVNULL,
    )
    os.close(child)
    written = b""
    while True:
        try:
            chunk = os.read(parent, 65536)
        except OSError:  # how Linux says that the other end is closed
            break
        if not chunk:
            break
        written += chunk
    os.close(parent)
    process.wait()
    return written.decode().replace("\r\n", "\n")


def unstyled(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def spoil(site) -> None:
    """Every kind of package that can go wrong, beside a sound one."""
    card = "card = losskit.Card(formats=[losskit.Format(['text'])])"
    site.add_loss("lk-good", "good")
    site.add_loss("lk-missing", "missing", requires=["no-such-thing>=2"])
    site.add_loss("lk-new", "new", requires=["losskit>=99"])
    site.add_loss("lk-one", "twice")
    site.add_loss("lk-two", "twice", version="2.0")
    for name, body in {
        "lk-computed": "TEXT = ''\nclass A:\n    card = losskit.Card(citation=TEXT)",
        "lk-future": "class A:\n    card = losskit.Card(api='7', unheard_of=True)",
        "lk-raise": f"class A:\n    {card}\nraise RuntimeError('boom')",
        "lk-exit": f"class A:\n    {card}\nimport sys; sys.exit(0)",
        "lk-hang": f"class A:\n    {card}\nimport time; time.sleep(600)",
    }.items():
        module = name.replace("-", "_")
        points = {"losses": {name.removeprefix("lk-"): f"{module}:A"}}
        site.add(name, points=points, modules={f"{module}.py": f"import losskit\n{body}\n"})


def test_json_has_the_shape_of_the_contracts(losskit) -> None:
    result = losskit("list", "--json")
    assert (result.returncode, result.stderr) == (0, "")
    listed = json.loads(result.stdout)
    assert list(listed) == ["schema", "components", "problems"]
    assert (listed["schema"], listed["problems"]) == (1, [])
    assert all(list(item) == KEYS for item in listed["components"])
    found = {item["name"]: item for item in listed["components"]}
    cosent = found["cosent"]
    assert (cosent["kind"], cosent["class"], cosent["builtin"], cosent["status"]) == ("loss", "CoSENTLoss", True, "ok")
    assert cosent["formats"] == [{"inputs": ["text", "text"], "labels": "score"}]
    assert cosent["options"]["scale"] == {"type": "float", "default": 20.0, "required": False, "choices": []}
    assert found["matryoshka"]["options"]["dims"]["required"] is True
    assert found["list-net"]["options"]["activation"]["choices"] == ["identity", "sigmoid", "tanh", "relu"]


@pytest.mark.parametrize("columns", ["20", "80", "1000"])
def test_json_is_the_same_at_every_width_and_never_styled(losskit, site, columns) -> None:
    site.add_loss("lk-long", "a-name-that-is-much-longer-than-twenty-columns")
    plain = losskit("list", "--json").stdout
    result = losskit("list", "--json", COLUMNS=columns, FORCE_COLOR="1", TERM="xterm-256color")
    assert result.stdout == plain
    assert "\x1b" not in plain
    shown = on_terminal(site, "list", "--json", columns=20)
    assert json.loads(shown) == json.loads(plain)


def test_what_is_wrong_is_said_with_which_distribution_and_nothing_is_imported(losskit, site) -> None:
    spoil(site)
    result = losskit("list", "--json")
    assert result.returncode == 0
    listed = json.loads(result.stdout)
    statuses = {(item["provider"], item["name"]): item["status"] for item in listed["components"]}
    assert statuses["lk-good", "good"] == "ok"
    assert statuses["lk-missing", "missing"] == "missing-dependency"
    assert statuses["lk-new", "new"] == statuses["lk-future", "future"] == "incompatible"
    assert statuses["lk-one", "twice"] == statuses["lk-two", "twice"] == "ambiguous"
    assert statuses["lk-computed", "computed"] == "broken"
    assert statuses["lk-raise", "raise"] == statuses["lk-exit", "exit"] == statuses["lk-hang", "hang"] == "ok"
    assert statuses["losskit", "cosent"] == "ok"
    assert all(list(problem) == PROBLEM for problem in listed["problems"])
    problems = {problem["distribution"]: problem for problem in listed["problems"]}
    assert set(problems) == {"lk-missing", "lk-new", "lk-future", "lk-one", "lk-two", "lk-computed"}
    assert problems["lk-computed"]["file"] == str(site.path / "lk_computed.py")
    assert problems["lk-computed"]["line"] == 5
    assert "lk-two==2.0" in problems["lk-one"]["reason"]
    text = losskit("list")
    assert text.returncode == 0
    for distribution, problem in problems.items():
        assert f"{distribution}=={problem['version']}" in text.stderr
        assert problem["status"] in text.stdout
    for arguments in (["show", "raise"], ["show", "twice"], ["show", "computed"], ["doctor"], ["--help"]):
        losskit(*arguments)
    assert not site.imported


def test_order_of_the_path_and_hash_seed_change_nothing(losskit, site, tmp_path) -> None:
    spoil(site)
    other = type(site)(tmp_path / "other")
    other.add_loss("aa-first", "twice")
    paths = [str(site.path), str(other.path)]
    outputs = {
        losskit("list", "--json", PYTHONPATH=os.pathsep.join(order), PYTHONHASHSEED=seed).stdout
        for order, seed in ((paths, "0"), (paths[::-1], "1"), (paths, "2"))
    }
    assert len(outputs) == 1
    assert '"aa-first"' in outputs.pop()


def test_a_pipe_gets_one_line_per_component_and_format_with_tabs(losskit) -> None:
    lines = losskit("list", COLUMNS="20").stdout.splitlines()
    assert lines[0] == "KIND\tNAME\tINPUTS\tLABELS\tENCODERS\tPROVIDER\tSTATUS"
    assert "loss\tcosent\ttext text\tscore\tdense sparse multi-vector\tlosskit\tok" in lines
    assert {line.count("\t") for line in lines} == {6}
    assert "\x1b" not in "".join(lines)


def test_a_terminal_of_80_columns_gets_a_table_that_fits(losskit, site) -> None:
    spoil(site)
    shown = on_terminal(site, "list")
    assert "\x1b[" in shown
    lines = unstyled(shown).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == ["name", "inputs", "labels", "encoders", "provider", "status"]
    for name in ("negatives-", "missing-", "cross-encoder", "lk-computed"):
        assert any(name in line.split() for line in lines)
    assert "wrapper" in (line.strip() for line in lines)
    assert "\x1b[" not in on_terminal(site, "list", NO_COLOR="1").replace("\x1b[0m", "").replace("\x1b[1m", "")
    assert max(map(len, unstyled(on_terminal(site, "list", columns=20)).splitlines())) <= 20


def test_what_a_card_says_cannot_style_or_steer_the_terminal(losskit, site) -> None:
    source = (
        "import losskit\nclass A:\n    '''[bold red]\\x1b[31mred\\x07 \\u202eevil[/] :boom: \\ttab'''\n"
        "    card = losskit.Card(formats=[losskit.Format(['text'])], formula='[link=x]\\x1b]0;title\\x07')\n"
        "    def __init__(self, model=None, text='[red]\\x1b[2J'): ...\n"
    )
    site.add("lk-a", points={"losses": {"evil": "lk_a:A"}}, modules={"lk_a.py": source})
    for output in (losskit("show", "evil").stdout, on_terminal(site, "show", "evil", NO_COLOR="1")):
        assert not set(re.findall(r"[\x00-\x08\x0b-\x1f\u202e]", re.sub(r"\x1b\[[01]m", "", output)))
        assert "[bold red]" in output
        assert "[link=x]" in output
        assert ":boom:" in output
    assert json.loads(losskit("show", "evil", "--json").stdout)["components"][0]["summary"].startswith("[bold red]\x1b")


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["--kind", "weighting"], {"lambda-rank", "ndcg-loss1", "ndcg-loss2", "ndcg-loss2pp", "no-weighting"}),
        (["--inputs", "text,text", "--labels", "score"], {"cosent"}),
        (["--inputs", "query documents", "--labels", "scores"], {"distill-kl-div", "list-net", "margin-mse"}),
        (["--search", "cosent"], {"cosent"}),
        (["--provider", "lk-a"], {"toy"}),
        (["--encoder", "cross-encoder", "--kind", "encoder"], {"cross-encoder", "mlp"}),
        (["--status", "ok", "--search", "toy"], {"toy"}),
    ],
)
def test_filters(losskit, site, arguments, names) -> None:
    site.add_loss("lk-a")
    result = losskit("list", *arguments, "--json")
    assert {item["name"] for item in json.loads(result.stdout)["components"]} >= names
    if "--inputs" not in arguments or "--provider" in arguments:
        assert {item["name"] for item in json.loads(result.stdout)["components"]} == names


def test_nothing_matched_exits_with_4(losskit) -> None:
    result = losskit("list", "--search", "no-such-thing-at-all")
    assert (result.returncode, result.stdout, result.stderr) == (4, "", "nothing matched\n")
    result = losskit("list", "--search", "no-such-thing-at-all", "--json")
    assert (result.returncode, json.loads(result.stdout)["components"]) == (4, [])


def test_strict_exits_with_1_on_problems_but_not_for_what_is_blocked(losskit, site) -> None:
    site.add_loss("lk-a")
    assert losskit("list", "--strict").returncode == 0
    assert losskit("list", "--strict", "--block", "lk-a").returncode == 0
    site.add_loss("lk-b", "other", requires=["no-such-thing"])
    assert losskit("list", "--strict").returncode == 1
    assert losskit("list", "--strict", "--block", "lk-b").returncode == 0


def test_generated_components_appear_only_with_load(losskit, site) -> None:
    source = """
import losskit
class Made:
    card = losskit.Card(formats=[losskit.Format(["text"])])
@losskit.hookimpl
def losskit_components():
    return [("loss", "made", "lk_a:Made")]
"""
    site.add("lk-a", points={"hooks": {"x": "lk_a"}}, modules={"lk_a.py": source})
    site.add("lk-b", points={"hooks": {"x": "lk_b"}}, modules={"lk_b.py": "raise RuntimeError('boom')"})
    assert "made" not in losskit("list").stdout
    assert not site.imported
    result = losskit("list", "--load", "--json")
    listed = json.loads(result.stdout)
    assert "made" in {item["name"] for item in listed["components"]}
    assert [(item["distribution"], item["reason"]) for item in listed["problems"]] == [
        ("lk-b", "loading it raises RuntimeError: boom")
    ]
