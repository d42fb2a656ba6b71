import hashlib
import json
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from gencourse import data
from gencourse.data import SPLITS, DataError, Images, binarise, emoji_group, load, quantise


def gradient(n=40, levels=17):
    """n images 1x8x8 of every level in turn, with labels and captions."""
    pixels = (torch.arange(n * 64) % levels).to(torch.uint8).reshape(n, 1, 8, 8)
    return Images(pixels, levels, torch.arange(n), tuple(f"image {i}" for i in range(n)))


# What load returns


@pytest.mark.parametrize(
    ("name", "shape", "levels", "counts"),
    [
        ("digits", (1, 8, 8), 17, (1000, 350, 447)),
        ("mnist", (1, 28, 28), 256, (50_000, 10_000, 10_000)),
        ("emoji", (3, 32, 32), 256, (3050, 356, 406)),
        ("emoji-noto", (3, 32, 32), 256, (1525, 178, 203)),
        ("emoji-twemoji", (3, 32, 32), 256, (1525, 178, 203)),
        ("photos", (3, 384, 384), 256, (6,)),
        ("paintings", (3, 384, 384), 256, (3,)),
    ],
)
def test_shapes_and_counts(name, shape, levels, counts):
    for split, count in zip(SPLITS, counts):
        images = load(name, split)
        assert images.pixels.shape == (count, *shape) and len(images) == count
        assert images.pixels.dtype == torch.uint8 and images.pixels.is_contiguous()
        assert images.levels == levels
        assert images.pixels.max() == levels - 1 and images.pixels.min() == 0
        if images.labels is not None:
            assert images.labels.dtype == torch.int64 and images.labels.shape == (count,)
            assert set(images.labels.tolist()) == set(range(len(images.classes)))


def test_digits_are_those_of_scikit_learn_in_their_order():
    from sklearn.datasets import load_digits

    x = torch.cat([load("digits", split).pixels for split in SPLITS])
    y = torch.cat([load("digits", split).labels for split in SPLITS])
    assert torch.equal(x[:, 0].double(), torch.from_numpy(load_digits().images))
    assert torch.equal(y, torch.from_numpy(load_digits().target))


def test_mnist_has_its_known_counts_and_mean():
    train, valid, test = (load("mnist", split) for split in SPLITS)
    labels = torch.cat([train.labels, valid.labels])
    known = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert torch.bincount(labels).tolist() == known
    known = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert torch.bincount(test.labels).tolist() == known
    assert train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    pixels = torch.cat([train.pixels, valid.pixels]).float() / 255
    assert float(pixels.mean()) == pytest.approx(0.1307, abs=5e-5)
    assert float(pixels.std()) == pytest.approx(0.3081, abs=5e-5)


@pytest.mark.parametrize("name", ["digits", "mnist"])
def test_no_image_is_in_two_splits(name):
    seen = [{image.tobytes() for image in load(name, split).pixels.numpy()} for split in SPLITS]
    assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])


def test_pictures_are_named_and_centred():
    names = ("astronaut", "cat", "coffee", "galaxies", "gravel", "rocket")
    assert load("photos").captions == names
    paintings = load("paintings")
    assert paintings.captions == ("auvers", "great_wave", "kandinsky")
    scan = Image.open(data.DATA / "paintings/auvers.jpg")  # 600x470
    centre = np.asarray(scan.crop((65, 0, 535, 470)).resize((384, 384))).astype(float)
    difference = np.abs(paintings.pixels[0].permute(1, 2, 0).numpy() - centre)
    assert difference.mean() < 2  # another filter; a crop 20 pixels aside differs by 26


def test_what_the_caller_changes_stays_with_the_caller():
    first = load("digits")
    first.pixels.zero_(), first.labels.zero_()
    again = load("digits")
    assert again.pixels.any() and again.labels.any()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("minst",), ["name must be one of digits, mnist", "'minst'"]),
        (("mnist", "training"), ["split must be one of train, valid, test", "'training'"]),
        (("photos", "test"), ["split must be 'train' for photos", "'test'"]),
    ],
)
def test_wrong_arguments_are_named(arguments, words):
    with pytest.raises(ValueError) as error:
        load(*arguments)
    assert all(word in str(error.value) for word in words)


# Emoji


