"""Claims of Srinivas et al. (2023) about sweeps, and whether the rows show them for each loss."""

from scripts.harness import plot, report
from scripts.harness.experiment import Claim, Results, Row
from scripts.harness.lazy import pags_jax
from scripts.pags import sweeps


def lines_of(results: Results) -> list[Row]:
    """A line for each loss: whether it shows what the paper says of a sweep, with the numbers."""
    place = _shown(results).place
    robust, aligned = place.robust(results.of("pags_robustness")), place.aligned(results.of("pags_alignment"))
    claims_of, swept = pags_jax.questions.claims_of, pags_jax.sweeps.swept(robust)
    return [{"loss": plot.look(loss).label} | claims_of(loss, robust, aligned, place) for loss in swept]


def correlations(results: Results) -> list[Row]:
    """How alignment goes with each measure over the models."""
    models = _shown(results).joined(results.of("pags_robustness"), results.of("pags_alignment"))
    return pags_jax.explanation.correlations(models)


def _shown(results: Results) -> sweeps.PlaceConfig:
    """The place of the configuration, by default the one that every report shows."""
    return results.config if isinstance(results.config, sweeps.PlaceConfig) else sweeps.SHOWN


def section(results: Results) -> list[report.Block]:
    """What each loss shows, and which measure of robustness goes with alignment over the models."""
    lines, table, target = lines_of(results), correlations(results), _shown(results).target.replace("_", " ")
    errors = pags_jax.explanation.errors_of(_shown(results).place.aligned(results.of("pags_alignment")))
    return [
        "The paper says that models become robust off the manifold before accuracy falls, that gradients look most "
        "like the score at a middle strength, and that excessive robustness gives up accuracy and sensitivity along "
        "the manifold as well. The title of each column is the rule by which its entries are computed, from medians "
        "over seeds. A peak gives the values at the weakest, the best and the strongest strength; a fall gives those "
        "at the most accurate and at the strongest strength. Alignments of models that guess count nowhere: their "
        f"gradients are noise. {errors}",
        report.Table(lines, "Does each sweep show it?"),
        "The paper claims that off-manifold robustness explains which models have aligned gradients; alignment "
        "should then fall as the deviation off the manifold grows. Over the models within 5 points of the best "
        "accuracy, " + pags_jax.explanation.sentence(table),
        f"Each entry is Spearman's rank correlation, with the two-sided p-value from {pags_jax.explanation.SHUFFLES} "
        "permutations of the models within their loss in brackets. In lines marked 'given on', the deviation on the "
        "manifold is partialled out. The share is measured on the same gradients whose alignment it predicts; the "
        "deviations are measured without them.",
        report.Table(pags_jax.explanation.lines(table),
                     f"The alignment of the {target}'s gradient, and what predicts it.", fold=True),
        *results.figures("alignment_by_robustness.png", "Alignment against deviation off the manifold",
                         "Each marker is one model."),
    ]  # fmt: skip


def claims(results: Results) -> list[Claim]:
    """Do alignment's peak, excessive robustness and the correlation show?"""
    if not {"pags_robustness", "pags_alignment"} <= set(results.others):
        return []
    lines = lines_of(results)

    def count(text: str, *columns: str) -> Claim:
        holds = [all(line[column].startswith("yes") for column in columns) for line in lines]
        names_ = [line["loss"] for line, held in zip(lines, holds, strict=True) if held]
        number = f"{sum(holds)} of {len(lines)} losses" + (f": {', '.join(names_)}" if names_ else "")
        return Claim(text, holds, number)

    accurate = {"models": pags_jax.sweeps.ACCURATE, "alignment": "similarity", "measure": "off"}
    (row,) = report.where(correlations(results), **accurate)
    text = "Off-manifold robustness explains which accurate models have aligned gradients (1 - LPIPS falls as the "
    text += "deviation off the manifold grows; partly: p < 0.05; shown: also given the deviation on it)."
    return [
        count("Models become robust off the manifold before their accuracy falls.",
              "off falls below on while accurate"),
        count("Gradients look most like the score at a middle strength (1 - LPIPS).", "1 - LPIPS peaks inside"),
        count("Excessive robustness gives up accuracy and sensitivity along the manifold.",
              "the strongest loses accuracy", "and on-manifold sensitivity"),
        Claim(text, pags_jax.questions.explains(row),
              f"rank correlation {pags_jax.questions.with_p(row['rho'], row['p'])}, {row['n']} models"),
    ]  # fmt: skip
