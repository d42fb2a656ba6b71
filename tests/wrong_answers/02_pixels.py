"""Answers to lesson 02 that look right and are wrong. Each must lose its points."""

WRONG = {
    "ex_snake": [
        # scanline: never turns
        """
def snake(height, width):
    return [(0, h, w) for h in range(height) for w in range(width)]
""",
        # turns in the even rows, so it starts at the wrong end
        """
def snake(height, width):
    order = []
    for h in range(height):
        columns = range(width) if h % 2 else reversed(range(width))
        order += [(0, h, w) for w in columns]
    return order
""",
        # a snake down the columns
        """
def snake(height, width):
    order = []
    for w in range(width):
        rows = range(height) if w % 2 == 0 else reversed(range(height))
        order += [(0, h, w) for h in rows]
    return order
""",
    ],
    "ex_nll": [
        # a mean over the pixels in place of the sum
        """
def image_nll(logits, x):
    log_p = logits.log_softmax(dim=-1)
    at_x = log_p.gather(-1, x.long().unsqueeze(-1)).squeeze(-1)
    nats = -at_x.mean(dim=(1, 2, 3))
    return nats, nats / math.log(2) * 2
""",
        # takes the logits for log-probabilities, and forgets the dimensions in the bits
        """
def image_nll(logits, x):
    at_x = logits.gather(-1, x.long().unsqueeze(-1)).squeeze(-1)
    nats = -at_x.sum(dim=(1, 2, 3))
    return nats, nats / math.log(2)
""",
        # one number for the batch, and pixels counted without their channels
        """
def image_nll(logits, x):
    log_p = logits.log_softmax(dim=-1)
    nats = -log_p.gather(-1, x.long().unsqueeze(-1)).sum() / len(x)
    nats = nats.expand(len(x))
    return nats, nats / (x.shape[2] * x.shape[3] * math.log(2))
""",
    ],
    "ex_prefix": [
        # the first sites row by row, whatever the order
        """
def prefix_mask(order, n_known, image_shape):
    known = torch.zeros(image_shape, dtype=torch.bool)
    known.view(-1)[:n_known] = True
    return known
""",
        # one site too many
        """
def prefix_mask(order, n_known, image_shape):
    known = torch.zeros(image_shape, dtype=torch.bool)
    for step, site in enumerate(order):
        if step <= n_known:
            known[site] = True
    return known
""",
        # numbers instead of booleans
        """
def prefix_mask(order, n_known, image_shape):
    known = torch.zeros(image_shape)
    for site in order[:n_known]:
        known[site] = 1
    return known
""",
    ],
    "ex_beam": [
        # greedy in each beam: one child for every parent, no competition between them
        """
def beam_step(scores, log_p):
    best, values = log_p.max(dim=1)
    new_scores, parents = (scores + best).sort(descending=True)
    return new_scores, parents, values[parents]
""",
        # forgets what the beginnings are worth
        """
def beam_step(scores, log_p):
    new_scores, best = log_p.flatten().topk(len(scores))
    return new_scores, best // log_p.shape[1], best % log_p.shape[1]
""",
        # divides by the width instead of the number of levels
        """
def beam_step(scores, log_p):
    width = len(scores)
    new_scores, best = (scores[:, None] + log_p).flatten().topk(width)
    return new_scores, best // width, best % width
""",
    ],
}