def test_the_two_hands_are_aligned():
    for split in SPLITS:
        noto, twemoji, both = (load(f"emoji{hand}", split) for hand in ("-noto", "-twemoji", ""))
        assert noto.captions == twemoji.captions and torch.equal(noto.labels, twemoji.labels)
        assert both.captions == noto.captions + twemoji.captions
        assert torch.equal(both.pixels, torch.cat([noto.pixels, twemoji.pixels]))
        assert torch.equal(both.labels, torch.cat([noto.labels, twemoji.labels]))
        # most drawings are nearer to their own counterpart than to their neighbour's
        x, y = noto.pixels.float(), twemoji.pixels.float()
        own = (x - y).square().mean((1, 2, 3))
        other = (x - y.roll(1, 0)).square().mean((1, 2, 3))
        assert (own < other).float().mean() > 0.75  # one tile off: 0.2


@pytest.mark.parametrize("hand", ["noto", "twemoji"])
def test_tiles_are_cut_and_named_right(hand):
    sheet = Image.open(data.DATA / f"emoji/{hand}.webp").convert("RGB")
    entries = json.loads((data.DATA / "emoji/emoji.json").read_text())
    loaded = {split: load(f"emoji-{hand}", split) for split in SPLITS}
    expected = {split: [] for split in SPLITS}
    for i, entry in enumerate(entries):
        left, top = i % 64 * 32, i // 64 * 32
        tile = np.asarray(sheet.crop((left, top, left + 32, top + 32)))
        split = next(s for s in SPLITS if entry["name"] in loaded[s].captions)
        expected[split].append((entry["name"], entry["category"], tile))
    for split, images in loaded.items():
        names, categories, tiles = zip(*expected[split])
        assert images.captions == names
        assert [images.classes[label] for label in images.labels] == list(categories)
        assert np.array_equal(images.pixels.permute(0, 2, 3, 1).numpy(), np.stack(tiles))


@pytest.mark.parametrize("name", ["emoji", "emoji-noto", "emoji-twemoji"])
def test_no_emoji_group_straddles_two_splits(name):
    groups = [set(map(emoji_group, load(name, split).captions)) for split in SPLITS]
    assert not (groups[0] & groups[1] or groups[0] & groups[2] or groups[1] & groups[2])
    shares = np.array([len(group) for group in groups]) / sum(map(len, groups))
    assert np.abs(shares - [0.8, 0.1, 0.1]).max() < 0.02


@pytest.mark.parametrize("hand", ["noto", "twemoji"])
def test_no_drawing_is_in_two_splits(hand):
    """Whatever the names say: no two tiles of different splits agree to 5 of 255 levels (RMS)."""
    splits = [load(f"emoji-{hand}", split) for split in SPLITS]
    for i, j in ((0, 1), (0, 2), (1, 2)):
        x, y = (splits[k].pixels.flatten(1).double() for k in (i, j))
        rms = torch.cdist(x, y, compute_mode="use_mm_for_euclid_dist") / x.shape[1] ** 0.5
        pairs = [(splits[i].captions[a], splits[j].captions[b]) for a, b in (rms < 5).nonzero()]
        assert pairs == []


@pytest.mark.parametrize(
    "names",
    [
        ["runner", "man running", "woman running facing right"],
        ["mage", "man mage", "woman mage"],
        ["face palm", "man facepalming"],
        ["health worker", "man health worker", "woman health worker"],
        ["merperson", "merman", "mermaid"],
        ["wrestlers", "men wrestling", "women wrestling"],
        ["adult", "man", "woman"],
        ["older adult", "older man", "older woman"],
        ["man: red hair", "person: red hair"],
        ["family", "family: man, woman, girl, boy", "family: adult, child", "family: woman, boy"],
        ["kiss", "kiss: man, man", "kiss: woman, man"],
        ["couple with heart", "couple with heart: woman, woman"],
        ["people holding hands", "two men holding hands", "man and woman holding hands"],
        ["leftwards hand", "rightwards hand"],
        ["black rightwards arrow", "leftwards black arrow"],
        ["norway flag", "bouvet island flag", "svalbard & jan mayen flag"],
    ],
)
def test_variants_share_a_group(names):
    assert len(set(map(emoji_group, names))) == 1


