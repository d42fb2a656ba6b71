"""Data sets as integer tensors, checked against their checksums.

`load(name, split)` gives `Images`: pixels (N, C, H, W) in 0 .. levels-1, stored as torch.uint8 for
every data set (MNIST as int64 would take eight times the memory); a model converts inside.

    digits                  scikit-learn's 8x8, 17 levels: first 1,000, next 350, last 447
    mnist                   28x28, 256 levels: 50,000, last 10,000 of the training file, 10,000
    emoji                   32x32 RGB, two hands (noto, then twemoji): about 80/10/10 % of groups
    emoji-noto, -twemoji    one hand each; image i of one is image i of the other
    photos, paintings       384x384 RGB, one split ("train"), captions are their names
    fashion-mnist, cifar10  through torchvision, with a connection; the last 10,000, or 5,000,
                            images of the training file are "valid"
    celeba                  the same way: the central 148x148 of each face as 64x64, 2 GB of memory

Files and terms: data/README.md.
"""

import gzip
import hashlib
import io
import json
import os
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

DATA = Path(os.environ.get("GENCOURSE_DATA") or Path(__file__).resolve().parent.parent / "data")
CACHE = Path.home() / ".cache" / "gencourse"  # for data sets that are downloaded

SHA256 = """
93d90006017089932eb0e2865aebf2ad2aacc46016836086124e2f8be4c41cf7  emoji/emoji.json
e8a525b1447765888bc7dbe07ce35500d939cecd72a1b7f2685ce1d378da35bd  emoji/noto.webp
c02de989ca54e3e4c228e05357c1b2326e385d773e9848a54c9252ba342df9c7  emoji/twemoji.webp
0b367032e93c5d0cea0925647cfdb18614af8ee15f83e6f2fc2ad904a6835971  mnist/train-images-idx3-ubyte.gz
1a1a05eab793c14bb050b398624a11b0ffd1a2953baed553b1b9bd079e2a20be  mnist/t10k-images-idx3-ubyte.gz
1787548bbe0bff1ec2ecdc0ef292b02df999e2d1a6002d27500982c652b17203  mnist/train-labels-idx1-ubyte.gz
b91679a0acfe4ba0e50a2437a903084cba1f5f92592b016a25a7dfd00455798b  mnist/t10k-labels-idx1-ubyte.gz
569cd3d2838ac73bbd80c664d14d0d120676bcb2665b2d790eea4c15ce80ab07  paintings/auvers.jpg
3869ae42f54f1c227147ea254a06991fff21cf857ce9d660a051443848d8bf73  paintings/great_wave.jpg
db6a1a38a00ca80df755a9da0f6377fa0ce75704e785e432230f39ae87620a42  paintings/kandinsky.jpg
3429270672663300209ff0fd1491cc1785f752616ed3a1b9dc82bebebffdd545  photos/astronaut.jpg
05a870cad4da52015e8870ef137874c35312851e55aa41bc9f52bbb22f9dcfd0  photos/cat.jpg
ad7da377a56d79bcd006d62f36380f8908b9c0176e60fa6712ccf68d3fe9891a  photos/coffee.jpg
16cd339fa15768cd7786ba2ddc9dca1a2925f9f2ba0aa0f013294ae024f99838  photos/galaxies.jpg
2ca292a75e68cc04d44ec38d7d3600c20a1a330b67d0d874b71f1140730c9fa2  photos/gravel.jpg
6c500e86ff5182f6e6c8513add40dd2bfd0e846212c8e7915434b9b9660f5684  photos/rocket.jpg
"""
FILES = {file: sha256 for sha256, file in map(str.split, SHA256.strip().splitlines())}
MNIST_MD5 = (  # of the unpacked files, in the order of FILES, as published with MNIST
    "6bbc9ace898e44ae57da46a324031adb",
    "2646ac647ad5339dbf082846283269ea",
    "a25bea736e30d166cdddb491f175f624",
    "27ae3e4e09519cfbb04c329615203637",
)
DIGITS_SHA256 = "8f26b2bd9d135c256808f68f14fdabddde6d9c7f869ae419704b051f0f14b3b3"  # as uint8

