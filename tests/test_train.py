"""train.py: the step against independent computations, the loop against being cut off anywhere.

Run by torchrun, this file is one of several processes: see the end, and the last test.
"""

import copy
import math
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn

from gencourse import train
from gencourse.train import Batches, History, TrainingDiverged, cosine, fit, minimise

X = torch.randint(0, 4, (50, 6), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
CONDITION = torch.randn(50, 3, generator=torch.Generator().manual_seed(1))


class Tiny(nn.Module):
    """Predicts the sum of a row from the row and its condition; dropout draws random numbers."""

    unit = "nats"

    def __init__(self, seed=0, dropout=0.5):
        super().__init__()
        torch.manual_seed(seed)
        self.net = nn.Sequential(nn.Linear(9, 16), nn.Tanh(), nn.Dropout(dropout), nn.Linear(16, 1))
        self.norm = nn.BatchNorm1d(9)  # has buffers, one of them an integer

    def loss(self, x, condition=None):
        inputs = self.norm(torch.cat([x.float(), condition], dim=1))
        return (self.net(inputs)[:, 0] - x.float().sum(1)).square().mean()


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def everything(step):
    """All that a step holds, as one list of tensors."""
    state = step.state_dict()
    moments = [v for values in state["optimiser"]["state"].values() for v in values.values()]
    return [*state["trained"].values(), *state["averaged"].values(), *moments]


def identical(a, b):
    return len(a) == len(b) and all(torch.equal(p, q) for p, q in zip(a, b))


def batches(**changes):
    return Batches(X, CONDITION, **{"batch_size": 8, "seed": 3} | changes)


def press_stop():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.001)  # Python runs the handler between two instructions


def quietly(step, n_steps=20, **options):
    options = {"every": 5, "progress": False} | options
    return fit(step, options.pop("batches", batches()), n_steps, **options)


# ---------------------------------------------------------------- data


def test_batches_depend_on_the_step_number_alone():
    data = batches()
    in_order = [data[k] for k in range(20)]
    for k in (13, 2, 19, 7, 6, 0):
        assert torch.equal(batches()[k][0], in_order[k][0])
        assert torch.equal(data[k][1], in_order[k][1])


def test_an_epoch_shows_every_example_once_and_the_next_one_in_another_order():
    data = Batches(torch.arange(50), batch_size=8, seed=3)
    epochs = [torch.cat([data[6 * e + i][0] for i in range(6)]) for e in range(3)]
    for epoch in epochs:
        assert len(epoch) == len(set(epoch.tolist())) == 48  # the last 2 do not fill a batch
    assert not torch.equal(epochs[0], epochs[1])
    other = Batches(torch.arange(50), batch_size=8, seed=4)
    # Not a shifted copy either, as seed + epoch would give.
    assert not torch.equal(torch.cat([other[i][0] for i in range(6)]), epochs[1])


def test_condition_goes_with_its_example_and_may_be_absent():
    x, condition = Batches(X, CONDITION, batch_size=8)[11]
    for row, its in zip(x, condition):
        assert any(torch.equal(row, a) and torch.equal(its, b) for a, b in zip(X, CONDITION))
    assert Batches(X, batch_size=8)[0][1] is None


def test_a_small_data_set_is_one_batch():
    data = Batches(X[:5], batch_size=8)
    assert len(data[0][0]) == len(data[7][0]) == 5


def test_processes_share_each_batch_in_equal_parts():
    whole = batches()
    for k in (0, 5, 6, 17):
        parts = [whole.split(rank, 2)[k][0] for rank in range(2)]
        assert [len(part) for part in parts] == [4, 4]
        assert torch.equal(torch.cat(parts), whole[k][0])
    with pytest.raises(ValueError, match="batch_size: expected a multiple of the 3 processes"):
        whole.split(0, 3)


# ---------------------------------------------------------------- one step