@pytest.mark.parametrize(
    "names",
    [
        ["man", "child", "man: bald", "older man", "runner", "family", "kiss", "superhero"],
        ["female sign", "male sign", "black rightwards arrow", "upwards black arrow"],
        ["bicyclist", "mountain bicyclist"],
        ["cat", "black cat", "cat face"],
        ["white flag", "rainbow flag", "transgender flag", "waving black flag", "pirate flag"],
        ["england flag", "scotland flag", "wales flag", "united kingdom flag", "barbados flag"],
        ["person in manual wheelchair", "person in motorized wheelchair", "manual wheelchair"],
    ],
)
def test_different_things_have_different_groups(names):
    assert len(set(map(emoji_group, names))) == len(names)


def test_every_group_is_named_after_a_member_and_alike_names_exist():
    names = {name for split in SPLITS for name in load("emoji", split).captions}
    groups = Counter(map(emoji_group, names))
    assert len(names) == 1905 and len(groups) == 1662  # "man in tuxedo" names two
    assert all(emoji_group(group) == group for group in groups)
    assert {n for line in data.ALIKE.strip().splitlines() for n in line.split(" | ")} <= names
    with pytest.raises(ValueError, match="name must be that of an emoji.*'wizard of oz'"):
        emoji_group("wizard of oz")


# Images


def test_selection():
    images = gradient()
    for index in (
        slice(3, 9),
        torch.arange(3, 9),
        [3, 4, 5, 6, 7, 8],
        (torch.arange(40) >= 3) & (torch.arange(40) < 9),
    ):
        part = images[index]
        assert torch.equal(part.pixels, images.pixels[3:9]) and len(part) == 6
        assert part.labels.tolist() == [3, 4, 5, 6, 7, 8] and part.levels == 17
        assert part.captions == images.captions[3:9]
    assert images[torch.tensor([7, -1])].captions == ("image 7", "image 39")
    assert load("photos")[:2].labels is None and load("digits")[:2].captions is None
    assert len(images[:0]) == 0
    assert repr(images[:5]) == "Images(5 of 1x8x8, 17 levels, labels, captions)"


@pytest.mark.parametrize("index", [3, torch.ones(39, dtype=torch.bool), [[0, 1]]])
def test_selection_by_something_else(index):
    with pytest.raises(ValueError, match="index must be a slice.* 40 booleans, got shape"):
        gradient()[index]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pixels": torch.zeros(2, 1, 8, 8)}, "pixels must be a uint8 .*float32 .*2, 1, 8, 8"),
        ({"pixels": torch.zeros(8, 8, dtype=torch.uint8)}, r"pixels must be .*\(8, 8\)"),
        ({"pixels": torch.full((2, 1, 8, 8), 9, dtype=torch.uint8)}, "0 .. levels-1 = 3, got 9"),
        ({"levels": 1}, "levels must be an integer in 2 .. 256, got 1"),
        ({"labels": torch.zeros(3)}, "labels must be as many as the 2 images, got 3"),
        ({"captions": ("one",)}, "captions must be as many as the 2 images, got 1"),
    ],
)
def test_images_that_are_none(change, words):
    right = {"pixels": torch.zeros(2, 1, 8, 8, dtype=torch.uint8), "levels": 4}
    Images(**right)
    with pytest.raises(ValueError, match=words):
        Images(**right | change)


# Binarise and quantise


@pytest.mark.parametrize("name", ["gradient", "mnist"])
def test_binarise_draws_with_the_intensity(name):
    images = gradient(4000) if name == "gradient" else load("mnist", "test")[:1000]
    drawn = binarise(images, seed=1)
    assert drawn.levels == 2 and drawn.pixels.shape == images.pixels.shape
    assert drawn.pixels.dtype == torch.uint8 and torch.equal(drawn.labels, images.labels)
    for level in images.pixels.unique().tolist():
        at = images.pixels == level
        p = level / (images.levels - 1)
        n = int(at.sum())
        if level in (0, images.levels - 1):
            assert (drawn.pixels[at] == p).all()
        elif name == "gradient":  # 15 levels: one test of 3 errors each would often fail on 254
            error = (p * (1 - p) / n) ** 0.5
            assert abs(float(drawn.pixels[at].double().mean()) - p) < 3 * error, level
    p = images.pixels.double() / (images.levels - 1)
    error = float((p * (1 - p)).sum() ** 0.5)
    assert abs(float(drawn.pixels.sum() - p.sum())) < 3 * error