SPLITS = ("train", "valid", "test")
SHIPPED = {  # data set: its files
    "digits": (),
    **{
        name: tuple(f for f in FILES if f.startswith(name + "/"))
        for name in ("mnist", "emoji", "photos", "paintings")
    },
    "emoji-noto": ("emoji/emoji.json", "emoji/noto.webp"),
    "emoji-twemoji": ("emoji/emoji.json", "emoji/twemoji.webp"),
}
ONLINE = {"cifar10": "CIFAR10", "fashion-mnist": "FashionMNIST", "celeba": "CelebA"}


class DataError(RuntimeError):
    """A data file is missing, truncated or altered, or could not be downloaded."""


@dataclass(frozen=True, eq=False, repr=False)
class Images:
    """Images with what is known of them. `images[:10]`, `images[mask]`, `images[indices]` select.

    pixels: (N, C, H, W) uint8 in 0 .. levels-1; labels: (N,) int64; captions: N strings;
    classes: the name of each label. What a data set does not have is None.
    """

    pixels: Tensor
    levels: int
    labels: Tensor | None = None
    captions: tuple[str, ...] | None = None
    classes: tuple[str, ...] | None = None

    def __post_init__(self):
        if self.pixels.dtype != torch.uint8 or self.pixels.ndim != 4:
            raise ValueError(
                "pixels must be a uint8 tensor (N, C, H, W), got "
                f"{self.pixels.dtype} of shape {tuple(self.pixels.shape)}"
            )
        _check_levels(self.levels, 256)
        top = int(self.pixels.max()) if self.pixels.numel() else 0
        if top >= self.levels:
            raise ValueError(f"pixels must be in 0 .. levels-1 = {self.levels - 1}, got {top}")
        for name in ("labels", "captions"):
            value = getattr(self, name)
            if value is not None and len(value) != len(self.pixels):
                raise ValueError(
                    f"{name} must be as many as the {len(self.pixels)} images, got {len(value)}"
                )

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index) -> "Images":
        if not isinstance(index, slice):
            index = torch.as_tensor(index)
            if index.ndim != 1 or (index.dtype == torch.bool and len(index) != len(self)):
                raise ValueError(
                    f"index must be a slice, a 1-D tensor of integers or {len(self)} "
                    f"booleans, got shape {tuple(index.shape)}; for image i alone "
                    "use images[i:i+1]"
                )
        labels, captions = self.labels, self.captions
        if captions is not None:
            captions = tuple(captions[i] for i in torch.arange(len(self))[index].tolist())
        return replace(
            self,
            pixels=self.pixels[index],
            captions=captions,
            labels=None if labels is None else labels[index],
        )

    def __repr__(self) -> str:
        size = "x".join(map(str, self.pixels.shape[1:]))
        extras = [f for f in ("labels", "captions", "classes") if getattr(self, f) is not None]
        return f"Images({', '.join([f'{len(self)} of {size}', f'{self.levels} levels', *extras])})"


def load(name: str, split: str = "train", root: str | Path | None = None) -> Images:
    """One split of the data set `name`, as tensors that the caller may change.

    root: the folder of the shipped files (default `DATA`: the repository's data/, or the
    environment variable GENCOURSE_DATA) or, for the data sets online, of their downloads (`CACHE`).
    The shipped files are verified when they are first read, and kept in memory.

    Raises ValueError for an unknown name or split, and DataError for a file that is missing or not
    the shipped one, or a failed download.
    """
    if name not in SHIPPED and name not in ONLINE:
        raise ValueError(f"name must be one of {', '.join([*SHIPPED, *ONLINE])}; got {name!r}")
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}; got {split!r}")
    if name in ("photos", "paintings") and split != "train":
        raise ValueError(f"split must be 'train' for {name}, which has no other; got {split!r}")
    if name in ONLINE:
        return _download(name, split, Path(root or CACHE))
    images, splits = _shipped(name, Path(root or DATA))
    part = images[splits[split]]
    pixels = part.pixels.clone(memory_format=torch.contiguous_format)
    labels = None if part.labels is None else part.labels.clone()
    return replace(part, pixels=pixels, labels=labels)


