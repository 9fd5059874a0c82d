"""Writes the pages of docs/reference from the code: components, combinations, recipe, command line, checks.

python docs/generate.py            write them
python docs/generate.py --check    exit 1, with a diff, if one is out of date
"""

from __future__ import annotations

import difflib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import losskit
from losskit.card import KINDS
from losskit.recipe import Recipe
from losskit_cli.app import COMMANDS

REFERENCE = Path(__file__).parent / "reference"
MEASURED = Path(__file__).parent / "measurements"
HELPERS = Path(__file__).parents[1] / "tests" / "helpers"
PLURALS = {"loss": "Losses", "wrapper": "Wrappers", "regularizer": "Regularizers", "weighting": "Weightings",
           "similarity": "Similarities", "encoder": "Encoders"}  # fmt: skip


def components() -> Iterator[str]:
    """Every built-in component with what its card says."""
    yield "# Components\n"
    yield "What comes with losskit. `losskit show NAME` prints the same, of plugins too.\n"
    for kind in KINDS:
        specs = [spec for spec in losskit.find(kind, provider="losskit") if spec.kind == kind]
        if specs:
            yield f"## {PLURALS[kind]}\n"
        for spec in specs:
            yield from _component(spec)


def _component(spec: losskit.Spec) -> Iterator[str]:
    card = spec.card
    assert card is not None
    yield f"### {spec.name}\n"
    yield f"`{spec.class_name}`. {spec.summary}\n"
    if card.formula:
        yield f"```text\n{card.formula}\n```\n"
    for each in card.formats:
        yield f"* data: {', '.join(f'`{name}`' for name in each.inputs)}, labels `{each.labels}`"
    if card.encoders:
        yield f"* encoders: {', '.join(card.encoders)}"
    if spec.kind in ("loss", "wrapper"):
        yield f"* memory beyond its inputs: {card.memory}"
    for sentence in (*card.requirements, *card.relations):
        yield f"* {sentence}"
    if spec.options:
        yield "\n| option | type | default |\n|---|---|---|"
    for option in spec.options:
        default = "required" if option.required else f"`{option.default!r}`"
        values = " or ".join(map(repr, option.choices)) or option.type
        yield f"| `{option.name}` | {_code(values)} | {default} |"
    if card.citation:
        yield f"\n```bibtex\n{card.citation.strip()}\n```"
    yield ""


def combinations() -> Iterator[str]:
    """Which losses work under which wrappers and executions, from the list that the tests run."""
    sys.path.insert(0, str(HELPERS))
    from matrix import COMBINATIONS, EXECUTIONS, LOSSES, WRAPPERS

    reasons = list(dict.fromkeys(each.refused for each in COMBINATIONS if each.refused))
    cells = {
        (each.loss, each.wrapper): f"no ({reasons.index(each.refused) + 1})" if each.refused else "yes"
        for each in COMBINATIONS
    }
    yield "# Combinations\n"
    yield "Which losses work alone and under which wrappers, with the options they require: on a dense encoder, and"
    yield "on a cross-encoder those that take no other, which cannot be gathered."
    yield "*Yes* means: under each of these executions, with the value and the gradient that `Direct()` gives, to 1e-10"
    yield "in float64.\n"
    yield from (f"* {name}: `{execution!r}`" for name, execution in EXECUTIONS.items())
    yield "\n*No* means that building it raises, and why. `tests/plugins/test_matrix.py` runs this list;"
    yield "`tests/core/test_distributed.py` runs all that works in two processes, whose gradient is that of one on the"
    yield "joined batch.\n"
    yield f"| loss | alone | {' | '.join(WRAPPERS)} |"
    yield f"|---|{'---|' * (len(WRAPPERS) + 1)}"
    for loss in LOSSES:
        yield f"| {loss} | {' | '.join(cells[loss, wrapper] for wrapper in ('', *WRAPPERS))} |"
    yield ""
    yield from (f"({number}) {reason}.\n" for number, reason in enumerate(reasons, 1))


def recipe() -> Iterator[str]:
    """The sections of a recipe and their keys, from the JSON schema."""
    schema = Recipe.schema()
    yield "# Recipe\n"
    yield "Every key of a recipe. `losskit train --schema` prints the same as JSON schema;"
    yield "[the concept](../concepts/recipes.md) has examples.\n"
    yield from _section("Top", schema)
    for name, section in sorted(schema["$defs"].items()):
        yield from _section(name, section)


def _section(name: str, section: dict[str, Any]) -> Iterator[str]:
    yield f"## {name}\n"
    if section.get("description"):
        yield f"{section['description'].splitlines()[0]}\n"
    yield "| key | type | default | meaning |\n|---|---|---|---|"
    for key, entry in section["properties"].items():
        default = "required" if key in section.get("required", ()) else f"`{_default(entry)}`"
        yield f"| `{key}` | {_type(entry)} | {default} | {_cell(entry.get('description', ''))} |"
    yield ""


