"""Laws of refusal: what cannot be right is an error, and never a number."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..building import build
from ..card import Format
from ..clock import Clock
from ..errors import LosskitError, NotFoundError, brief
from ..loss import Loss, Value
from ..output import Output
from ..registry import get, name_of
from ..spec import given_in_code
from .compare import Violation, total
from .law import IN_LOSSES, NotApplicable, law
from .stage import all_rows
from .subject import Subject

__all__ = ["options", "refusals"]

UNKNOWN = "no_such_option"
JUNK: tuple[Any, ...] = ({"no": ["such", "value"]}, ["no", {"such": "value"}], "no such value", -3.5)
"""Values of all kinds that a recipe can hold; an option that takes each of them checks nothing."""
SAME = 1e-10
"""The relative difference up to which labels in a column give what labels in a row give."""

Stage = tuple[list[Output], Tensor | None]


@law(
    None,
    *IN_LOSSES,
    level="interface",
    cause="a constructor with **kwargs, or an option without an annotation",
    plain="a plain module is not built by losskit.build",
)
def options(subject: Subject) -> None:
    """`losskit.build` refuses options that there are not, and values that an option cannot have, by their names."""
    expression, model = _expression(subject)
    kind = "loss" if subject.kind == "wrapper" else subject.kind
    error = _refused({**expression, UNKNOWN: 1}, model, kind)
    if error is None or UNKNOWN not in str(error):
        raise Violation("an unknown option is not refused by its name", f"an error that names {UNKNOWN}", error)
    for name in inspect.signature(subject.looked_at).parameters:
        if name in given_in_code(subject.kind):
            continue
        if all(_refused({**expression, name: junk}, model, kind) is None for junk in JUNK):
            raise Violation(f"the option {name!r} takes whatever it is given", "an annotation", "no check")


def _expression(subject: Subject) -> tuple[dict[str, Any], Any]:
    """What builds the component of a subject, and the model that it takes."""
    loss, reference = subject.build(), name_of(subject.looked_at)
    required = [each.name for each in inspect.signature(subject.looked_at).parameters.values() if _required(each)]
    named = [name for name in required if name not in given_in_code(subject.kind)]
    try:
        spec = get("loss" if subject.kind == "wrapper" else subject.kind, reference)
        stated = loss.get_config_dict() if named else {}
    except NotFoundError:
        raise NotApplicable("a class inside of a function has no name that losskit.build could read") from None
    if spec.problem is not None:
        raise NotApplicable(f"losskit.build does not load it: {spec.problem.reason}")
    stated = stated if subject.kind in ("loss", "wrapper") else stated.get(subject.kind, {})
    if not isinstance(stated, Mapping) or not set(named) <= set(stated):
        raise NotApplicable("its configuration does not say all that it needs")
    return {"name": reference, **{name: stated[name] for name in named}}, loss.model


def _required(parameter: inspect.Parameter) -> bool:
    return parameter.default is parameter.empty and parameter.kind not in (
        parameter.VAR_POSITIONAL,
        parameter.VAR_KEYWORD,
    )


def _refused(expression: dict[str, Any], model: Any, kind: str) -> LosskitError | None:
    """The error that refuses an expression, or nothing."""
    try:
        build(expression, model, kind=kind)
    except LosskitError as error:
        return error
    except Exception as error:  # noqa: BLE001 - whatever a stranger's constructor raises
        option = list(expression)[-1]
        message = f"a wrong value of the option {option!r} ends in {brief(error)}"
        raise Violation(message, "an error that says what the option may be", type(error).__name__) from None
    return None


@law(
    None,
    "loss",
    "wrapper",
    level="interface",
    cause="tensors of unlike shapes that broadcast, or columns and labels that are taken by index and never counted",
)
def refusals(subject: Subject) -> None:
    """Columns and labels that do not fit are an error that says so, and never a number."""
    loss = subject.build()
    columns, labels = subject.records(loss), subject.batch.flat_labels
    # A plain module may take more columns than it was said to, and trainers give all columns as many rows.
    forms = (subject.form,) if subject.plain and subject.form else loss.formats
    wrong_columns = () if subject.plain else _wrong_columns(loss, columns, labels, forms)
    for what, stage in (*wrong_columns, *_wrong_labels(subject, loss, columns, labels, forms)):
        value = _value(subject, loss, stage[0], stage[1], what)
        if value is not None:
            message = f"{what}: the loss gives a number"
            raise Violation(message, "an error that says so", f"{total(value).item():.6g}")
    _require_one_per_row(subject, loss, columns, labels)
    if subject.plain:
        _require_no_column_dropped(subject, loss, columns, labels, forms)
    else:
        _require_no_type_error(subject, loss)


def _value(subject: Subject, loss: Loss, columns: list[Output], labels: Tensor | None, what: str) -> Value | None:
    """The value of records that do not fit, or nothing where they are refused."""
    for step in (0, 1):  # the first draws of a step are the same each time
        loss.set_clock(Clock(step=step, progress=0.5))
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of broadcasting, which is judged by its result
            torch.manual_seed(subject.seed)
            if not subject.plain:
                return loss._stage(columns, labels)
            found: Any = loss.compute(columns, labels, all_rows(columns))
            return found if isinstance(found, Tensor | dict) else None  # such as logits, where there are no labels
    except LosskitError:
        return None
    except Exception as error:  # noqa: BLE001 - a plain module refuses as it likes
        if subject.plain:
            return None
        raise Violation(f"{what}: {brief(error)}", "an error that says what is wrong", type(error).__name__) from None


def _wrong_columns(
    loss: Loss, columns: list[Output], labels: Tensor | None, forms: Sequence[Format]
) -> Iterator[tuple[str, Stage]]:
    """Batches with columns too few, too many or too short; of a cross-encoder pairs have become one column."""
    if loss.encoder.family == "cross-encoder" or not forms:
        return
    fewest = min(form.arity[0] for form in forms)
    most = [form.arity[1] for form in forms]
    if fewest > 1:
        yield f"{fewest - 1} of {fewest} columns", (columns[: fewest - 1], labels)
    if None not in most:
        count = max(each for each in most if each is not None)
        more = [*columns, *[columns[-1]] * (count + 1 - len(columns))]
        yield f"{count + 1} columns instead of {count}", (more, labels)
    rows = columns[0].tuples
    for left in sorted({1, rows - 1} - {0, rows}) if len(columns) > 1 else ():
        short = columns[-1][slice(0, left)]
        yield f"{left} rows in the last column, {rows} in the others", ([*columns[:-1], short], labels)


def _wrong_labels(
    subject: Subject, loss: Loss, columns: list[Output], labels: Tensor | None, forms: Sequence[Format]
) -> Iterator[tuple[str, Stage]]:
    """Batches with labels that are missing, too many or too few."""
    alone = loss.encoder.family == "cross-encoder"
    kinds = {form.labels for form in forms if alone or _fits(form, len(columns))}
    rows = columns[0].tuples
    if labels is None:
        if kinds == {"none"} and not subject.plain:
            yield "labels, where there are none", (columns, torch.ones(rows, dtype=torch.float64))
        return
    if "none" not in kinds:
        yield "no labels", (columns, None)
    # A single label is no mistake that trainers make, and plain modules broadcast it.
    counts = {len(labels) - 1, len(labels) + 1} | (set() if subject.plain else {1})
    for count in sorted(counts - {0, 1 if subject.plain else 0, len(labels)}):
        wrong = torch.cat([labels, labels[:1]])[:count]
        yield f"{count} labels instead of {len(labels)}", (columns, wrong)


def _fits(form: Format, columns: int) -> bool:
    fewest, most = form.arity
    return fewest <= columns and (most is None or columns <= most)


def _require_no_column_dropped(
    subject: Subject, loss: Loss, columns: list[Output], labels: Tensor | None, forms: Sequence[Format]
) -> None:
    """One column more than the data have is refused, or changes the value."""
    if loss.encoder.family == "cross-encoder" or None in [form.arity[1] for form in forms]:
        return
    further = columns[-1].map_embedding(lambda embedding: embedding.flip(-1).flip(0))
    expected = _value(subject, loss, columns, labels, "the batch")
    got = _value(subject, loss, [*columns, further], labels, "a further column")
    if expected is not None and got is not None and torch.equal(total(expected), total(got)):
        message = f"{len(columns) + 1} columns instead of {len(columns)}: the last one is dropped in silence"
        raise Violation(message, "an error that says so", f"{total(got).item():.6g}, as without it")


def _require_no_type_error(subject: Subject, loss: Loss) -> None:
    """No TypeError leaves `forward`, which trainers of cross-encoders would take for one of theirs and call again."""
    features = subject.batch.features(loss)
    for what, labels in (("no labels", None), ("labels that are texts", ["no", "numbers"])):
        try:
            loss(features, labels)
        except TypeError as error:
            raise Violation(f"{what}: {brief(error)} leaves forward", "a LossError", "TypeError") from None
        except Exception:  # noqa: BLE001 - any other error refuses the batch
            continue


def _require_one_per_row(subject: Subject, loss: Loss, columns: list[Output], labels: Tensor | None) -> None:
    """Labels [n, 1] mean what labels [n] mean, or are refused: against [n] they would broadcast to [n, n]."""
    if labels is None or labels.ndim != 1 or columns[0].lists is not None or columns[-1].lists is not None:
        return
    expected = _value(subject, loss, columns, labels, "the batch")
    got = _value(subject, loss, columns, labels[:, None], "labels of shape [n, 1]")
    if expected is None or got is None:
        return
    one, other = total(expected).item(), total(got).item()
    if abs(one - other) > SAME * max(abs(one), abs(other)):
        raise Violation("labels of shape [n, 1] are not read as one per row", f"{one:.6g}", f"{other:.6g}")
