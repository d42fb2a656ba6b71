"""Every autoregressive model under the whole contract, and planted bugs that it must catch."""

from functools import partial

import pytest
import torch
from contract import (
    CASES,
    OF_LESSONS,
    SMALL,
    TINY,
    check_beam_search,
    check_cached,
    check_causality,
    check_causality_at_some,
    check_complete,
    check_errors,
    check_frequencies,
    check_gradients,
    check_normalised,
    check_round_trip,
    check_same_samples,
    check_weighted_is_exact,
    everything_before,
    pixelcnn_context,
)

from gencourse.models.autoregressive import Autoregressive
from gencourse.models.masked import MaskedConv2d, State
from gencourse.models.pixelcnn import PixelCNN
from gencourse.models.sequence import SequenceModel

every_model = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
tiny = pytest.mark.parametrize("shape, levels", TINY, ids=str)
small = pytest.mark.parametrize("shape, levels", SMALL, ids=str)
of_lessons = pytest.mark.parametrize("shape, levels", OF_LESSONS, ids=str)
conditioned = pytest.mark.parametrize("condition_dim", [0, 3])


@every_model
@small
@conditioned
def test_nothing_leaks_and_the_promised_context_arrives(case, shape, levels, condition_dim):
    check_causality(case.make, case.promised, shape, levels, condition_dim)


@every_model
@of_lessons
def test_nothing_leaks_at_the_shapes_of_the_lessons(case, shape, levels):
    check_causality_at_some(case.make, shape, levels)


@every_model
@tiny
@conditioned
def test_probabilities_sum_to_one(case, shape, levels, condition_dim):
    check_normalised(case.make, shape, levels, condition_dim)


@every_model
@tiny
@pytest.mark.parametrize("cached", [True, False])
def test_samples_come_as_often_as_log_prob_says(case, shape, levels, cached):
    check_frequencies(case.make, shape, levels, cached)


@every_model
def test_conditional_samples_come_as_often_as_log_prob_says(case):
    check_frequencies(case.make, (1, 2, 3), 2, True, condition_dim=3)


@every_model
@small
@conditioned
def test_cached_equals_uncached(case, shape, levels, condition_dim):
    check_cached(case.make, shape, levels, condition_dim)
    check_same_samples(case.make, shape, levels, condition_dim)


@every_model
@of_lessons
def test_cached_equals_uncached_at_the_shapes_of_the_lessons(case, shape, levels):
    check_cached(case.make, shape, levels, dtype=torch.float32, tolerance=1e-5)


@every_model
@small
def test_completion(case, shape, levels):
    check_complete(case.make, shape, levels)


@every_model
def test_weighted_completion_tends_to_the_posterior(case):
    check_weighted_is_exact(case.make)


@every_model
def test_beam_search(case):
    check_beam_search(case.make)


@every_model
@pytest.mark.parametrize("shape, levels", [*SMALL, *OF_LESSONS], ids=str)
def test_every_parameter_learns(case, shape, levels):
    check_gradients(case.make, shape, levels, condition_dim=3)


@every_model
@pytest.mark.parametrize("shape, levels", [*SMALL, *OF_LESSONS], ids=str)
def test_weights_round_trip_through_safetensors(case, shape, levels, tmp_path):
    check_round_trip(case.make, shape, levels, tmp_path / "model.safetensors")


@every_model
def test_wrong_input_is_named(case):
    check_errors(case.make)


def test_a_model_of_forward_alone_samples_too():
    class Independent(Autoregressive):
        """Every pixel on its own: the least model there is."""

        def __init__(self, *, image_shape, levels, condition_dim=0):
            super().__init__(image_shape=image_shape, levels=levels, condition_dim=condition_dim)
            self.table = torch.nn.Parameter(torch.randn(*self.image_shape, levels))

        def forward(self, x, condition=None):
            return self.table.expand(len(x), *self.table.shape)

    check_frequencies(Independent, (1, 2, 3), 2, cached=True)
    check_normalised(Independent, (1, 2, 3), 2)


# ------------------------------------------------------------------------ planted bugs

small_pixelcnn = CASES["pixelcnn"].make


