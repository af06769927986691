"""Types and shapes of arguments and results, checked in every test: what --jaxtyping-packages puts around functions.

jaxtyping's own decorator binds every call to the signature and runs two checkers beside the function, for the sake of
its messages, and so costs more than many of the functions. This one checks the same: beartype sees arguments and
result once, within a context of jaxtyping's, where sizes of the same name must agree.
"""

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable
from typing import Any

import jaxtyping
from beartype import BeartypeConf, beartype

_check = beartype(conf=BeartypeConf(violation_type=jaxtyping.TypeCheckError))


def checked(thing: Any) -> Any:
    """The function, or the dataclass's ``__init__``, with its annotations checked at every call."""
    if inspect.isclass(thing):
        if dataclasses.is_dataclass(thing) and not hasattr(thing.__init__, "_is_checked"):
            thing.__init__ = checked(thing.__init__)
        return thing
    if not inspect.isfunction(thing):
        raise TypeError(f"only functions and classes are decorated, got {thing!r}")
    if not thing.__annotations__:
        return thing
    function = None

    @functools.wraps(thing)
    def within_context(*args, **kwargs):
        __tracebackhide__ = True
        nonlocal function
        if function is None:  # Made at the first call: to make all takes longer than all imports.
            function = _check(thing) if _resolves(thing) else thing
        with _theirs("context"):
            return function(*args, **kwargs)

    within_context._is_checked = True
    return within_context


def _resolves(thing: Any) -> bool:
    """Whether the names in its annotations exist when it runs: those that only type checkers import do not."""
    try:
        typing.get_type_hints(thing)
    except NameError:
        return False
    return True


def jaxtyped(thing: Any = None, *, typechecker: Any = None) -> Any:
    """In place of jaxtyping's decorator in the instrumented packages; its contexts stay."""
    return _theirs(thing) if thing == "context" else checked if thing is None else checked(thing)


_theirs: Callable[..., Any] = jaxtyping.jaxtyped
jaxtyping.jaxtyped = jaxtyped
