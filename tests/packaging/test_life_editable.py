"""A package under development: installed in place, where its source is edited."""

from __future__ import annotations

import hashlib
import json

import pytest
from packages import FEW_STEPS, loss_package

pytestmark = pytest.mark.packaging


def test_an_editable_package_is_listed_trained_with_and_read_anew(environment) -> None:
    project = loss_package("lk-life").write(environment.path / "my project")
    source = project / "src" / "lk_life.py"
    environment.install(project, editable=True)
    (life,) = environment.json("list", "--provider", "lk-life")["components"]
    assert (life["status"], life["version"], life["summary"]) == ("ok", "1.0", "Pulls a positive to its anchor.")

    text = source.read_text().replace("Pulls a positive to its anchor.", "Draws them together.")
    source.write_text(text.replace("margin: float = 1.0", "margin: float = 0.25"))
    (life,) = environment.json("show", "life")["components"]
    assert (life["summary"], life["options"]["margin"]["default"]) == ("Draws them together.", 0.25)
    assert life["file"] == str(source)
    assert environment.imported == set()

    # Beside a package that claims the name as well, the qualified name decides.
    environment.install(loss_package("lk-rival"))
    done = environment.losskit("train", "loss=lk-life/life", *FEW_STEPS, "output=run")
    assert done.returncode == 0, done.stderr
    components = json.loads((environment.work / "run" / "provenance.json").read_text())["components"]
    (found,) = (each for each in components if each["distribution"] == "lk-life")
    assert (found["name"], found["version"], found["file"]) == ("life", "1.0", "lk_life.py")
    assert found["sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
