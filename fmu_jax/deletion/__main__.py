"""The command ``fmu-delete``, also ``python -m fmu_jax.deletion``: sets up JAX, and names a package that is missing."""

import os
import sys
from collections.abc import Mapping, MutableMapping
from pathlib import Path

EXTRA = ("tyro", "jinja2", "pyarrow")
"""The packages of the extra ``deletion``."""


def main(argv: list[str] | None = None) -> int:
    """Runs the command.

    Args:
      argv: The words after the program's name; None are those of this process.

    Returns:
      The exit status, as ``command.main``; 1 where a package of the extra is missing.
    """
    words = sys.argv[1:] if argv is None else argv
    if "jax" not in sys.modules:  # Else JAX is set up, and the settings are the caller's.
        keep_compiled(words, os.environ)
    try:
        from fmu_jax.deletion import command

        return command.main(words)
    except ModuleNotFoundError as error:
        if error.name not in EXTRA:
            raise
        how = "in a checkout: pip install '.[deletion]'; with a wheel: pip install 'FILE.whl[deletion]'"
        print(f"error: fmu-delete needs {error.name}; {how}", file=sys.stderr)
        return 1


def keep_compiled(words: list[str], environment: MutableMapping[str, str]) -> None:
    """Lets JAX keep all compiled programs in the user's cache folder, unless the user says otherwise.

    Args:
      words: The command line; ``--no-compilation-cache`` in it turns the cache off.
      environment: JAX's own variables, which are set before JAX reads them; those that the user has set win.
    """
    if "--no-compilation-cache" in words:
        environment["JAX_ENABLE_COMPILATION_CACHE"] = "false"
        return
    environment.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache_folder(environment)))
    environment.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    environment.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")


def cache_folder(environment: Mapping[str, str]) -> Path:
    """Where compiled programs are kept: the user's cache folder, by the XDG base directory specification."""
    base = environment.get("XDG_CACHE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "fmu-pags-jax"


if __name__ == "__main__":
    sys.exit(main())
