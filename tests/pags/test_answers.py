"""The questions fixed beforehand: runs with known answers, a row for each."""

import numpy as np
import pytest

from scripts.harness import rows
from scripts.pags import answers

LOSSES = {
    "gradient_norm": (0.1, 1.0, 3.0, 10.0), "adversarial": (0.5, 1.0, 1.5, 2.0), "smoothness": (1.0, 2.0, 3.0, 4.0),
    "randomized_smoothing": (0.05, 0.125, 0.25, 0.5),
}  # fmt: skip
SHAPES = {  # By the place of a strength, the undefended model first.
    "similarity": (0.2, 0.3, 0.5, 0.6, 0.4), "off_share": (0.97, 0.7, 0.6, 0.3, 0.1),
    "test_accuracy": (0.8, 0.8, 0.8, 0.79, 0.4),
}  # fmt: skip


@pytest.fixture
def config(tmp_path):
    """Folders of two runs on 17 models and 40 images; every claim of the paper holds in them."""
    rng = np.random.default_rng(0)
    models = [("cross_entropy", 0.0, 0)]
    models += [(loss, strength, k + 1) for loss, found in LOSSES.items() for k, strength in enumerate(found)]
    tables = {"robustness": [], "alignment": []}
    for loss, strength, k in models:
        unit = f"loss={loss},strength={strength},seed=0"
        known = {"unit": unit, "loss": loss, "strength": strength, "seed": 0, "rank": 2.0, "size": 50.0, "classes": 10}
        known |= {"test_accuracy": SHAPES["test_accuracy"][k]}
        off = 1 - SHAPES["similarity"][k] + 0.01 * rng.normal()
        tables["robustness"].append(known | {"eps_l2": 2.637, "on": rng.random(), "off": off})
        values = {name: [] for name in ("similarity", "off_share", "cosine")}
        for target in ("logit", "log_prob"):
            for sigma in (0.1, 0.25, 0.5, 1.0):
                for name, column in values.items():
                    level = SHAPES[name][k] if name in SHAPES else -abs(np.log(sigma / (2 * strength + 1e-3)))
                    column.append(level + 0.01 * rng.normal(size=40))
                means = {name: float(column[-1].mean()) for name, column in values.items()}
                tables["alignment"].append(known | means | {"target": target, "sigma_pm1": sigma})
        path = tmp_path / "alignment" / "values" / f"{unit}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **{name: np.stack(column) for name, column in values.items()})
    for name, table in tables.items():
        (tmp_path / name).mkdir(exist_ok=True)
        table = [row | {"config.experiment": f"pags_{name}"} for row in table]
        (tmp_path / name / "rows.jsonl").write_text(rows.to_jsonl(table))
    return answers.Config(robustness=tmp_path / "robustness", alignment=tmp_path / "alignment")


@pytest.mark.slow
def test_every_question_is_answered_as_it_was_fixed(config):
    table = answers.rows_of(config, target="logit", seed=0)
    whole = {row["question"]: row for row in table if row["loss"] == "all"}
    assert {number: row["verdict"] for number, row in whole.items()} == dict.fromkeys(range(1, 7), "shown")
    assert (whole[1]["beside"], whole[2]["estimate"], whole[6]["estimate"]) == (0.96, 4, 4)
    assert whole[1]["low"] < 0.97 < whole[1]["high"]
    assert whole[4]["estimate"] < -0.8
    (peak,) = (row for row in table if (row["question"], row["loss"]) == (3, "adversarial"))
    assert peak["estimate"] == pytest.approx(0.4, abs=0.01)
    assert peak["beside"] == pytest.approx(0.2, abs=0.01)
    assert peak["detail"].startswith("peak at 1.5;")
    (before,) = (row for row in table if (row["question"], row["loss"]) == (5, "gradient_norm"))
    assert (before["estimate"], before["beside"]) == (3.0, 10.0)
    own = [row for row in table if row["question"] == 6 and row["loss"] != "all"]
    assert [(row["strength"], row["estimate"]) for row in own] == [(s, 2 * s) for s in LOSSES["randomized_smoothing"]]


def test_what_does_not_hold_is_said_not_to(config):
    """Without a peak inside, without regimes, and an image that one model has no value of."""
    for path in (config.alignment / "values").glob("*.npz"):
        with np.load(path) as file:
            values = dict(file)
        strength = float(path.stem.split("strength=")[1].split(",")[0])
        values["similarity"] = np.full((8, 40), strength) + np.arange(40) / 100
        values["similarity"][:, 3] = np.nan if strength == 2.0 else 0.0
        values["cosine"] *= 0
        np.savez(path, **values)
    table = answers.rows_of(config, target="logit", seed=0)
    whole = {row["question"]: row["verdict"] for row in table if row["loss"] == "all"}
    assert (whole[3], whole[5], whole[6]) == ("not shown", "not shown", "not shown")
    rises = [row for row in table if row["question"] == 3 and row["loss"] == "smoothness"]
    assert [(row["beside"], row["verdict"]) for row in rises] == [(0.0, "partly")]
    assert rises[0]["estimate"] == pytest.approx(4, abs=1e-5)


def test_missing_values_name_the_file(config):
    next(iter((config.alignment / "values").glob("*smoothness*"))).unlink()
    with pytest.raises(ValueError, match=r"smoothness.*npz is missing; measure again"):
        answers.rows_of(config, target="logit", seed=0)
