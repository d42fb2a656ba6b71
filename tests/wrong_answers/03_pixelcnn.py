"""Answers to lesson 03 that look right and are wrong. Each must lose its points."""

WRONG = {
    "ex_mask": [
        # the two masks swapped
        """
def my_mask(mask_type, kernel_size):
    centre = kernel_size // 2
    mask = torch.zeros(kernel_size, kernel_size)
    mask[:centre] = 1
    mask[centre, :centre] = 1
    mask[centre, centre] = float(mask_type == "A")
    return mask
""",
        # right at 3 x 3 and wrong at any other size: only the row above is open
        """
def my_mask(mask_type, kernel_size):
    centre = kernel_size // 2
    mask = torch.zeros(kernel_size, kernel_size)
    mask[centre - 1] = 1
    mask[centre, :centre] = 1
    mask[centre, centre] = float(mask_type == "B")
    return mask
""",
        # a triangle, as in attention over a sequence
        """
def my_mask(mask_type, kernel_size):
    return torch.ones(kernel_size, kernel_size).tril(0 if mask_type == "B" else -1)
""",
    ],
    "ex_context": [
        # sums the change over levels: opposite changes cancel
        """
def my_context(forward, x, row, column):
    height, width = x.shape[-2:]
    changes = torch.zeros(height, width, dtype=torch.bool)
    before = forward(x)[0, 0, row, column]
    for r in range(height):
        for c in range(width):
            flipped = x.clone()
            flipped[0, 0, r, c] = 1 - flipped[0, 0, r, c]
            changes[r, c] = (forward(flipped)[0, 0, row, column] - before).sum().abs() > 1e-9
    return changes
""",
        # never undoes a flip, so that each step compares with another image
        """
def my_context(forward, x, row, column):
    height, width = x.shape[-2:]
    changes = torch.zeros(height, width, dtype=torch.bool)
    before = forward(x)[0, 0, row, column]
    flipped = x.clone()
    for r in range(height):
        for c in range(width):
            flipped[0, 0, r, c] = 1 - flipped[0, 0, r, c]
            changes[r, c] = (forward(flipped)[0, 0, row, column] - before).abs().max() > 1e-9
    return changes
""",
        # assumes what it should measure: looks at earlier pixels only, and so finds no leak
        """
def my_context(forward, x, row, column):
    height, width = x.shape[-2:]
    changes = torch.zeros(height, width, dtype=torch.bool)
    before = forward(x)[0, 0, row, column]
    for r in range(height):
        for c in range(width):
            if (r, c) >= (row, column):
                continue
            flipped = x.clone()
            flipped[0, 0, r, c] = 1 - flipped[0, 0, r, c]
            changes[r, c] = (forward(flipped)[0, 0, row, column] - before).abs().max() > 1e-9
    return changes
""",
    ],
    "ex_loss": [
        # per pixel, not per dimension: right for one channel
        """
def my_bits_per_dim(logits, x):
    log_p = logits.log_softmax(dim=-1).gather(-1, x.long().unsqueeze(-1)).squeeze(-1)
    pixels = x.shape[-1] * x.shape[-2]
    return -log_p.sum(dim=(1, 2, 3)) / (pixels * torch.tensor(2.0).log())
""",
        # log of the logits' share without a softmax over levels: right when all are equal
        """
def my_bits_per_dim(logits, x):
    log_p = logits.log_softmax(dim=-2).gather(-1, x.long().unsqueeze(-1)).squeeze(-1)
    scale = torch.tensor(float(logits.shape[-1] / logits.shape[-2])).log()
    return -(log_p - scale).mean(dim=(1, 2, 3)) / torch.tensor(2.0).log()
""",
        # nats, not bits
        """
def my_bits_per_dim(logits, x):
    log_p = logits.log_softmax(dim=-1).gather(-1, x.long().unsqueeze(-1)).squeeze(-1)
    return -log_p.mean(dim=(1, 2, 3))
""",
    ],
    "ex_sample": [
        # all sites from one pass over the empty image
        """
def my_sample(forward, shape, u):
    x = torch.zeros(1, *shape, dtype=torch.long)
    p = forward(x)[0].softmax(dim=-1)
    return (p.cumsum(dim=-1) <= u[..., None]).sum(-1)[None]
""",
        # the likeliest level, not a drawn one
        """
def my_sample(forward, shape, u):
    channels, height, width = shape
    x = torch.zeros(1, channels, height, width, dtype=torch.long)
    for h in range(height):
        for w in range(width):
            for c in range(channels):
                x[0, c, h, w] = forward(x)[0, c, h, w].argmax()
    return x
""",
        # channel by channel: red everywhere, then green, then blue
        """
def my_sample(forward, shape, u):
    channels, height, width = shape
    x = torch.zeros(1, channels, height, width, dtype=torch.long)
    for c in range(channels):
        for h in range(height):
            for w in range(width):
                p = forward(x)[0, c, h, w].softmax(dim=-1)
                x[0, c, h, w] = (p.cumsum(dim=-1) <= u[c, h, w]).sum()
    return x
""",
    ],
}
