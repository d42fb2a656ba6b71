"""The base class of every autoregressive model: likelihood, sampling, completion, beam search.

An image is a sequence of sites (one channel of one pixel each), and the chain rule gives

    p(x) = prod_i p(x_i | x_1 .. x_{i-1}),

each factor a softmax over `levels` values. A model says in `forward` what the logits are, for all
sites in parallel; everything else follows and stands here, once.
"""

from contextlib import contextmanager

import torch
from torch import nn
from tqdm.auto import tqdm

from gencourse.metrics import bits_per_dim
from gencourse.models.masked import State


class Autoregressive(nn.Module):
    """p(x) = prod_i p(x_i | x_<i) over images x of integers 0 .. levels-1, (B, C, H, W).

    image_shape: (C, H, W).   levels: how many values a site can take.
    condition_dim: size of the condition vector, (B, condition_dim) floats; 0 for none.

    A subclass has a submodule `embed` (integers to floats: (B, C, H, W) -> (B, H, W, ..., D); the
    only part that reads pixels) and either
    - `network(embedded, condition=None, state=None)`, made of layers that take a state (see
      gencourse.models.masked): then sampling is cached; or
    - `forward(x, condition=None)` alone, the quick way to try an idea: then sampling makes a full
      pass for each site.
    """

    unit = "bits/dim"  # of the loss

    def __init__(self, *, image_shape, levels, condition_dim=0):
        super().__init__()
        image_shape = tuple(int(size) for size in image_shape)
        if len(image_shape) != 3 or min(image_shape) < 1:
            raise ValueError(f"image_shape: expected (C, H, W) from 1 each, got {image_shape}")
        if levels < 2:
            raise ValueError(f"levels: expected 2 or more, got {levels}")
        if condition_dim < 0:
            raise ValueError(f"condition_dim: expected 0 or more, got {condition_dim}")
        self.image_shape, self.levels, self.condition_dim = image_shape, levels, condition_dim

    def forward(self, x, condition=None):
        """Logits (B, C, H, W, levels) of all sites in parallel, each given the sites before it."""
        self.check_images("x", x)
        return self.network(self.embed(x), self.check_condition(condition, len(x)))

    def network(self, embedded, condition=None, state=None):
        """Embedded image -> logits (B, C, H, W, levels); with a state, (B, levels) at its site."""
        raise NotImplementedError(f"{type(self).__name__} needs a `network` or a `forward`")

    def sites(self):
        """[(c, h, w), ...] in generation order: row by row, left to right, R then G then B."""
        channels, height, width = self.image_shape
        return [(c, h, w) for h in range(height) for w in range(width) for c in range(channels)]

    # ---------------------------------------------------------------- likelihood

    def site_log_probs(self, x, condition=None):
        """log p(x_i | x_<i) of every site, (B, C, H, W), in nats."""
        log_p = self(x, condition).log_softmax(dim=-1)
        return log_p.gather(-1, x.long().unsqueeze(-1)).squeeze(-1)

    def log_prob(self, x, condition=None, given=None):
        """log p(x) of each image, (B,), in nats: exact, over all sites outside `given`.

        given: boolean (B, C, H, W) or (C, H, W), a prefix of `sites()`: the sum is then
        log p(x outside given | x inside given).
        """
        log_p = self.site_log_probs(x, condition)
        if given is not None:
            log_p = log_p.masked_fill(self.check_known("given", given, x, prefix=True), 0.0)
        return log_p.sum(dim=(1, 2, 3))

    def loss(self, x, condition=None):
        """Mean negative log-likelihood of the batch: a scalar in bits per dimension."""
        return bits_per_dim(-self.log_prob(x, condition), x).mean()

    # ---------------------------------------------------------------- generation

    def sample(
        self, n, condition=None, *, temperature=1.0, generator=None, cached=True, progress=False
    ):
        """n images drawn from the model by ancestral sampling: (n, C, H, W) integers.

        condition: (n, condition_dim), a row an image.   temperature: divides the logits; below 1
        the samples are more typical and less diverse.   generator: a torch.Generator.
        cached: compute only what each new site needs; False makes a full pass for every site, with
        the same result.   progress: show a bar.
        """
        if n < 1:
            raise ValueError(f"n: expected 1 or more, got {n}")
        x = torch.zeros(n, *self.image_shape, dtype=torch.long, device=self._device())
        return self.complete(
            x,
            torch.zeros_like(x, dtype=torch.bool),
            condition,
            temperature=temperature,
            generator=generator,
            cached=cached,
            progress=progress,
        )

    def complete(
        self,
        x,
        known,
        condition=None,
        *,
        temperature=1.0,
        generator=None,
        cached=True,
        progress=False,
    ):
        """Draws the unknown sites of x given the known ones: (B, C, H, W) integers.

        known: boolean (B, C, H, W) or (C, H, W), a prefix of `sites()` in each image, so that the
        draw is exact; see `complete_weighted` for any other set. The rest is as in `sample`.
        """
        self.check_images("x", x)
        known = self.check_known("known", known, x, prefix=True)
        return self._write(x, known, condition, temperature, generator, cached, progress)

    def complete_weighted(
        self, x, known, k, condition=None, *, generator=None, cached=True, progress=False
    ):
        """Draws the unknown sites given any set of known ones, approximately.

        Each image is written k times with its known sites clamped, which ignores what lies ahead;
        the copies are weighted by p of the known sites given those before them (importance
        sampling), and one is drawn by weight. Exact as k grows.

        Returns (images (B, C, H, W), effective sample size (B,)): from 1 (one copy carries all the
        weight: do not trust it) to k.
        """
        self.check_images("x", x)
        if k < 1:
            raise ValueError(f"k: expected 1 or more, got {k}")
        known = self.check_known("known", known, x, prefix=False).repeat_interleave(k, 0)
        condition = self.check_condition(condition, len(x))
        condition = None if condition is None else condition.repeat_interleave(k, 0)
        x = x.repeat_interleave(k, 0)
        images = self._write(x, known, condition, 1.0, generator, cached, progress)
        with evaluation(self):
            log_p = self.site_log_probs(images, condition)
        weights = log_p.masked_fill(~known, 0.0).sum(dim=(1, 2, 3)).view(-1, k).softmax(dim=1)
        chosen = torch.multinomial(weights, 1, generator=generator).squeeze(1)  # (B,)
        images = images.unflatten(0, (-1, k))  # (B, k, C, H, W)
        return images[torch.arange(len(images)), chosen], 1 / weights.square().sum(dim=1)

    def beam_search(self, x, known, width, condition=None, *, cached=True, progress=False):
        """Looks for the most probable images that agree with x where known (any set of sites).

        At each site every one of the `width` best beginnings is extended by every level, and the
        best `width` are kept: a heuristic; with width 1 it is greedy.

        Returns (images (B, width, C, H, W), log p (B, width) in nats), the best first; a log p of
        -inf marks a place left empty because fewer than `width` images exist.
        """
        self.check_images("x", x)
        if width < 1:
            raise ValueError(f"width: expected 1 or more, got {width}")
        n, known = len(x), self.check_known("known", known, x, prefix=False)
        condition = self.check_condition(condition, n)
        condition = None if condition is None else condition.repeat_interleave(width, 0)
        first = torch.arange(n, device=x.device)[:, None] * width  # each image's first beam
        with evaluation(self):
            image = x.long().masked_fill(~known, 0).repeat_interleave(width, 0)
            state = self._state(image, condition, cached)
            score = torch.full((n, width), -torch.inf, device=x.device)
            score[:, 0] = 0.0  # at first there is one beginning, the empty one
            for step, (c, h, w) in self._steps(progress):
                log_p = state.logits(step).log_softmax(dim=-1).view(n, width, -1)
                ruled_out = torch.arange(self.levels, device=x.device) != x[:, c, h, w, None]
                ruled_out = (ruled_out & known[:, c, h, w, None])[:, None]  # (n, 1, levels)
                extended = (score[..., None] + log_p).masked_fill(ruled_out, -torch.inf)
                score, best = extended.flatten(1).topk(width)  # over width * levels
                state.select((first + best // self.levels).flatten())
                state.write(step, (best % self.levels).flatten())
        return state.image.unflatten(0, (n, width)), score

    def _write(self, x, known, condition, temperature, generator, cached, progress):
        """The only sampling loop: visits the sites in order, draws those that are not known."""
        if not temperature > 0:
            raise ValueError(f"temperature: expected a number above 0, got {temperature}")
        condition = self.check_condition(condition, len(x))
        with evaluation(self):
            image = x.long().masked_fill(~known, 0)  # nothing of an unknown site can be used
            state = self._state(image, condition, cached)
            for step, (c, h, w) in self._steps(progress):
                p = (state.logits(step) / temperature).softmax(dim=-1)  # (B, levels)
                drawn = torch.multinomial(p, 1, generator=generator).squeeze(1)
                state.write(step, torch.where(known[:, c, h, w], image[:, c, h, w], drawn))
        return image

    def _state(self, image, condition, cached):
        has_network = type(self).network is not Autoregressive.network
        return (State if cached and has_network else FullPasses)(self, image, condition)

    def _steps(self, progress):
        return tqdm(list(enumerate(self.sites())), disable=not progress, desc="sites")

    def _device(self):
        return next(self.parameters()).device

    # ---------------------------------------------------------------- checks

    def check_images(self, name, x):
        """Raises ValueError unless x is (B, C, H, W), of an integer type, within 0 .. levels-1."""
        shape = ", ".join(str(size) for size in self.image_shape)
        if x.dim() != 4 or tuple(x.shape[1:]) != self.image_shape or len(x) == 0:
            raise ValueError(f"{name}: expected shape (B, {shape}), got {tuple(x.shape)}")
        if x.is_floating_point() or x.is_complex() or x.dtype == torch.bool:
            raise ValueError(f"{name}: expected an integer tensor, got {x.dtype}")
        low, high = (int(v) for v in torch.aminmax(x))
        if low < 0 or high >= self.levels:
            raise ValueError(
                f"{name}: expected levels 0 .. {self.levels - 1}, got values from {low} to {high}"
            )

    def check_condition(self, condition, n):
        """The condition in the model's type; ValueError unless it is what the model takes."""
        if self.condition_dim == 0:
            if condition is not None:
                raise ValueError(
                    "condition: expected None, since the model was made with condition_dim=0, "
                    f"got {tuple(condition.shape)}"
                )
            return None
        if condition is None:
            raise ValueError(f"condition: expected shape ({n}, {self.condition_dim}), got None")
        if tuple(condition.shape) != (n, self.condition_dim) or not condition.is_floating_point():
            raise ValueError(
                f"condition: expected floats of shape ({n}, {self.condition_dim}), "
                f"got {condition.dtype} of {tuple(condition.shape)}"
            )
        return condition.to(next(self.parameters()).dtype)

    def check_known(self, name, known, x, *, prefix):
        """The mask as (B, C, H, W); ValueError unless boolean, of that shape and, where `prefix`,
        made of the first sites of each image."""
        if known.dtype != torch.bool:
            raise ValueError(f"{name}: expected a boolean tensor, got {known.dtype}")
        if tuple(known.shape) not in (tuple(x.shape), self.image_shape):
            raise ValueError(
                f"{name}: expected shape {tuple(x.shape)} or {self.image_shape}, "
                f"got {tuple(known.shape)}"
            )
        known = known.expand(x.shape)
        if prefix:
            sites = self.sites()
            c, h, w = torch.tensor(sites).T
            ordered = known[:, c, h, w]  # (B, sites)
            gaps = (ordered[:, 1:] & ~ordered[:, :-1]).nonzero()
            if len(gaps):
                i, step = gaps[0].tolist()
                raise ValueError(
                    f"{name}: expected a prefix of sites(), but in image {i} "
                    f"site {sites[step + 1]} is known and site {sites[step]}, before it, is not; "
                    "complete_weighted takes any set"
                )
        return known


class FullPasses:
    """The naive way to write an image: a full forward pass for every site. Same use as State."""

    def __init__(self, model, image, condition):
        self.model, self.image, self.condition, self.sites = model, image, condition, model.sites()

    def logits(self, step):
        c, h, w = self.sites[step]
        return self.model(self.image, self.condition)[:, c, h, w]

    def write(self, step, values):
        c, h, w = self.sites[step]
        self.image[:, c, h, w] = values

    def select(self, indices):
        self.image = self.image[indices]


@contextmanager
def evaluation(model):
    """Evaluation mode without gradients; the mode that was set before comes back after."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)