def binarise(images: Images, seed: int = 0) -> Images:
    """Every pixel drawn once from Bernoulli(pixel / (levels - 1)): 2 levels, same shape.

    Figures for binarised MNIST are published for such draws. The draw depends on the seed and on
    the number of images: binarise a whole split, then select.
    """
    _check_images(images)
    uniform = torch.rand(images.pixels.shape, generator=torch.Generator().manual_seed(seed))
    drawn = uniform < images.pixels / (images.levels - 1)
    return replace(images, pixels=drawn.to(torch.uint8), levels=2)


def quantise(images: Images, levels: int) -> Images:
    """Fewer levels, equally wide: floor(pixel * levels / images.levels)."""
    _check_images(images)
    _check_levels(levels, images.levels)
    pixels = images.pixels.int() * levels // images.levels
    return replace(images, pixels=pixels.to(torch.uint8), levels=levels)


def verify() -> list[tuple[str, bool, str]]:
    """(pack, whether it is whole, what was found) of every shipped pack; reads all files anew."""
    report = []
    for name in ("digits", "mnist", "emoji", "photos", "paintings"):
        try:
            images, _ = _shipped.__wrapped__(name, DATA)
            report.append((name, True, f"{len(images):,} images, as shipped"))
        except (DataError, ImportError, OSError) as error:
            report.append((name, False, str(error)))
    return report


def checksum(name: str) -> str:
    """One sha256 that stands for the files of a shipped data set; `load` verifies those files."""
    if name not in SHIPPED:
        raise ValueError(f"name must be one of the shipped {', '.join(SHIPPED)}; got {name!r}")
    if name == "digits":
        return DIGITS_SHA256
    return _sha256("".join(f"{file} {FILES[file]}\n" for file in SHIPPED[name]).encode())


def emoji_group(name: str) -> str:
    """The group of the emoji `name`: "man running facing right" is of the group "runner".

    A group holds the variants of one picture, and falls into one split as a whole: man, woman and
    person doing the same; families and couples; left and right; flags that look alike.
    """
    groups = _emoji_groups(DATA)
    if name not in groups:
        raise ValueError(f"name must be that of an emoji, in lower case; got {name!r}")
    return groups[name]


@cache
def _shipped(name: str, folder: Path) -> tuple[Images, dict[str, slice | Tensor]]:
    """All images of a shipped data set, and where its splits are. Kept: copy, never change."""
    if name == "digits":
        return _digits(), _bounds(1000, 1350)
    if not folder.is_dir():
        raise DataError(
            f"there is no data folder {folder}: install gencourse from a clone of its "
            "repository with `pip install -e .`, or let GENCOURSE_DATA name the folder"
        )
    contents = {file: _read(file, folder) for file in SHIPPED[name]}
    if name == "mnist":
        return _mnist(contents), _bounds(50_000, 60_000)
    if name.startswith("emoji"):
        return _emoji(contents, _emoji_groups(folder))
    return _pictures(contents), {"train": slice(None)}


def _read(file: str, folder: Path) -> bytes:
    try:
        content = (folder / file).read_bytes()
    except OSError as error:
        problem = f"cannot be read ({error.strerror})"
    else:
        if _sha256(content) == FILES[file]:
            return content
        problem = (
            f"is not the shipped file: expected sha256 {FILES[file]}, got "
            f"{_sha256(content)}, of {len(content)} bytes"
        )
    raise DataError(f"{folder / file} {problem}. Restore it with `git checkout -- data/{file}`")