def leaky(**settings):
    model = small_pixelcnn(**settings)
    channels = model.image_shape[0]
    model.first = MaskedConv2d("B", channels, 24, 5, channels)  # reads the pixel it predicts
    return model


class Transposed(PixelCNN):
    def sites(self):
        channels, height, width = self.image_shape
        return [(c, h, w) for w in range(width) for h in range(height) for c in range(channels)]


class ChannelsBackwards(PixelCNN):
    def sites(self):
        return [(self.image_shape[0] - 1 - c, h, w) for c, h, w in super().sites()]


class Deaf(PixelCNN):
    def network(self, embedded, condition=None, state=None):
        return super().network(embedded, None if condition is None else 0 * condition, state)


class DeafSequence(SequenceModel):
    def network(self, embedded, condition=None, state=None):
        return super().network(embedded, None if condition is None else 0 * condition, state)


class Overwrites(PixelCNN):
    def complete(self, x, known, condition=None, **settings):
        return super().complete(x, torch.zeros_like(known), condition, **settings)


class OffByOne(SequenceModel):
    def sites(self):
        return super().sites()[1:] + super().sites()[:1]


narrow = partial(dict, features=24, layers=2, first_kernel_size=5)
PLANTED = {
    "mask B in the first layer leaks": lambda: check_causality(
        leaky, pixelcnn_context, (1, 5, 6), 3
    ),
    "mask B in the first layer does not sum to one": lambda: check_normalised(leaky, (1, 2, 3), 2),
    "mask B in the first layer, sampled": lambda: check_frequencies(leaky, (1, 2, 2), 3, True),
    "transposed sites": lambda: check_causality(
        partial(Transposed, **narrow()), pixelcnn_context, (1, 5, 6), 3
    ),
    "transposed sites, sampled": lambda: check_frequencies(
        partial(Transposed, **narrow()), (1, 2, 2), 3, True
    ),
    "wrong channel order": lambda: check_causality(
        partial(ChannelsBackwards, **narrow()), pixelcnn_context, (3, 3, 4), 2
    ),
    "wrong channel order, sampled": lambda: check_frequencies(
        partial(ChannelsBackwards, **narrow()), (3, 1, 2), 2, True
    ),
    "the condition is ignored": lambda: check_normalised(
        partial(Deaf, **narrow()), (1, 2, 3), 2, condition_dim=3
    ),
    "the sequence model ignores its condition": lambda: check_normalised(
        partial(DeafSequence, hidden=12), (1, 2, 3), 2, condition_dim=3
    ),
    "sequence order off by one": lambda: check_causality(
        partial(OffByOne, hidden=12), everything_before, (1, 5, 6), 3
    ),
    "known sites overwritten": lambda: check_complete(
        partial(Overwrites, **narrow()), (1, 5, 6), 3
    ),
    "a blind spot that was not promised": lambda: check_causality(
        small_pixelcnn, everything_before, (1, 5, 6), 3
    ),
}


@pytest.mark.parametrize("run", PLANTED.values(), ids=PLANTED)
def test_the_contract_catches(run):
    with pytest.raises(AssertionError):
        run()


def stale(monkeypatch):
    monkeypatch.setattr(
        State,
        "write",
        lambda self, step, values: self.image.__setitem__((slice(None), *self.sites[step]), values),
    )


def flipped_window(monkeypatch):
    neighbours = State.neighbours
    monkeypatch.setattr(
        State, "neighbours", lambda self, offsets: neighbours(self, [[h, -w] for h, w in offsets])
    )


def wraps_around(monkeypatch):
    neighbours = State.neighbours

    def bug(self, offsets):
        outside = self.image.shape[-1] * self.image.shape[-2]
        return [torch.where(rows == outside, 0, rows) for rows in neighbours(self, offsets)]

    monkeypatch.setattr(State, "neighbours", bug)


@pytest.mark.parametrize("plant", [stale, flipped_window, wraps_around])
def test_the_contract_catches_a_wrong_cache(plant, monkeypatch):
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        check_cached(small_pixelcnn, (1, 5, 6), 3)
    with pytest.raises(AssertionError):
        check_frequencies(small_pixelcnn, (1, 2, 2), 3, cached=True)
