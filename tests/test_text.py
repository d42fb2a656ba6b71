"""Names to integers and back."""

import pytest

from gencourse import text


def test_there_and_back():
    names = ["cat", "face with tears of joy", "t-rex", ""]
    x = text.encode(names, 24)
    assert x.shape == (4, 1, 1, 24) and x.max() < len(text.ALPHABET)
    assert text.decode(x) == names
    assert (x[0, 0, 0, 3:] == 0).all(), "END fills the rest"


@pytest.mark.parametrize(
    "name, message", [("Cat", r"got \['C'\] in 'Cat'"), ("a" * 24, "got 24 in")]
)
def test_what_does_not_fit_is_named(name, message):
    with pytest.raises(ValueError, match=f"names: expected.*{message}"):
        text.encode([name], 24)


def test_no_name_is_in_two_splits():
    splits = [set(text.names(split).captions) for split in ("train", "valid", "test")]
    assert not splits[0] & splits[1] and not splits[0] & splits[2] and not splits[1] & splits[2]
    images = text.names("test")
    assert text.decode(images.pixels) == list(images.captions) and images.levels == 32
