"""The annotations of both packages are checked in every test, by `tests/checked.py`."""

import dataclasses
from collections.abc import Iterator

import jax.numpy as jnp
import pytest
from jaxtyping import Array, Float, TypeCheckError, jaxtyped

import pags_jax.alignment
from fmu_jax import row_blocks
from tests.checked import checked


@checked
def product(a: Float[Array, "n d"], b: Float[Array, "d k"], *, turned: bool = False) -> Float[Array, "n k"]:
    return (a @ b).T if turned else a @ b


def test_sizes_of_one_name_agree_among_arguments_and_with_the_result():
    a, b = jnp.ones((2, 3)), jnp.ones((3, 4))
    assert product(a, b).shape == (2, 4)
    with pytest.raises(TypeCheckError, match="b"):
        product(a, b.T)
    with pytest.raises(TypeCheckError, match="return"):
        product(a, b, turned=True)
    with pytest.raises(TypeCheckError, match="turned"):
        product(a, b, turned=1)
    with pytest.raises(TypeCheckError, match="a"):
        product(jnp.ones((2, 3), int), b)


def test_a_call_knows_nothing_of_the_sizes_of_another():
    @checked
    def outer(a: Float[Array, "n d"]) -> Float[Array, "n n"]:
        assert product(a.T, a).shape == (a.shape[1],) * 2  # `n` and `d` are others there.
        return a @ a.T

    assert outer(jnp.ones((2, 3))).shape == (2, 2)
    assert outer(jnp.ones((4, 3))).shape == (4, 4)


def test_dataclasses_generators_and_methods_are_checked():
    @checked
    @dataclasses.dataclass
    class Pair:
        first: int

        @checked
        def plus(self, other: int) -> int:
            return self.first + other

    @checked
    def counted(n: int) -> Iterator[int]:
        yield from range(n)

    assert Pair(2).plus(3) == 5
    assert list(counted(3)) == [0, 1, 2]
    for call in (lambda: Pair("2"), lambda: Pair(2).plus("3"), lambda: list(counted("3"))):
        with pytest.raises(TypeCheckError):
            call()


def test_what_has_no_annotations_stays_as_it_is():
    def plain(x):
        return x

    assert checked(plain) is plain
    with jaxtyped("context"):  # jaxtyping's own contexts still are.
        assert isinstance(jnp.ones((2, 3)), Float[Array, "n d"])
        assert not isinstance(jnp.ones((3, 3)), Float[Array, "n d"])


def test_the_functions_of_both_packages_are_decorated():
    with pytest.raises(TypeCheckError):
        row_blocks.gram(jnp.ones((4, 3)), jnp.ones(3))
    with pytest.raises(TypeCheckError):
        pags_jax.alignment.cosine(jnp.ones((2, 4, 4, 3)), jnp.ones((3, 4, 4, 3)))


def test_names_that_only_type_checkers_import_are_left_to_them():
    @checked
    def promised(n: int, settings: "Nowhere"):
        return n

    assert promised(2, None) == 2