def test_binarise_depends_on_the_seed_alone():
    images = load("digits")
    torch.manual_seed(0)
    first = binarise(images, seed=3).pixels
    state = torch.get_rng_state()
    torch.manual_seed(1)
    assert torch.equal(first, binarise(images, seed=3).pixels)
    assert not torch.equal(first, binarise(images, seed=4).pixels)
    torch.manual_seed(0)
    assert torch.equal(state, torch.get_rng_state())  # the global generator is left alone


@pytest.mark.parametrize(
    ("old", "new", "table"),
    [
        (8, 2, [0, 0, 0, 0, 1, 1, 1, 1]),
        (8, 3, [0, 0, 0, 1, 1, 1, 2, 2]),
        (8, 8, [0, 1, 2, 3, 4, 5, 6, 7]),
        (17, 4, [0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3]),
    ],
)
def test_quantise_table(old, new, table):
    images = Images(torch.arange(old, dtype=torch.uint8).reshape(old, 1, 1, 1), old)
    assert quantise(images, new).pixels.flatten().tolist() == table
    assert quantise(images, new).levels == new


def test_quantise_of_8_bits_keeps_the_high_bits():
    images = Images(torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16), 256)
    assert torch.equal(quantise(images, 8).pixels, images.pixels >> 5)


def test_binarise_and_quantise_name_what_is_wrong():
    with pytest.raises(ValueError, match="levels must be an integer in 2 .. 17, got 18"):
        quantise(gradient(), 18)
    with pytest.raises(ValueError, match="levels must be an integer in 2 .. 17, got 4.0"):
        quantise(gradient(), 4.0)
    for function in (binarise, lambda x: quantise(x, 2)):
        with pytest.raises(ValueError, match="images must be Images.*got Tensor"):
            function(torch.zeros(1, 1, 8, 8))


# Files


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A copy of the data folder that may be damaged, in place of the repository's."""
    for file in data.FILES:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).symlink_to(data.DATA / file)
    monkeypatch.setattr(data, "DATA", tmp_path)
    return tmp_path


def missing(path):
    path.unlink()


def truncated(path):
    content = path.read_bytes()[:-1]
    path.unlink()  # the link, not the file
    path.write_bytes(content)


def altered(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [missing, truncated, altered])
@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("mnist", "mnist/t10k-labels-idx1-ubyte.gz"),
        ("emoji", "emoji/emoji.json"),
        ("emoji-noto", "emoji/noto.webp"),
        ("photos", "photos/cat.jpg"),
        ("paintings", "paintings/auvers.jpg"),
    ],
)
def test_a_damaged_file_is_named(copy, name, file, damage):
    damage(copy / file)
    words = {
        missing: "cannot be read (No such file",
        truncated: "is not the shipped file",
        altered: "is not the shipped file",
    }[damage]
    with pytest.raises(DataError) as error:
        load(name)
    assert str(copy / file) in str(error.value) and words in str(error.value)
    assert f"`git checkout -- data/{file}`" in str(error.value)


def test_the_other_hand_survives(copy):
    missing(copy / "emoji/noto.webp")
    assert len(load("emoji-twemoji")) == 1525


def test_verify_passes_and_reads_anew(copy):
    report = data.verify()
    assert [name for name, _, _ in report] == ["digits", "mnist", "emoji", "photos", "paintings"]
    assert all(ok for _, ok, _ in report), report
    load("photos")
    altered(copy / "photos/cat.jpg")
    missing(copy / "mnist/train-labels-idx1-ubyte.gz")
    bad = {name: message for name, ok, message in data.verify() if not ok}
    assert set(bad) == {"mnist", "photos"}
    assert "photos/cat.jpg is not the shipped file" in bad["photos"]
    assert "mnist/train-labels-idx1-ubyte.gz cannot be read" in bad["mnist"]


def test_mnist_unpacks_to_the_published_files(copy, monkeypatch):
    monkeypatch.setattr(data, "MNIST_MD5", (*data.MNIST_MD5[:3], "0" * 32))
    with pytest.raises(DataError, match="t10k-labels.* md5 0000"):
        load("mnist")


def test_other_digits_are_refused(monkeypatch):
    monkeypatch.setattr(data, "DIGITS_SHA256", "0" * 64)
    report = data.verify()
    assert report[0][:2] == ("digits", False) and "scikit-learn" in report[0][2]


