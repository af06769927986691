"""The fairness penalties by name, without JAX, so that a command line can list them at once."""

from typing import TYPE_CHECKING, Literal, NamedTuple


class Form(NamedTuple):
    """What ``penalties.Penalty`` is made of.

    Attributes:
      match: ``M[y, y']``: which labels of a pair's lower and higher group are compared.
      pairwise: The individual form in place of the group form.
    """

    match: tuple[tuple[float, float], tuple[float, float]]
    pairwise: bool = False


FORMS = {
    "equalized_odds": Form(((1.0, 0.0), (0.0, 1.0))),
    "demographic_parity": Form(((1.0, 1.0), (1.0, 1.0))),
    "equal_opportunity": Form(((0.0, 0.0), (0.0, 1.0))),
    "individual": Form(((1.0, 0.0), (0.0, 1.0)), pairwise=True),
}

if TYPE_CHECKING:
    PenaltyName = str
else:
    PenaltyName = Literal[tuple(FORMS)]
    """Type of a flag that names a penalty."""