def _default(entry: dict[str, Any]) -> str:
    if "default" in entry:
        value = entry["default"]
        return "{}" if isinstance(value, dict) else json.dumps(value)
    return {"object": "{}", "array": "[]"}[entry["type"]]


def _type(entry: dict[str, Any]) -> str:
    if "$ref" in entry:
        name = entry["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in entry:
        return " or ".join(dict.fromkeys(_type(each) for each in entry["anyOf"]))
    if "enum" in entry:
        return " or ".join(f"`{value}`" for value in entry["enum"])
    if entry.get("type") == "array":
        return f"list of {_type(entry['items'])}" if entry.get("items") else "list"
    if entry.get("type") == "object" and isinstance(entry.get("additionalProperties"), dict):
        return f"map of {_type(entry['additionalProperties'])}"
    return {"object": "map", "null": "null"}.get(entry.get("type", ""), entry.get("type", "anything"))


def _code(text: str) -> str:
    return f"`{_cell(text)}`" if text else ""


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def commands() -> Iterator[str]:
    """The help of the command line."""
    yield "# Command line\n"
    yield "What `losskit --help` and `losskit COMMAND --help` print. Exit codes are"
    yield "in [Policy and provenance](../concepts/policy.md#exit-codes).\n"
    yield f"## losskit\n\n```text\n{_help()}\n```\n"
    for name in COMMANDS:
        yield f"## losskit {name}\n\n```text\n{_help(name)}\n```\n"


def _help(*arguments: str) -> str:
    environment = {**os.environ, "COLUMNS": "80", "NO_COLOR": "1", "TERM": "dumb"}
    done = subprocess.run(
        [sys.executable, "-m", "losskit_cli", "--no-plugins", *arguments, "--help"],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return "\n".join(line.rstrip() for line in done.stdout.strip().splitlines())


def costs() -> Iterator[str]:
    """Time and memory of each loss beside its original, as last measured."""
    yield "# Costs\n"
    yield "Time and memory of losses beside sentence-transformers 6.2: forward and backward, float32, one thread and"
    yield "its processor's time, in turns in one process, medians. The ratio is the median of ours over the original's."
    yield "Memory is the peak above the inputs in a fresh process, the gradients included; below a megabyte it counts"
    yield "pages.\n"
    yield "## Losses on embeddings\n"
    yield "The loss stage, on embeddings of 384 dimensions. An empty cell was not measured, mostly as the original"
    yield "would take more than a minute or 12 GB. `tests/benchmarks/bench_losses.py` measures it.\n"
    yield from _measured(MEASURED / "losses.json", "batch", "{loss} at {batch:,}", "loss")
    yield "\n## Losses on scores\n"
    yield "32 queries with lists from half to the full number of documents. With the model *scores* a table of scores"
    yield "takes the place of the encoder, so that the loss stage alone is measured; with *cross-encoder* two layers of"
    yield "width 32 read 16 tokens per pair. Neither library tokenises."
    yield "*256 pairs at a time* is the original's `mini_batch_size`, which keeps the graphs of all chunks, beside"
    yield "gradient caching, which keeps one and has every forward twice."
    yield "`tests/benchmarks/bench_ranking.py` measures it.\n"
    yield from _measured(
        MEASURED / "ranking.json", "documents", "{loss} on {model}, {documents} documents", "loss", "model"
    )
    yield "\n## Sparse models\n"
    yield "The vocabulary head on 30,522 terms (its input is what a transformer of width 384 puts out); the penalties"
    yield "and the `splade` wrapper on embeddings of 30,522 terms; the `csr` wrapper and its reconstruction on 1,536"
    yield "latents."
    yield "`tests/benchmarks/bench_sparse.py` measures it.\n"
    yield from _measured(MEASURED / "sparse.json", "batch", "{case} at {batch:,}", "case")
    yield "\n## Late interaction\n"
    yield "Losses over MaxSim of queries of 32 tokens and documents of 64 to 128, of 128 dimensions."
    yield "`tests/benchmarks/bench_multi_vector.py` measures it.\n"
    yield from _measured(MEASURED / "multi_vector.json", "batch", "{case} at {batch:,}", "case")

    yield "\n## Validation\n"
    yield "Seconds that a default `losskit validate` takes after its imports, on one thread, over the built-in"
    yield "components on all their encoders and formats. `tests/benchmarks/bench_validate.py` measures it.\n"
    yield "| kind | median | slowest | |\n|---|--:|--:|---|"
    summary = json.loads((MEASURED / "validate.json").read_text(encoding="utf-8"))["summary"]
    for kind, found in summary.items():
        yield f"| {kind} | {found['median']:.1f} | {found['slowest']:.1f} | {found['name']} |"


def _measured(path: Path, size: str, called: str, *names: str) -> Iterator[str]:
    """The summary and the table of a file of figures.

    Args:
        path: of the figures.
        size: which entry of a line is how much was measured on.
        called: how a line is named.
        names: the entries that stand before the size.
    """
    rows = json.loads(path.read_text(encoding="utf-8"))
    for what, key in (("speed", "ratio"), ("memory", "share")):
        shares = [share for each in rows if (share := _share(each, key))]
        if shares:
            yield f"* geometric mean of the {what}: {_mean_share(shares, key)}"
    slower = [called.format_map(each) for each in rows if each.get("slower")]
    yield f"* slower than 1.05 times the original: {'; '.join(slower) or 'none'}\n"
    yield f"| {' | '.join((*names, size))} | original ms | ours ms | ratio | original MB | ours MB |"
    yield f"|---|{'---|' * (len(names) - 1)}--:|--:|--:|--:|--:|--:|"
    for each in rows:
        cells = [_figure(each.get(key)) for key in ("original_ms", "ours_ms", "ratio", "original_mb", "ours_mb")]
        yield f"| {' | '.join([*(each[key] for key in names), f'{each[size]:,}', *cells])} |"


def _share(row: dict[str, Any], key: str) -> float | None:
    if key == "ratio":
        return row.get("ratio")
    return max(row["ours_mb"], 0.1) / max(row["original_mb"], 0.1) if "original_mb" in row else None


def _mean_share(shares: list[float], key: str) -> str:
    mean = statistics.geometric_mean(shares)
    said = f"{1 / mean:.2f} times the original's" if key == "ratio" else f"{mean:.2f} of the original's"
    return f"{said}, over {len(shares)} lines"


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def checks() -> Iterator[str]:
    """Every check of a validation, from the laws themselves."""
    from losskit.testing.catalogue import ALL
    from losskit.validation import LEVELS, importing
    from losskit.validation.static import STATIC

    yield "# Checks\n"
    yield "What `losskit validate` looks for, level by level. A card's `deviations` and the option `--select` name"
    yield "checks by these ids; the numbers are those of the [laws](../concepts/validation.md#laws)."
    for level in LEVELS:
        rows: list[tuple[str, int | None, Sequence[str], Callable[..., Any], str]] = []
        if level == "static":
            rows += [(each.id, None, KINDS, each.verify, each.cause) for each in STATIC]
        if level == "interface":
            rows += [("import", None, KINDS, importing.import_check, importing.CAUSE)]
        rows += [(law.id, law.number, law.kinds, law.verify, law.cause) for law in ALL if law.level == level]
        yield f"\n## {level}\n"
        yield "| check | law | of | looks for | what usually fails it |\n|---|--:|---|---|---|"
        for name, number, kinds, verify, cause in rows:
            says = (verify.__doc__ or "").splitlines()[0]
            yield f"| `{name}` | {number or ''} | {_kinds(kinds)} | {_cell(says)} | {_cell(cause)} |"
    yield "\n## Plain modules\n"
    yield "These cannot apply to an `nn.Module` that is no `losskit.Loss`:\n"
    for reason in dict.fromkeys(law.plain for law in ALL if law.plain):
        yield f"* {', '.join(f'`{law.id}`' for law in ALL if law.plain == reason)}: {_cell(reason)}."


def _kinds(kinds: Sequence[str]) -> str:
    missing = [PLURALS[kind].lower() for kind in KINDS if kind not in kinds]
    if len(missing) < 2:
        return f"all but {missing[0]}" if missing else "all"
    return ", ".join(PLURALS[kind].lower() for kind in KINDS if kind in kinds)


PAGES: dict[str, Callable[[], Iterator[str]]] = {
    "components.md": components,
    "combinations.md": combinations,
    "costs.md": costs,
    "recipe.md": recipe,
    "commands.md": commands,
    "checks.md": checks,
}


def main() -> int:
    """Write or check every page."""
    check = sys.argv[1:] == ["--check"]
    stale = 0
    for name, page in PAGES.items():
        path = REFERENCE / name
        old = path.read_text(encoding="utf-8") if path.exists() else ""
        new = "\n".join(page()).rstrip() + "\n"
        if check and new != old:
            stale = 1
            diff = difflib.unified_diff(old.splitlines(True), new.splitlines(True), str(path), "generated")
            sys.stdout.writelines(diff)
        elif not check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(new, encoding="utf-8")
    if stale:
        sys.stdout.write("\nOut of date: run docs/generate.py\n")
    return stale


if __name__ == "__main__":
    sys.exit(main())