def _digits() -> Images:
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = digits.images.astype(np.uint8)  # (1797, 8, 8)
    if _sha256(pixels.tobytes()) != DIGITS_SHA256:
        raise DataError(
            "scikit-learn's load_digits() does not return the 1,797 digits that it "
            "should. Restore them with `pip install --force-reinstall scikit-learn`"
        )
    return Images(
        torch.from_numpy(pixels[:, None]),
        17,
        torch.from_numpy(digits.target).long(),
        classes=tuple("0123456789"),
    )


def _mnist(contents: dict[str, bytes]) -> Images:
    arrays = []
    for (file, content), md5 in zip(contents.items(), MNIST_MD5, strict=True):
        raw = gzip.decompress(content)
        if hashlib.md5(raw, usedforsecurity=False).hexdigest() != md5:
            raise DataError(f"data/{file} does not unpack to MNIST's file with md5 {md5}")
        axes = raw[3]  # IDX: two zeros, a type, the number of axes; each axis in 4 bytes; the data
        shape = np.frombuffer(raw, ">i4", count=axes, offset=4)
        arrays.append(np.frombuffer(raw, np.uint8, offset=4 + 4 * axes).reshape(shape))
    train, test, train_labels, test_labels = arrays
    return _join(train[:, None], test[:, None], train_labels, test_labels, tuple("0123456789"))


def _emoji(contents: dict[str, bytes], groups: dict[str, str]) -> tuple[Images, dict[str, Tensor]]:
    table, *sheets = contents.values()
    entries, tiles = json.loads(table), []
    for sheet in sheets:
        x = _rgb(sheet)  # (rows * 32, 64 * 32, 3)
        x = x.reshape(-1, 32, 64, 32, 3).transpose(0, 2, 4, 1, 3)  # (rows, 64, 3, 32, 32)
        tiles.append(x.reshape(-1, 3, 32, 32)[: len(entries)])
    names = [entry["name"] for entry in entries] * len(tiles)
    categories = [entry["category"] for entry in entries] * len(tiles)
    classes = tuple(dict.fromkeys(categories))
    labels = torch.tensor([classes.index(category) for category in categories])
    images = Images(torch.from_numpy(np.concatenate(tiles)), 256, labels, tuple(names), classes)
    # eight tenths, one, one: by a hash of the group alone, so that no emoji ever changes sides
    tenths = torch.tensor([int(_sha256(groups[name].encode()), 16) % 10 for name in names])
    return images, {"train": tenths < 8, "valid": tenths == 8, "test": tenths == 9}


def _pictures(contents: dict[str, bytes]) -> Images:
    from PIL import Image, ImageOps

    pixels = []
    for content in contents.values():
        picture = Image.fromarray(_rgb(content))
        if picture.size != (384, 384):  # the paintings: the square of the centre
            picture = ImageOps.fit(picture, (384, 384), Image.Resampling.LANCZOS)
        pixels.append(np.asarray(picture).transpose(2, 0, 1))  # (3, 384, 384)
    return Images(
        torch.from_numpy(np.stack(pixels)),
        256,
        captions=tuple(Path(file).stem for file in contents),
    )


@cache
def _emoji_groups(folder: Path) -> dict[str, str]:
    """The group of every emoji name: the first name with the same code points but for persons and
    directions ("runner" 1F3C3, "man running facing right" 1F3C3-2642-27A1), then `ALIKE`."""
    alike = {}
    for line in ALIKE.strip().splitlines():
        group, *names = line.split(" | ")
        alike.update(dict.fromkeys(names, group))
    groups, first = {}, {}
    for entry in json.loads(_read("emoji/emoji.json", folder)):
        points = [PERSONS.get(point, point) for point in entry["codepoints"].split("-")]
        # joiner, style, female, male, rightwards: no picture of their own if another is there
        drawn = [p for p in points if p not in ("200D", "FE0F", "2640", "2642", "27A1")] or points
        name = first.setdefault(tuple(dict.fromkeys(drawn)), entry["name"])
        groups[entry["name"]] = alike.get(name, name)
    return groups


