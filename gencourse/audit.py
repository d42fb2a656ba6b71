"""The audit: which sites of an autoregressive model leak, and which context never arrives.

It asks nothing of the model but logits. One site of an image is changed; wherever the logits
change too, the site has arrived. A site that arrives at itself or before itself is a leak: the
model reads the answer, its likelihood is a fiction and its samples are noise. An earlier site
that never arrives is lost context, a blind spot: no error, but a worse model than it could be.
"""

import copy
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Audit:
    """What the audit found.

    sites: [(c, h, w), ...] in generation order.
    arrives: boolean (N, N) in that order; [i, j]: changing site j changes the logits at site i.
    """

    sites: list
    arrives: torch.Tensor

    @property
    def leaks(self):
        """[(site, source), ...]: a source that the site must not see, itself or later, but does."""
        return self._pairs(self.arrives & ~self._earlier())

    @property
    def missing(self):
        """[(site, source), ...]: a source before the site that never arrives there."""
        return self._pairs(~self.arrives & self._earlier())

    @property
    def ok(self):
        """No leak. Missing context is no error: some models promise less than everything."""
        return not self.leaks

    def context(self, site):
        """For one site: boolean (N,) in generation order, the sites that arrive there."""
        return self.arrives[self._number(site)]

    def __str__(self):
        n, earlier = len(self.sites), self._earlier().sum().item()
        lines = [f"{n} sites, {earlier} pairs of a site and an earlier one"]
        lines.append(self._line("leaks", self.leaks, "sees", "all closed: no site sees itself"))
        lines.append(self._line("missing", self.missing, "never sees", "every context arrives"))
        return "\n".join(lines)

    def _line(self, title, pairs, verb, fine):
        if not pairs:
            return f"{title:8} 0 pairs: {fine}"
        site, source = pairs[0]
        where = len({site for site, _ in pairs})
        return f"{title:8} {len(pairs)} pairs at {where} sites; the first: {site} {verb} {source}"

    def _pairs(self, which):
        return [(self.sites[i], self.sites[j]) for i, j in which.nonzero().tolist()]

    def _number(self, site):
        if site not in self.sites:
            raise ValueError(f"site: expected one of the {len(self.sites)} sites, got {site}")
        return self.sites.index(site)

    def _earlier(self):
        """(N, N): [i, j] is true where j comes before i."""
        return torch.ones_like(self.arrives).tril(-1)


def audit(forward, image_shape, levels, order=None, *, trials=4, seed=0, batch_size=128):
    """Audits any callable x -> logits by perturbation; returns an `Audit`.

    forward: takes integers (B, C, H, W) in 0 .. levels-1, returns logits (B, C, H, W, levels), the
    student's or a third party's; for a module, `randomised(module)`, since a layer whose weights
    start at zero hides what it would do. image_shape: (C, H, W).
    order: the sites [(c, h, w), ...] in generation order; None for row by row, channel last.
    trials: random images that are tried; what arrives in any of them arrives.

    Costs trials * (C * H * W + 1) forward passes of one image.
    """
    channels, height, width = image_shape
    if order is None:
        order = [(c, h, w) for h in range(height) for w in range(width) for c in range(channels)]
    c, h, w = torch.tensor(order).T
    n = len(order)
    if n != channels * height * width or len(set(order)) != n:
        raise ValueError(
            f"order: expected each of the {channels * height * width} sites once, got {n} sites, "
            f"{len(set(order))} different"
        )
    generator = torch.Generator().manual_seed(seed)
    arrives = torch.zeros(n, n, dtype=torch.bool)
    spread = 0.0
    for _ in range(trials):
        x = torch.randint(levels, (1, *image_shape), generator=generator)
        changed = x.repeat(n, 1, 1, 1)  # image j differs from x at site j alone
        step = torch.randint(1, levels, (n,), generator=generator)
        changed[torch.arange(n), c, h, w] = (changed[torch.arange(n), c, h, w] + step) % levels
        logits = _logits(forward, x, levels)[0]
        tolerance = 1e3 * torch.finfo(logits.dtype).eps * logits.abs().max().clamp(min=1.0)
        for start in range(0, n, batch_size):
            some = _logits(forward, changed[start : start + batch_size], levels)
            difference = (some - logits).abs().amax(dim=-1)  # (b, C, H, W)
            spread = max(spread, difference.max().item())
            arrives[:, start : start + batch_size] |= (difference > tolerance)[:, c, h, w].T
    if spread == 0:
        raise ValueError("forward: expected logits that depend on x, got the same for all images")
    return Audit(list(order), arrives)


def _logits(forward, x, levels):
    with torch.no_grad():
        logits = forward(x)
    if tuple(logits.shape) != (*x.shape, levels):
        raise ValueError(
            f"forward: expected logits of shape {(*x.shape, levels)}, got {tuple(logits.shape)}"
        )
    return logits.cpu()


def randomised(module, seed=0):
    """A copy in float64 and evaluation mode with all parameters drawn anew.

    Matrices are drawn with variance 2 / fan-in, which keeps a signal alive through many layers,
    vectors with standard deviation 0.3: nothing is zero, so every path that exists is open.
    """
    module = copy.deepcopy(module).double().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            fan_in = parameter[0].numel() if parameter.dim() > 1 else 1
            parameter.copy_(noise * ((2 / fan_in) ** 0.5 if parameter.dim() > 1 else 0.3))
    return module


def receptive_field(model, site, images=8, seed=0):
    """How strongly each pixel's embedding moves the logits at a site: (H, W), zero where unseen.

    The gradient of the logits at `site` = (c, h, w) with respect to the output of `embed`, summed
    in absolute value over levels, features and a few random images. For a `network` model.
    """
    channels, height, width = model.image_shape
    if site not in model.sites():
        raise ValueError(f"site: expected (c, h, w) within {model.image_shape}, got {site}")
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(model.levels, (images, channels, height, width), generator=generator)
    embedded = model.embed(x).detach().requires_grad_()  # (B, H, W, ..., D)
    c, h, w = site
    logits = model.network(embedded)[:, c, h, w]  # (B, levels)
    total = torch.zeros(height, width, dtype=embedded.dtype)
    for level in range(model.levels):  # level by level, so that opposite signs do not cancel
        (gradient,) = torch.autograd.grad(logits[:, level].sum(), embedded, retain_graph=True)
        total += gradient.abs().flatten(3).sum(dim=(0, 3))
    return total
