"""A recurrent sequence model: the same class for the letters of a name and the pixels of an image.

Split x into sites, put them in an order, begin with a start token, and let an LSTM carry what it
has read so far: its output at each place is the softmax over the next site. For text the image
shape is (1, 1, length) and the levels are the alphabet.
"""

import torch
from torch import nn

from gencourse.models.autoregressive import Autoregressive


class Values(nn.Embedding):
    """A learned vector for each value: integers (B, C, H, W) -> (B, H, W, C, D)."""

    def forward(self, x):
        return super().forward(x.long().movedim(1, -1))


class SequenceModel(Autoregressive):
    """An LSTM over the sites in a given order; takes a condition vector (B, condition_dim).

    hidden: width of the LSTM.   layers: LSTMs on top of each other.
    order: the sites [(c, h, w), ...] in generation order, each once; None for row by row.
    dropout: on the input and the output of the LSTMs.

    The embedding of a site is the sum of a vector for its value and one for its place, so that
    the model knows where it is; the condition is added to every input.

    References: Hochreiter and Schmidhuber 1997 (LSTM); Theis and Bethge 2015, Generative Image
    Modeling Using Spatial LSTMs, arXiv 1506.03478 (recurrent nets over pixels).
    """

    def __init__(
        self,
        *,
        image_shape,
        levels,
        condition_dim=0,
        hidden=128,
        layers=1,
        order=None,
        dropout=0.0,
    ):
        super().__init__(image_shape=image_shape, levels=levels, condition_dim=condition_dim)
        scanline = super().sites()
        self.order = scanline if order is None else [tuple(int(i) for i in site) for site in order]
        if sorted(self.order) != sorted(scanline):
            raise ValueError(
                f"order: expected each of the {len(scanline)} sites (c, h, w) of {image_shape} "
                f"once, got {len(self.order)} sites, {len(set(self.order))} different"
            )
        number = {site: i for i, site in enumerate(scanline)}
        steps = torch.tensor([number[site] for site in self.order])  # (T,)
        self.register_buffer("scan", steps, persistent=False)  # order -> row of the embedding
        self.register_buffer("unscan", steps.argsort(), persistent=False)
        self.embed = Values(levels, hidden)
        self.start = nn.Parameter(torch.randn(hidden))
        self.place = nn.Parameter(0.1 * torch.randn(len(scanline), hidden))  # in generation order
        self.condition = nn.Linear(condition_dim, hidden, bias=False) if condition_dim else None
        self.lstm = nn.LSTM(hidden, hidden, layers, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.logits = nn.Linear(hidden, levels)

    def sites(self):
        return list(self.order)

    def network(self, embedded, condition=None, state=None):
        logits = self.logits(self.dropout(self.states(embedded, condition, state)))
        if state is not None:
            return logits  # (B, levels)
        channels, height, width = self.image_shape
        logits = logits[:, self.unscan].unflatten(1, (height, width, channels))
        return logits.movedim(3, 1)  # (B, C, H, W, levels)

    def states(self, embedded, condition=None, state=None):
        """What the LSTM knows when it predicts each site: (B, T, hidden), in generation order.

        With a state: (B, hidden), at its site. The hidden states are features of what came before.
        """
        if state is None:
            read = embedded.flatten(1, -2)[:, self.scan[:-1]]  # (B, T - 1, hidden)
            start = self.start.expand(len(read), 1, -1)
            return self.lstm(self.inputs(torch.cat([start, read], dim=1), self.place, condition))[0]
        t = state.step
        read = self.start.expand(len(state.image), -1)
        if t > 0:
            read = state.embedded[:, self.scan[t - 1]]
        inputs = self.inputs(read[:, None], self.place[t], condition)  # (B, 1, hidden)
        layers, hidden = self.lstm.num_layers, self.lstm.hidden_size
        kept = state.kept(self, 2 * layers * hidden)  # row t - 1 is the zero row when t = 0
        before = kept[:, t - 1].unflatten(1, (2, layers, hidden)).permute(1, 2, 0, 3).contiguous()
        output, (h, c) = self.lstm(inputs, (before[0], before[1]))
        kept[:, t] = torch.stack([h, c]).permute(2, 0, 1, 3).flatten(1)
        return output[:, 0]

    def inputs(self, read, place, condition):
        x = read + place
        if condition is not None:
            x = x + self.condition(condition)[:, None]
        return self.dropout(x)