def test_loss_falls_and_the_model_that_was_passed_has_learnt():
    model = Tiny(dropout=0.1)
    with torch.no_grad():
        before = model.eval().loss(X, CONDITION).item()
    history = quietly(minimise(model, 0.03), 150)
    with torch.no_grad():
        after = model.loss(X, CONDITION).item()
    assert before > 50 and after < 5
    assert sum(history.losses[-10:]) < 0.2 * sum(history.losses[:10])
    assert not model.training


@pytest.mark.parametrize("average", [0.9, 0.3, 0.0])
def test_average_equals_one_computed_by_hand(average):
    model = Tiny()
    step = minimise(model, 0.01, average=average)
    expected = None
    for k in range(30):
        step(batches()[k], k / 30)
        trained = weights(step.trained).double()
        if expected is None:
            expected = trained
        else:
            decay = min(average, (1 + k) / (10 + k))
            expected = decay * expected + (1 - decay) * trained
        torch.testing.assert_close(weights(model).double(), expected, rtol=0, atol=1e-6)
    assert torch.equal(weights(model), weights(step.trained)) == (average == 0)
    assert torch.equal(model.norm.running_mean, step.trained.norm.running_mean)


def test_a_short_run_is_not_weighed_down_by_its_beginning():
    model = Tiny()
    start = weights(model)
    step = minimise(model, 0.01)
    quietly(step, 100)
    trained = weights(step.trained)
    lag = (weights(model) - trained).norm() / (start - trained).norm()
    assert lag < 0.2  # a plain decay of 0.999 would leave it above 0.9


def test_step_equals_adamw_with_clipping_and_decay_by_hand():
    model = Tiny(dropout=0.0)
    twin = copy.deepcopy(model)
    step = minimise(model, 0.01, weight_decay=0.1, clip=0.5, schedule=lambda done: 1 - done)
    optimiser = torch.optim.AdamW(twin.parameters(), 0.01, weight_decay=0.1)
    for k in range(5):
        x, condition = batches()[k]
        out = step((x, condition), k / 5)
        optimiser.zero_grad()
        loss = twin.loss(x, condition)
        loss.backward()
        norm = math.sqrt(sum(p.grad.square().sum().item() for p in twin.parameters()))
        for p in twin.parameters():
            p.grad *= min(1.0, 0.5 / norm)
        optimiser.param_groups[0]["lr"] = 0.01 * (1 - k / 5)
        optimiser.step()
        assert norm > 0.5  # the limit was felt
        assert out["loss"] == pytest.approx(loss.item(), rel=1e-6)
        assert out["gradient_norm"] == pytest.approx(norm, rel=1e-5)
        assert out["learning_rate"] == pytest.approx(0.01 * (1 - k / 5))
    torch.testing.assert_close(weights(step.trained), weights(twin), rtol=1e-5, atol=1e-6)


def test_no_limit_on_the_gradient():
    step = minimise(Tiny(dropout=0.0), 0.01, clip=math.inf)
    out = step(batches()[0], 0.5)
    got = math.sqrt(sum(p.grad.square().sum().item() for p in step.trained.parameters()))
    assert got == pytest.approx(out["gradient_norm"], rel=1e-5) and got > 1


def test_schedule_values():
    assert [cosine(d) for d in (0, 0.025, 0.05, 1)] == pytest.approx([0.1, 0.55, 1, 0])
    assert cosine(0.525) == pytest.approx(0.5)  # half-way down
    assert cosine(0.05 + 0.95 / 3) == pytest.approx(0.75)
    assert cosine(0.1, warmup=0.2) == pytest.approx(0.55)


def test_frozen_parameters_stay():
    model = Tiny()
    model.norm.requires_grad_(False)
    quietly(minimise(model, 0.01))
    assert torch.equal(model.norm.weight, torch.ones(9))


