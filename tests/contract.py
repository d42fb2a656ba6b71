"""The contract of every autoregressive model, as checks that raise AssertionError.

`test_contract.py` runs them over all models of CASES, and over planted bugs, which must fail.
A new model adds one Case and inherits everything.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product

import pytest
import torch
from safetensors.torch import load_file, save_file

from gencourse.audit import audit, randomised
from gencourse.models.masked import State
from gencourse.models.pixelcnn import PixelCNN
from gencourse.models.sequence import SequenceModel


@dataclass(frozen=True)
class Case:
    """make(image_shape=, levels=, condition_dim=) -> a small model;
    promised(model) -> boolean (N, N) in generation order: the context that the paper promises."""

    make: Callable
    promised: Callable


def everything_before(model):
    n = len(model.sites())
    return torch.ones(n, n).tril(-1).bool()


def pixelcnn_context(model):
    """What reaches each site through PixelCNN's windows: reachability in the graph of its layers,
    worked out from the offsets of the paper, without a mask or a convolution."""

    def reads(radius, mask_type):
        def allowed(site, source):
            (c, h, w), (c2, h2, w2) = site, source
            if abs(h - h2) > radius or abs(w - w2) > radius:
                return False
            if (h2, w2) == (h, w):
                return c2 < c if mask_type == "A" else c2 <= c
            return (h2, w2) < (h, w)

        sites = model.sites()
        return torch.tensor([[allowed(i, j) for j in sites] for i in sites]).double()

    reach = reads(model.first.radius, "A")
    for block in model.blocks:
        reach = (reads(block.conv.radius, "B") @ reach).clamp(max=1)
    return reach > 0


def spiral(image_shape):
    """An order that is anything but row by row: from the outside in, last channel first."""
    channels, height, width = image_shape
    rim = lambda h, w: min(h, w, height - 1 - h, width - 1 - w)  # noqa: E731
    pixels = sorted(product(range(height), range(width)), key=lambda p: (rim(*p), -p[0], p[1]))
    return [(c, h, w) for h, w in pixels for c in reversed(range(channels))]


def spiral_sequence(*, image_shape, **settings):
    order = spiral(image_shape) if len(image_shape) == 3 else None
    return SequenceModel(image_shape=image_shape, order=order, hidden=10, layers=2, **settings)


CASES = {
    "pixelcnn": Case(
        partial(PixelCNN, features=24, layers=2, first_kernel_size=5), pixelcnn_context
    ),
    "sequence": Case(partial(SequenceModel, hidden=12), everything_before),
    "sequence in a spiral": Case(spiral_sequence, everything_before),
}
TINY = [((1, 2, 3), 2), ((3, 1, 2), 2), ((1, 2, 2), 3), ((1, 1, 2), 5)]
SMALL = [((1, 5, 6), 3), ((3, 3, 4), 2)]
OF_LESSONS = [((1, 8, 8), 17), ((1, 28, 28), 2), ((3, 32, 32), 8), ((3, 32, 32), 256)]


def images(shape, levels, n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(levels, (n, *shape), generator=generator)


def conditions(condition_dim, n, seed=1):
    if condition_dim == 0:
        return None
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, condition_dim, generator=generator, dtype=torch.float64)


def build(make, shape, levels, condition_dim=0):
    """A model with random parameters, large enough that every path makes a difference."""
    model = randomised(make(image_shape=shape, levels=levels, condition_dim=condition_dim))
    for parameter in model.parameters():
        parameter.data *= 2
    return model


def all_images(shape, levels):
    sites = torch.tensor(list(product(range(levels), repeat=shape[0] * shape[1] * shape[2])))
    return sites.view(-1, *shape)


# ------------------------------------------------------------------------ 1. causality


def check_causality(make, promised, shape, levels, condition_dim=0):
    """Everywhere: no leak, and exactly the promised context arrives."""
    model = build(make, shape, levels, condition_dim)
    condition = conditions(condition_dim, 1)

    def forward(x):
        return model(x, None if condition is None else condition.expand(len(x), -1))

    logits = forward(images(shape, levels, 64))
    assert logits.amax(0).sub(logits.amin(0)).max() > 0.1, "the logits hardly depend on x"
    report = audit(forward, shape, levels, model.sites(), trials=8)
    assert report.ok, str(report)
    difference = report.arrives != promised(model)
    assert not difference.any(), f"context differs from the promise at {difference.nonzero()[:3]}"


def check_causality_at_some(make, shape, levels, n=16):
    """At n random sites: changing them and all later ones leaves their logits as they were."""
    model = build(make, shape, levels)
    x = images(shape, levels, 1)
    sites = model.sites()
    c, h, w = torch.tensor(sites).T
    with torch.no_grad():
        before = model(x)[0, c, h, w]  # (N, levels)
        for step in torch.randperm(len(sites), generator=torch.Generator().manual_seed(2))[:n]:
            changed = x.clone()
            later = slice(int(step), None)
            changed[0, c[later], h[later], w[later]] += 1
            after = model(changed % levels)[0, c, h, w]
            assert torch.equal(after[: step + 1], before[: step + 1]), f"leak at {sites[step]}"
    assert not torch.equal(after, before), "the logits do not depend on x"


# ------------------------------------------------------------------------ 2, 3. probabilities


def check_normalised(make, shape, levels, condition_dim=0):
    model = build(make, shape, levels, condition_dim)
    x = all_images(shape, levels)
    condition = conditions(condition_dim, 1)
    log_p = model.log_prob(x, None if condition is None else condition.expand(len(x), -1))
    assert abs(log_p.exp().sum().item() - 1) < 1e-6, f"sums to {log_p.exp().sum().item()}"
    if condition is not None:
        other = model.log_prob(x, -condition.expand(len(x), -1))
        assert (other - log_p).abs().max() > 0.01, "the condition is ignored"
    half = torch.zeros(len(model.sites()), dtype=torch.bool)
    half[: len(half) // 2] = True
    c, h, w = torch.tensor(model.sites()).T
    given = torch.zeros(shape, dtype=torch.bool)
    given[c, h, w] = half
    if condition is None:  # conditional log p given a prefix: sums to 1 for each prefix
        rest = model.log_prob(x, given=given).exp().sum().item()
        assert abs(rest - levels ** half.sum().item()) < 1e-6, "log_prob(given) is not normalised"


def check_frequencies(make, shape, levels, cached, condition_dim=0, n=20_000):
    """Chi-square of n samples against exp(log_prob); fails by chance once in 10,000 seeds."""
    model = build(make, shape, levels, condition_dim)
    condition = conditions(condition_dim, 1)
    expand = lambda k: None if condition is None else condition.expand(k, -1)  # noqa: E731
    x = all_images(shape, levels)
    expected = n * model.log_prob(x, expand(len(x))).exp()
    generator = torch.Generator().manual_seed(3)
    drawn = model.sample(n, expand(n), generator=generator, cached=cached).flatten(1)
    places = levels ** torch.arange(drawn.shape[1] - 1, -1, -1)
    counts = torch.bincount((drawn * places).sum(1), minlength=len(x)).double()
    rare = expected < 5  # pooled, as the test wants
    counts = torch.cat([counts[~rare], counts[rare].sum()[None]])
    expected = torch.cat([expected[~rare], expected[rare].sum()[None]])
    statistic = ((counts - expected) ** 2 / expected.clamp(min=1e-9)).sum()
    p_value = torch.special.gammaincc(torch.tensor((len(counts) - 1) / 2.0), statistic.cpu() / 2)
    assert p_value > 1e-4, f"chi-square p-value {p_value:.1e}"


# ------------------------------------------------------------------------ 4. cache


def check_cached(make, shape, levels, condition_dim=0, dtype=torch.float64, tolerance=1e-9):
    """The logits site by site, from the state, equal those of one pass over the image."""
    model = build(make, shape, levels, condition_dim).to(dtype)
    x, n = images(shape, levels, 2), 2
    condition = conditions(condition_dim, n)
    condition = None if condition is None else condition.to(dtype)
    with torch.no_grad():
        whole = model(x, condition)
        tolerance *= max(1.0, whole.abs().max().item() / 10)  # logits of everyday size
        state = State(model, torch.zeros_like(x), condition)
        for step, (c, h, w) in enumerate(model.sites()):
            error = (state.logits(step) - whole[:, c, h, w]).abs().max().item()
            assert error < tolerance, f"cached logits differ by {error:.1e} at site {(c, h, w)}"
            state.write(step, x[:, c, h, w])


def check_same_samples(make, shape, levels, condition_dim=0):
    model = build(make, shape, levels, condition_dim)
    draw = lambda cached: model.sample(  # noqa: E731
        4, conditions(condition_dim, 4), generator=torch.Generator().manual_seed(4), cached=cached
    )
    cached, naive = draw(True), draw(False)
    assert torch.equal(cached, naive), "cached and uncached samples differ"
    assert tuple(cached.shape) == (4, *shape) and cached.max() < levels and cached.min() >= 0


# ------------------------------------------------------------------------ 5. completion


def check_complete(make, shape, levels):
    model = build(make, shape, levels)
    x = images(shape, levels, 8)
    seeded = lambda: torch.Generator().manual_seed(5)  # noqa: E731
    nothing, everything = (torch.full(x.shape, value) for value in (False, True))
    assert torch.equal(model.complete(x, everything), x), "all known: not the input"
    free = model.complete(x, nothing, generator=seeded())
    assert torch.equal(free, model.sample(8, generator=seeded())), "nothing known: not a sample"
    sites = model.sites()
    c, h, w = torch.tensor(sites).T
    prefix = torch.zeros(x.shape, dtype=torch.bool)
    for i in range(8):  # a prefix of another length in each image
        steps = slice(0, i * len(sites) // 8)
        prefix[i, c[steps], h[steps], w[steps]] = True
    for cached in (True, False):
        completed = model.complete(x, prefix, generator=seeded(), cached=cached)
        assert torch.equal(completed[prefix], x[prefix]), "a known site was changed"
        assert not torch.equal(completed, x), "nothing was drawn"
    hole = torch.ones(shape, dtype=torch.bool)
    hole[sites[0]] = False
    with pytest.raises(ValueError, match=r"complete_weighted") as error:
        model.complete(x, hole)
    assert str(sites[1]) in str(error.value), "the error does not name the site"
    weighted, size = model.complete_weighted(x, hole, 16, generator=seeded())
    assert torch.equal(weighted[:, hole], x[:, hole]), "complete_weighted changed a known site"
    assert (size >= 1 - 1e-9).all() and (size <= 16 + 1e-9).all()


def check_weighted_is_exact(make, n=4_000):
    """Inpainting the first site given the last one: frequencies against the exact posterior."""
    model = build(make, (1, 1, 3), 2)
    x = torch.tensor([[[[0, 0, 1]]]])
    known = torch.tensor([[[False, False, True]]])
    every = all_images((1, 1, 3), 2)
    every = every[every[..., 2].flatten() == 1]
    exact = model.log_prob(every).softmax(0)  # p(x1, x2 | x3 = 1)
    generator = torch.Generator().manual_seed(6)
    drawn, _ = model.complete_weighted(x.repeat(n, 1, 1, 1), known, 64, generator=generator)
    frequency = (drawn[:, None] == every).all(dim=(-1)).flatten(1).double().mean(0)
    assert (frequency - exact).abs().max() < 0.04, f"{frequency} against {exact}"


def check_beam_search(make, shape=(1, 2, 2), levels=3):
    """A beam as wide as the space finds the mode; log p is what log_prob says; known is kept."""
    model = build(make, shape, levels)
    every = all_images(shape, levels)
    log_p = model.log_prob(every)
    nothing = torch.zeros(shape, dtype=torch.bool)
    found, score = model.beam_search(every[:2], nothing, width=len(every))
    assert torch.equal(found[0, 0], every[log_p.argmax()]), "the mode was not found"
    assert torch.allclose(score[0], log_p.sort(descending=True).values), "scores differ"
    assert torch.allclose(model.log_prob(found[1]), score[1]), "scores are not log_prob"
    last = nothing.clone()
    last[model.sites()[-1]] = True
    found, score = model.beam_search(every[-2:], last, width=4)
    assert torch.equal(found[..., last][:, 0], every[-2:, last]), "a known site was changed"
    naive, _ = model.beam_search(every[-2:], last, width=4, cached=False)
    assert torch.equal(found, naive), "cached and uncached beams differ"


# ------------------------------------------------------------------------ 6, 7. manners


def check_gradients(make, shape, levels, condition_dim=0):
    model = build(make, shape, levels, condition_dim).train()
    model.loss(images(shape, levels, 4), conditions(condition_dim, 4)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, f"{name} gets no gradient"
        assert parameter.grad.isfinite().all() and parameter.grad.abs().max() > 0, name


def check_round_trip(make, shape, levels, path):
    model = build(make, shape, levels)
    save_file(model.state_dict(), path)
    other = build(make, shape, levels)
    for parameter in other.parameters():
        torch.nn.init.zeros_(parameter)
    other.load_state_dict(load_file(path))
    x = images(shape, levels, 1)
    assert torch.equal(model(x), other(x)), "the model is not what its state_dict says"


def check_errors(make):
    """Every wrong input: a ValueError that names the argument, what was expected, what came."""
    shape, levels = (1, 2, 3), 2
    plain, conditional = build(make, shape, levels), build(make, shape, levels, 3)
    x, known = images(shape, levels, 2), torch.zeros(2, *shape, dtype=torch.bool)
    c = conditions(3, 2)
    wrong = {
        "x: expected shape": [lambda: plain(x[:, :, :1]), lambda: plain(x[0])],
        "x: expected an integer tensor, got torch.float32": [lambda: plain.log_prob(x.float())],
        "x: expected levels 0 .. 1, got values from 0 to 2": [
            lambda: plain.loss(torch.tensor([[[[0, 1, 2], [0, 0, 0]]]]))
        ],
        "x: expected levels 0 .. 1, got values from -1": [lambda: plain.complete(x - 1, known)],
        "condition: expected None": [lambda: plain(x, c), lambda: plain.sample(2, c)],
        r"condition: expected shape \(2, 3\), got None": [
            lambda: conditional(x),
            lambda: conditional.sample(2),
        ],
        "condition: expected floats of shape": [
            lambda: conditional(x, c[:1]),
            lambda: conditional(x, c.long()),
        ],
        "known: expected a boolean": [lambda: plain.complete(x, known.int())],
        "known: expected shape": [lambda: plain.complete(x, known[:, :, :1])],
        "given: expected a prefix": [lambda: plain.log_prob(x, given=hole(plain))],
        "temperature: expected": [lambda: plain.sample(1, temperature=0)],
        "n: expected 1": [lambda: plain.sample(0)],
        "k: expected 1": [lambda: plain.complete_weighted(x, known, 0)],
        "width: expected 1": [lambda: plain.beam_search(x, known, 0)],
        "image_shape: expected": [
            lambda: make(image_shape=(2, 3), levels=2),
            lambda: make(image_shape=(1, 0, 3), levels=2),
        ],
        "levels: expected 2": [lambda: make(image_shape=shape, levels=1)],
        "condition_dim: expected 0": [lambda: make(image_shape=shape, levels=2, condition_dim=-1)],
    }
    for message, calls in wrong.items():
        for call in calls:
            with pytest.raises(ValueError, match=message):
                call()


def hole(model):
    """A mask that is not a prefix: all but the first site."""
    mask = torch.ones(model.image_shape, dtype=torch.bool)
    mask[model.sites()[0]] = False
    return mask