PERSONS = {"1F468": "1F9D1", "1F469": "1F9D1", "1F466": "1F9D2", "1F467": "1F9D2"}  # adult, child
# Variants that their code points do not show: persons; left and right; one flag, or two that differ
# by a shade. (Noto's sheet has Saudi Arabia in place of Sark.) The first names the group.
ALIKE = """
kiss | kiss: woman, man
couple with heart | couple with heart: woman, man
family | family: man, woman, boy
people holding hands | two women holding hands | man and woman holding hands | two men holding hands
older adult | older man | older woman
person with crown | prince | princess
father christmas | mother christmas | mx claus
dancer | man dancing
pregnant woman | pregnant man | pregnant person
person frowning | person with pouting face
head shaking horizontally | head shaking vertically
rightwards hand | leftwards hand
leftwards pushing hand | rightwards pushing hand
left-facing fist | right-facing fist
white left pointing backhand index | white right pointing backhand index
left-pointing magnifying glass | right-pointing magnifying glass
black rightwards arrow | leftwards black arrow
north east arrow | north west arrow
south east arrow | south west arrow
leftwards arrow with hook | rightwards arrow with hook
black right-pointing triangle | black left-pointing triangle
black right-pointing double triangle | black left-pointing double triangle
next track button | last track button
australia flag | heard & mcdonald islands flag
british indian ocean territory flag | diego garcia flag
chad flag | romania flag
france flag | clipperton island flag | st. martin flag
indonesia flag | monaco flag
norway flag | bouvet island flag | svalbard & jan mayen flag
saudi arabia flag | sark flag
spain flag | ceuta & melilla flag
united states flag | u.s. outlying islands flag
"""


def _download(name: str, split: str, folder: Path) -> Images:
    from torchvision import datasets

    source = getattr(datasets, ONLINE[name])
    try:
        if name == "celeba":
            return _faces(source(folder, split=split, download=True))
        files = [source(folder, train=train, download=True) for train in (True, False)]
    except Exception as error:  # torchvision lets through whatever its download raises
        raise DataError(
            f"could not get {name}: torchvision.datasets.{ONLINE[name]} tried to download it into "
            f"{folder} and failed with {type(error).__name__}: {error}. {', '.join(ONLINE)} need a "
            f"connection; these do not: {', '.join(SHIPPED)}"
        ) from error
    train, test = (np.asarray(file.data) for file in files)
    if train.ndim == 3:
        train, test = train[..., None], test[..., None]  # (N, H, W, C)
    labels = [np.asarray(file.targets) for file in files]
    images = _join(
        train.transpose(0, 3, 1, 2), test.transpose(0, 3, 1, 2), *labels, tuple(files[0].classes)
    )
    return images[_bounds(len(train) - (5000 if name == "cifar10" else 10_000), len(train))[split]]


def _faces(source) -> Images:
    from PIL import Image

    pixels = torch.empty(len(source), 3, 64, 64, dtype=torch.uint8)
    for i, (face, _) in enumerate(source):  # 178x218
        face = face.crop((15, 35, 163, 183)).resize((64, 64), Image.Resampling.LANCZOS)
        pixels[i] = torch.from_numpy(np.array(face)).permute(2, 0, 1)
    return Images(pixels, 256)


def _join(train, test, train_labels, test_labels, classes) -> Images:
    pixels = torch.from_numpy(np.ascontiguousarray(np.concatenate([train, test])))
    labels = torch.from_numpy(np.concatenate([train_labels, test_labels]).astype(np.int64))
    return Images(pixels, 256, labels, classes=classes)


def _bounds(valid: int, test: int) -> dict[str, slice]:
    return {"train": slice(valid), "valid": slice(valid, test), "test": slice(test, None)}


def _rgb(content: bytes) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))  # (H, W, 3)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _check_images(images) -> None:
    if not isinstance(images, Images):
        raise ValueError(f"images must be Images, as load returns; got {type(images).__name__}")


def _check_levels(levels, most: int) -> None:
    if not isinstance(levels, int) or not 2 <= levels <= most:
        raise ValueError(f"levels must be an integer in 2 .. {most}, got {levels!r}")