@pytest.fixture
def fresh_accelerate():
    """Accelerate keeps one state for the whole process: this test gets one of its own."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def test_half_precision_reaches_the_loss(fresh_accelerate):
    seen = []

    class Looks(Tiny):
        def loss(self, x, condition=None):
            seen.append(self.net[0](torch.ones(1, 9)).dtype)
            return super().loss(x, condition)

    step = minimise(Looks(), 0.01, accelerator=Accelerator(cpu=True, mixed_precision="bf16"))
    quietly(step, 3)
    assert seen == [torch.bfloat16] * 3 and weights(step.model).dtype == torch.float32


def test_half_precision_that_needs_a_scaler_is_refused():
    class Scaling:
        mixed_precision = "fp16"

    with pytest.raises(ValueError, match="accelerator: expected precision 'no' or 'bf16', got 'fp"):
        minimise(Tiny(), 0.01, accelerator=Scaling())


# ---------------------------------------------------------------- the loop


def test_validation_sees_the_average_in_eval_mode_without_gradients():
    model = Tiny()
    step = minimise(model, 0.01)
    seen = []

    def validate(given):
        assert given is model is step.averaged.module
        assert not given.training and not torch.is_grad_enabled()
        seen.append(weights(given))
        return torch.tensor(float(len(seen)))

    history = quietly(step, 12, validate=validate, every=5)
    assert history.valid == [(5, 1.0), (10, 2.0), (12, 3.0)]
    assert torch.equal(seen[-1], weights(model)) and not torch.equal(seen[0], seen[1])
    assert step.trained.training


def test_looking_on_does_not_change_the_run():
    plain = minimise(Tiny(), 0.01)
    quietly(plain)
    watched = minimise(Tiny(), 0.01)

    def look(_):
        return torch.rand(7).sum()

    quietly(watched, validate=look, watch=look, every=3)
    assert identical(everything(plain), everything(watched))


def test_watch_is_called_rarely_and_at_the_end():
    seen = []
    quietly(minimise(Tiny(), 0.01), 40, watch=lambda history: seen.append(len(history.losses)))
    assert seen[0] == 1 and seen[-1] == 40 and len(seen) < 10


def test_history_and_the_bar(capfd):
    history = fit(minimise(Tiny(), 0.01), batches(), 6, validate=lambda model: 1.25, every=3)
    assert list(history.steps) == [1, 2, 3, 4, 5, 6] and history.seconds > 0
    loss = sum(history.losses) / 6
    assert repr(history) == f"History(step 6 of 6: loss {loss:.3f} nats, valid 1.250)"
    assert repr(History(5)) == "History(step 0 of 5: no loss yet)"
    assert f"loss {loss:.3f} nats, valid 1.250" in capfd.readouterr().err
    quietly(minimise(Tiny(), 0.01), 6)
    assert capfd.readouterr().err == ""


def test_a_finished_run_stays_as_it_is():
    step = minimise(Tiny(), 0.01)
    history = quietly(step)
    before = everything(step)
    assert quietly(step) is history and len(history.losses) == 20
    assert identical(before, everything(step))
    with pytest.raises(ValueError, match="n_steps: expected 20, as this step was begun"):
        quietly(step, 30)


# ---------------------------------------------------------------- stopping and going on


def uninterrupted():
    step = minimise(Tiny(), 0.01)
    return step, quietly(step)


@pytest.mark.parametrize("at", [1, 6, 13])  # the first step, an epoch's last, elsewhere
def test_stop_and_resume_gives_the_same_bits(at, tmp_path, capsys):
    path = tmp_path / "runs" / "tiny.pt"
    whole, history = uninterrupted()

    def stop(model):
        if len(first.history.losses) == at:
            press_stop()
        return 1.0

    first = minimise(Tiny(), 0.01)
    handler = signal.getsignal(signal.SIGINT)
    cut = quietly(first, validate=stop, every=at, checkpoint=path)
    assert signal.getsignal(signal.SIGINT) is handler
    assert len(cut.losses) == at and not first.model.training
    assert capsys.readouterr().out == (
        f"stopped at step {at} of 20: the model keeps what it learnt; call fit again to go on\n"
    )

    second = minimise(Tiny(seed=99), 0.01)  # another start, another random state
    resumed = quietly(second, checkpoint=path)
    assert resumed.losses == history.losses and resumed.valid == cut.valid
    assert resumed.seconds > cut.seconds
    assert identical(everything(second), everything(whole))
    assert capsys.readouterr().out == ""
    third = minimise(Tiny(seed=98), 0.01)  # and a finished run is only read
    assert quietly(third, checkpoint=path) == resumed
    assert identical(everything(third), everything(whole))


def test_stop_between_saves_is_saved_too(tmp_path):
    whole, _ = uninterrupted()
    first = minimise(Tiny(), 0.01)
    calls = []

    def stop(history):
        if not calls:
            press_stop()
        calls.append(len(history.losses))

    quietly(first, watch=stop, checkpoint=tmp_path / "c", every=1000)
    assert calls == [1, 2]  # pressed while watching: the next step is finished, saved and shown
    second = minimise(Tiny(seed=99), 0.01)
    assert len(quietly(second, checkpoint=tmp_path / "c").losses) == 20
    assert identical(everything(second), everything(whole))


def test_a_crash_resumes_from_the_last_save(tmp_path):
    whole, history = uninterrupted()

    def crash(model):
        if len(first.history.losses) == 14:
            raise ZeroDivisionError

    first = minimise(Tiny(), 0.01)
    with pytest.raises((ZeroDivisionError, TypeError)):
        quietly(first, validate=lambda m: crash(m) or 0.0, every=7, checkpoint=tmp_path / "c")
    second = minimise(Tiny(seed=99), 0.01)
    assert quietly(second, checkpoint=tmp_path / "c").losses == history.losses
    assert identical(everything(second), everything(whole))


def test_without_a_file_the_same_step_goes_on():
    whole, history = uninterrupted()
    step = minimise(Tiny(), 0.01)

    def stop(model):
        press_stop()
        return 0.0

    quietly(step, validate=stop, every=8)
    assert quietly(step).losses == history.losses
    assert identical(everything(step), everything(whole))


def test_pressed_twice_breaks_off_and_the_model_keeps_its_average():
    model = Tiny()
    step = minimise(model, 0.01)
    handler = signal.getsignal(signal.SIGINT)

    def impatient(given):
        press_stop()
        press_stop()
        pytest.fail("the second press should have ended this")

    with pytest.raises(KeyboardInterrupt):
        quietly(step, validate=impatient, every=8)
    assert signal.getsignal(signal.SIGINT) is handler
    assert len(step.history.losses) == 8 and not model.training
    assert not torch.equal(weights(model), weights(Tiny()))


def test_a_crash_while_saving_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "c"
    quietly(minimise(Tiny(), 0.01), 5, checkpoint=path)
    before = path.read_bytes()

    def half_a_file(state, file):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", half_a_file)
    path.rename(tmp_path / "aside")
    with pytest.raises(OSError, match="disk full"):
        quietly(minimise(Tiny(), 0.01), 5, checkpoint=path)
    assert [p.name for p in tmp_path.iterdir()] == ["aside"]
    (tmp_path / "aside").rename(path)
    step = minimise(Tiny(), 0.01)
    step.history = History(5)
    with pytest.raises(OSError, match="disk full"):
        train._save(path, step, {})
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    "name, change",
    [
        ("n_steps", {"n_steps": 21}),
        ("lr", {"lr": 0.02}),
        ("clip", {"clip": 2.0}),
        ("average", {"average": 0.5}),
        ("weight_decay", {"weight_decay": 0.1}),
        ("schedule", {"schedule": lambda done: 1.0}),
        ("batches seed", {"batches": batches(seed=4)}),
        ("batches batch_size", {"batches": batches(batch_size=10)}),
        ("batches x", {"batches": Batches(X.flip(0), CONDITION, batch_size=8, seed=3)}),
        ("batches condition", {"batches": Batches(X, CONDITION + 1, batch_size=8, seed=3)}),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(name, change, tmp_path):
    quietly(minimise(Tiny(), 0.01), checkpoint=tmp_path / "c")
    change = {"lr": 0.01, "n_steps": 20, "batches": batches()} | change
    data, n_steps = change.pop("batches"), change.pop("n_steps")
    step = minimise(Tiny(seed=1), **change)
    before = everything(step)
    with pytest.raises(
        ValueError, match=f"other settings.\n  {name}: .* in the file, .* here\nUse"
    ):
        quietly(step, n_steps, batches=data, checkpoint=tmp_path / "c")
    assert identical(before, everything(step))


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    quietly(minimise(Tiny(), 0.01), checkpoint=tmp_path / "c")
    other = Tiny()
    other.net[0] = nn.Linear(9, 16, bias=False)
    with pytest.raises(ValueError, match="other settings.\n  parameters: "):
        quietly(minimise(other, 0.01), checkpoint=tmp_path / "c")


def test_a_damaged_checkpoint_is_refused(tmp_path):
    path = tmp_path / "c"
    quietly(minimise(Tiny(), 0.01), checkpoint=path)
    whole = path.read_bytes()
    for content in (b"", whole[:1000], b"not a checkpoint"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is not a checkpoint of fit, or is damaged"):
            quietly(minimise(Tiny(), 0.01), checkpoint=path)
    for content in ([1, 2], {"weights": torch.zeros(2)}):
        torch.save(content, path)
        with pytest.raises(ValueError, match="is not a checkpoint of fit, or is damaged"):
            quietly(minimise(Tiny(), 0.01), checkpoint=path)


# ---------------------------------------------------------------- diverging


class Explodes(Tiny):
    """Turns bad in its 8th loss: "loss" is nan, "gradient" is finite with an infinite slope."""

    def __init__(self, how, after=7):
        super().__init__()
        self.how, self.left = how, after

    def loss(self, x, condition=None):
        loss = super().loss(x, condition)
        self.left -= 1
        if self.left >= 0:
            return loss
        return loss * math.nan if self.how == "loss" else loss + (loss - loss).abs().sqrt()


@pytest.mark.parametrize(
    "how, said", [("loss", "loss nan"), ("gradient", r"loss \d.*, gradient norm nan")]
)
def test_diverging_is_diagnosed_before_anything_is_touched(how, said, tmp_path):
    reference = minimise(Tiny(), 0.01)
    for k in range(7):
        reference(batches()[k], k / 20)
    model = Explodes(how)
    step = minimise(model, 0.01)
    with pytest.raises(TrainingDiverged, match=f"diverged at step 8 of 20: {said}") as caught:
        quietly(step, checkpoint=tmp_path / "c")
    # The buffers of a normaliser move in the forward pass; the parameters may not.
    assert torch.equal(weights(step.trained), weights(reference.trained))
    assert torch.equal(weights(model), weights(reference.model))
    moments = 3 * len(step.parameters)  # step number and two moments each, at the list's end
    assert identical(everything(step)[-moments:], everything(reference)[-moments:])
    text = str(caught.value)
    last = ", ".join(f"{loss:.4g}" for loss in step.history.losses[-5:])
    assert last in text and "learning rate is too high" in text and "learning rate 0.00" in text
    assert len(step.history.losses) == 7


def test_diverging_at_once_does_not_blame_the_learning_rate():
    with pytest.raises(TrainingDiverged, match="No step was made, so the learning rate is not"):
        quietly(minimise(Explodes("loss", after=0), 0.01))


# ---------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: Batches([1], batch_size=1), r"x: expected a tensor of examples, got \[1\]"),
        (lambda: Batches(X[:0], batch_size=1), "x: expected a tensor of examples"),
        (lambda: Batches(X, CONDITION[:9], batch_size=1), "condition: expected 50 rows.* got 9"),
        (lambda: Batches(X, [1], batch_size=1), "condition: expected a tensor or None, got"),
        (lambda: Batches(X, batch_size=0), "batch_size: expected a whole number from 1, got 0"),
        (lambda: Batches(X, batch_size=2.0), "batch_size: expected a whole number from 1, got 2.0"),
        (lambda: Batches(X, batch_size=2, seed=-1), "seed: expected a whole number from 0, got -1"),
        (lambda: minimise(nn.Linear(1, 1), 1), "model: expected a torch module with a method loss"),
        (lambda: minimise(Tiny().requires_grad_(False), 1), "model: expected at least one param"),
        (lambda: minimise(Tiny(), 0), "lr: expected a number above 0, got 0"),
        (lambda: minimise(Tiny(), "fast"), "lr: expected a number above 0, got 'fast'"),
        (lambda: minimise(Tiny(), math.nan), "lr: expected a number above 0, got nan"),
        (lambda: minimise(Tiny(), 1, weight_decay=-1), "weight_decay: expected a number from 0"),
        (lambda: minimise(Tiny(), 1, clip=0), "clip: expected a number above 0"),
        (lambda: minimise(Tiny(), 1, average=1), "average: expected a number from 0 to just below"),
        (lambda: minimise(Tiny(), 1, schedule=1), "schedule: expected a function"),
        (lambda: fit(Tiny(), batches(), 1), "step: expected minimise"),
        (lambda: fit(minimise(Tiny(), 1), X, 1), "batches: expected Batches"),
        (lambda: quietly(minimise(Tiny(), 1), 0), "n_steps: expected a whole number from 1, got 0"),
        (lambda: quietly(minimise(Tiny(), 1), every=0), "every: expected a whole number from 1"),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# ---------------------------------------------------------------- several processes


def one_of_several(folder):
    """What each process of the last test does: train, and train again with a stop in between."""
    accelerator = Accelerator(cpu=True)
    rank = accelerator.process_index
    still = Tiny(dropout=0.0, seed=rank)  # the first process's parameters must win
    still.norm = nn.Identity()
    rows = []
    still.norm.register_forward_hook(lambda module, inputs, output: rows.append(len(output)))
    step = minimise(still, 0.01, accelerator=accelerator)
    history = quietly(step, 10)
    whole = minimise(Tiny(), 0.01, accelerator=accelerator)
    torch.manual_seed(rank)  # each process drops other units
    quietly(whole)

    def crash(model):
        if len(first.history.losses) == 12:
            raise ZeroDivisionError
        return 0.0

    first = minimise(Tiny(), 0.01, accelerator=accelerator)
    torch.manual_seed(rank)
    try:
        quietly(first, validate=crash, every=6, checkpoint=f"{folder}/run")
    except ZeroDivisionError:
        second = minimise(Tiny(seed=9), 0.01, accelerator=accelerator)
        quietly(second, checkpoint=f"{folder}/run")
    same = identical(everything(whole), everything(second))
    result = {"model": weights(still), "losses": history.losses, "same": same, "rows": rows}
    torch.save(result, f"{folder}/{rank}.pt")


def test_two_processes_make_the_update_of_one(tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    result = subprocess.run(
        [*torchrun, "--nproc_per_node", "2", __file__, str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    alone = Tiny(dropout=0.0, seed=0)
    alone.norm = nn.Identity()
    history = quietly(minimise(alone, 0.01), 10)
    for rank in range(2):
        several = torch.load(tmp_path / f"{rank}.pt")
        torch.testing.assert_close(several["model"], weights(alone), rtol=0, atol=1e-6)
        assert several["losses"] == pytest.approx(history.losses, rel=1e-5)
        assert several["rows"] == [4] * 10  # each took half of every batch
        assert several["same"], "resuming gave another run"
    with pytest.raises(ValueError, match="processes: 2 in the file, 1 here"):
        quietly(minimise(Tiny(), 0.01), checkpoint=tmp_path / "run")


def test_import_needs_no_jupyter_and_no_matplotlib():
    code = (
        "import sys, gencourse.train; "
        "print([m for m in ('IPython', 'ipywidgets', 'matplotlib') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stdout + result.stderr


if __name__ == "__main__":
    one_of_several(sys.argv[1])
