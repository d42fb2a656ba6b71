"""Names as sequences of integers: the emoji's names, letter by letter."""

import torch

from gencourse import data

END = "\n"  # stands after the last letter, and fills the rest
ALPHABET = END + " '&-.abcdefghijklmnopqrstuvwxyz"


def encode(names, length):
    """Names to integers (N, 1, 1, length): letters, then END up to the length.

    Letters outside the alphabet are an error; so is a name that leaves no room for its END.
    """
    rows = []
    for name in names:
        unknown = sorted(set(name) - set(ALPHABET[1:]))
        if unknown:
            raise ValueError(
                f"names: expected letters of {ALPHABET[1:]!r}, got {unknown} in {name!r}"
            )
        if len(name) >= length:
            raise ValueError(
                f"names: expected fewer than length={length} letters, got {len(name)} in {name!r}"
            )
        rows.append([ALPHABET.index(letter) for letter in name.ljust(length, END)])
    return torch.tensor(rows, dtype=torch.uint8)[:, None, None]


def decode(x):
    """Integers (N, 1, 1, length) to names: what stands before the first END."""
    return ["".join(ALPHABET[i] for i in row).split(END)[0] for row in x.flatten(1).tolist()]


def names(split="train", length=24):
    """The names of the emoji that fit, as Images of shape (N, 1, 1, length)."""
    captions = dict.fromkeys(data.load("emoji-noto", split).captions)  # each once, in order
    fitting = [n for n in captions if len(n) < length and set(n) <= set(ALPHABET[1:])]
    return data.Images(encode(fitting, length), len(ALPHABET), captions=tuple(fitting))
