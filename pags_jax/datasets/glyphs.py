"""The 26 capital letters as 7 x 5 bitmaps, drawn for this package."""

import string

import numpy as np
from jaxtyping import UInt8

HEIGHT, WIDTH = 7, 5

_A_TO_M = """
.###. ####. .###. ####. ##### ##### .###. #...# ##### ..### #...# #.... #...#
#...# #...# #...# #...# #.... #.... #...# #...# ..#.. ...#. #..#. #.... ##.##
#...# #...# #.... #...# #.... #.... #.... #...# ..#.. ...#. #.#.. #.... #.#.#
##### ####. #.... #...# ####. ####. #.### ##### ..#.. ...#. ##... #.... #.#.#
#...# #...# #.... #...# #.... #.... #...# #...# ..#.. ...#. #.#.. #.... #...#
#...# #...# #...# #...# #.... #.... #...# #...# ..#.. #..#. #..#. #.... #...#
#...# ####. .###. ####. ##### #.... .###. #...# ##### .##.. #...# ##### #...#
"""
_N_TO_Z = """
#...# .###. ####. .###. ####. .#### ##### #...# #...# #...# #...# #...# #####
##..# #...# #...# #...# #...# #.... ..#.. #...# #...# #...# #...# #...# ....#
##..# #...# #...# #...# #...# #.... ..#.. #...# #...# #...# .#.#. .#.#. ...#.
#.#.# #...# ####. #...# ####. .###. ..#.. #...# #...# #.#.# ..#.. ..#.. ..#..
#..## #...# #.... #.#.# #.#.. ....# ..#.. #...# #...# #.#.# .#.#. ..#.. .#...
#..## #...# #.... #..#. #..#. ....# ..#.. #...# .#.#. ##.## #...# ..#.. #....
#...# .###. #.... .##.# #...# ####. ..#.. .###. ..#.. #...# #...# ..#.. #####
"""


def draw(letters: str) -> UInt8[np.ndarray, "k 7 5"]:
    """Bitmaps of capital letters, 1 where a letter is.

    Raises:
      ValueError: Something else than the letters A to Z, or nothing.

    >>> for row in draw("L")[0]:
    ...     print("".join(".#"[pixel] for pixel in row))
    #....
    #....
    #....
    #....
    #....
    #....
    #####
    """
    if not letters or set(letters) - set(string.ascii_uppercase):
        raise ValueError(f"`letters` must be capital letters A to Z, at least one; got {letters!r}")
    rows = [first.split() + second.split() for first, second in zip(*map(str.splitlines, _BANNERS), strict=True)]
    places = [string.ascii_uppercase.index(letter) for letter in letters]
    return np.array([[[pixel == "#" for pixel in row[place]] for row in rows] for place in places], np.uint8)


_BANNERS = (_A_TO_M.strip(), _N_TO_Z.strip())