def test_no_data_folder(monkeypatch, tmp_path):
    folder = str(data.DATA)
    monkeypatch.setattr(data, "DATA", tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"nowhere: install .*clone.*`pip install -e .`"):
        load("mnist")
    assert load("mnist", "test", root=folder)
    assert len(load("digits")) == 1000  # comes with scikit-learn


def test_the_table_lists_every_file_and_the_readme_every_pack():
    there = {str(f.relative_to(data.DATA)) for f in data.DATA.glob("*/*")}
    assert {f for f in there if not f.startswith("checkpoints/")} == set(data.FILES)
    readme = (data.DATA / "README.md").read_text()
    assert all(f"`{file.split('/')[0]}/`" in readme for file in data.FILES)
    assert all(md5 in readme for md5 in data.MNIST_MD5)


def test_checksums_identify_the_data_sets():
    sums = {name: data.checksum(name) for name in data.SHIPPED}
    assert len(set(sums.values())) == len(sums) and all(len(s) == 64 for s in sums.values())
    x = torch.cat([load("digits", split).pixels for split in SPLITS])
    assert sums["digits"] == hashlib.sha256(x.numpy().tobytes()).hexdigest()
    with pytest.raises(ValueError, match="name must be one of the shipped .*'cifar10'"):
        data.checksum("cifar10")


def test_the_environment_names_the_folder_and_the_import_is_light():
    code = (
        "import sys; from gencourse import data; print(data.DATA); print([m for m in "
        "('matplotlib', 'IPython', 'ipywidgets', 'torchvision') if m in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"GENCOURSE_DATA": "/elsewhere"},
    )
    assert run.stdout.split("\n")[:2] == ["/elsewhere", "[]"]


# Data sets online, through a stand-in for torchvision


@pytest.mark.parametrize("name", ["cifar10", "fashion-mnist", "celeba"])
def test_a_failed_download_is_explained(name, monkeypatch, tmp_path):
    def fail(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(torchvision.datasets, data.ONLINE[name], fail)
    with pytest.raises(DataError) as error:
        load(name, root=tmp_path)
    for word in (
        name,
        f"torchvision.datasets.{data.ONLINE[name]}",
        str(tmp_path),
        "connection",
        "OSError: no route to host",
        "these do not: digits, mnist, emoji, photos",
    ):
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("name", "size", "valid"), [("cifar10", (32, 32, 3), 5000), ("fashion-mnist", (28, 28), 10_000)]
)
def test_online_splits(name, size, valid, monkeypatch, tmp_path):
    class StandIn:
        classes = ["shirt", "boot"]

        def __init__(self, root, train, download):
            n = 12_000 if train else 30
            assert root == tmp_path and download
            self.data = np.broadcast_to(np.arange(n).reshape(n, *[1] * len(size)), (n, *size))
            self.data = (self.data % 251).astype(np.uint8)
            self.data[:, 0, 1] = 255  # row 0, column 1
            self.targets = [i % 2 for i in range(n)]

    monkeypatch.setattr(torchvision.datasets, data.ONLINE[name], StandIn)
    train, valid_, test = (load(name, split, root=tmp_path) for split in SPLITS)
    assert (len(train), len(valid_), len(test)) == (12_000 - valid, valid, 30)
    assert valid_.pixels[0, 0, 1, 1] == (12_000 - valid) % 251 and test.pixels[7, 0, 1, 1] == 7
    assert train.pixels.shape[1:] == ((3, 32, 32) if len(size) == 3 else (1, 28, 28))
    assert (train.pixels[:, :, 0, 1] == 255).all() and (train.pixels[:, :, 1, 0] < 255).all()
    assert train.pixels.is_contiguous() and train.pixels.dtype == torch.uint8
    assert test.labels.dtype == torch.int64 and test.labels[:3].tolist() == [0, 1, 0]
    assert train.classes == ("shirt", "boot")


def test_faces_are_cut_from_the_centre(monkeypatch, tmp_path):
    picture = np.zeros((218, 178, 3), np.uint8)
    picture[35:183, 15:163] = (250, 100, 50)  # the central 148x148
    faces = [(Image.fromarray(picture), None)] * 3
    monkeypatch.setattr(torchvision.datasets, "CelebA", lambda root, split, download: faces)
    images = load("celeba", "valid", root=tmp_path)
    assert images.pixels.shape == (3, 3, 64, 64)
    assert (images.pixels == torch.tensor([250, 100, 50]).view(3, 1, 1)).all()
