"""Training: `fit` is the only training loop of the course.

    step = minimise(model, lr=1e-3)                       # how one step is made
    history = fit(step, Batches(x, batch_size=64), 1000)  # a thousand of them
    model.sample(16)                                      # the model now holds what was learnt

Three ideas keep it short. Data are a *function of the step number*, so a run can stop anywhere and
go on exactly. The *step* knows how parameters change and `fit` knows everything else (progress,
validation, checkpoints, stopping), so a GAN needs another step, not another loop. And the model
you hold is always the *average* of the weights being trained: at any moment it is the best there
is, in eval mode, ready to sample.
"""

import copy
import math
import os
import pickle
import signal
import threading
import time
import zlib
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from reprlib import repr as short

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm.auto import tqdm


class TrainingDiverged(RuntimeError):
    """The loss or its gradient is no longer a finite number. The parameters were not touched."""


@dataclass
class History:
    """What happened in a run: `plot(history.steps, history.losses)` is its learning curve.

    n_steps: length of the whole run.   unit: of the losses, e.g. "bits/dim".
    losses: training loss of every step so far, each on its own batch.
    valid: [(step, value), ...] from `validate`.   seconds: time spent, validation included.
    """

    n_steps: int
    unit: str = ""
    losses: list[float] = field(default_factory=list)
    valid: list[tuple[int, float]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def steps(self) -> range:
        """1, 2, ... up to the last step made."""
        return range(1, len(self.losses) + 1)

    def summary(self) -> str:
        """The mean of the last 50 losses (one batch alone is noisy) and the last validation."""
        last = self.losses[-50:]
        text = f"loss {sum(last) / len(last):.3f} {self.unit}".rstrip() if last else "no loss yet"
        return text + (f", valid {self.valid[-1][1]:.3f}" if self.valid else "")

    def __repr__(self):
        return f"History(step {len(self.losses)} of {self.n_steps}: {self.summary()})"


# ---------------------------------------------------------------- data


class Batches:
    """Shuffled batches as a function of the step number: `x, condition = batches[k]`, k = 0, 1, ...

    Every epoch is a new permutation, drawn from (seed, epoch); its incomplete last batch is left
    out. A data set smaller than a batch is one batch.

    x: tensor, the first axis counts examples (images as integers).
    condition: tensor of as many rows, or None; then batches[k] is (x, None).
    """

    def __init__(self, x, condition=None, *, batch_size, seed=0):
        _expect(isinstance(x, Tensor) and x.ndim > 0 and len(x) > 0, "x", "a tensor of examples", x)
        if condition is not None:
            _expect(isinstance(condition, Tensor), "condition", "a tensor or None", condition)
            rows = len(condition) if condition.ndim else 0
            _expect(rows == len(x), "condition", f"{len(x)} rows, as many as x", rows)
        _expect_whole("batch_size", batch_size, 1)
        _expect_whole("seed", seed, 0)
        self.x, self.condition, self.seed = x, condition, seed
        self.batch_size = min(batch_size, len(x))
        self.per_epoch = len(x) // self.batch_size
        self.part = slice(None)  # of each batch: all of it, unless `split` says otherwise
        self._epoch, self._order = None, None

    def __getitem__(self, k):
        epoch, i = divmod(k, self.per_epoch)
        if epoch != self._epoch:
            order = np.random.default_rng((self.seed, epoch)).permutation(len(self.x))
            self._epoch, self._order = epoch, torch.from_numpy(order)
        index = self._order[i * self.batch_size : (i + 1) * self.batch_size][self.part]
        return self.x[index], None if self.condition is None else self.condition[index]

    def split(self, rank, world):
        """The same batches for process `rank` of `world`: an equal part of each."""
        equal = self.batch_size % world == 0
        _expect(equal, "batch_size", f"a multiple of the {world} processes", self.batch_size)
        each = self.batch_size // world
        mine = copy.copy(self)
        mine.part = slice(rank * each, (rank + 1) * each)
        return mine

    def settings(self):
        """What makes two runs see the same data; a checkpoint holds it."""
        data = {"x": _checksum(self.x), "batch_size": self.batch_size, "seed": self.seed}
        return data | {"condition": self.condition is not None and _checksum(self.condition)}


# ---------------------------------------------------------------- one step


def cosine(done, warmup=0.05):
    """Learning-rate factor when a fraction `done` of the run is over.

    Up from 0.1 to 1 along a line during `warmup`, then down to 0 along half a cosine (Loshchilov &
    Hutter 2017, "SGDR").
    """
    if done < warmup:
        return 0.1 + 0.9 * done / warmup
    return 0.5 + 0.5 * math.cos(math.pi * (done - warmup) / (1 - warmup))


class minimise:
    """One step down the gradient of `model.loss(x, condition)`: AdamW on clipped gradients.

    What is trained is a copy; the model itself holds the copy's exponential moving average
    (Polyak & Juditsky 1992), W <- d W + (1 - d) w with d = min(average, (1 + t) / (10 + t)) after t
    averages: a short run is then not weighed down by where it began. average=0 takes w as it is.

    lr: the highest learning rate.   weight_decay: as in AdamW (Loshchilov & Hutter 2019).
    clip: the largest norm that the gradient may have; math.inf for no limit.
    schedule: fraction of the run done -> factor on lr.
    accelerator: an accelerate.Accelerator, which chooses device, processes and precision ("no" or
    "bf16"). The model moves to its device. With several processes the gradient is that of the
    whole batch.

    `step(batch, done)` makes a step; {"loss", "gradient_norm" (before clipping), "learning_rate"}.
    Raises TrainingDiverged before touching anything if the loss or the gradient is not finite.
    """

    def __init__(
        self,
        model,
        lr,
        *,
        weight_decay=0.0,
        clip=1.0,
        average=0.999,
        schedule=cosine,
        accelerator=None,
    ):
        is_model = isinstance(model, nn.Module) and callable(getattr(model, "loss", None))
        _expect(is_model, "model", "a torch module with a method loss(x, condition)", type(model))
        learns = any(p.requires_grad for p in model.parameters())
        _expect(learns, "model", "at least one parameter that requires a gradient", "none")
        lr = _number("lr", lr, "above 0", lambda v: 0 < v < math.inf)
        weight_decay = _number("weight_decay", weight_decay, "from 0", lambda v: 0 <= v < math.inf)
        clip = _number("clip", clip, "above 0 (math.inf for no limit)", lambda v: v > 0)
        average = _number("average", average, "from 0 to just below 1", lambda v: 0 <= v < 1)
        _expect(callable(schedule), "schedule", "a function of the fraction done", schedule)
        self.accelerator = accelerator or Accelerator()
        precision = self.accelerator.mixed_precision
        _expect(precision in ("no", "bf16"), "accelerator", "precision 'no' or 'bf16'", precision)

        self.model = model.to(self.accelerator.device)
        self.trained = copy.deepcopy(self.model).train()
        self.averaged = AveragedModel(self.trained)
        self.averaged.module = self.model  # the average is written into the model itself
        self.parameters = [p for p in self.trained.parameters() if p.requires_grad]
        self.loss, self.optimiser = self.accelerator.prepare(
            _Loss(self.trained), torch.optim.AdamW(self.parameters, lr, weight_decay=weight_decay)
        )
        self.lr, self.clip, self.average, self.schedule = lr, clip, average, schedule
        self.unit = getattr(model, "unit", "")
        self.history = None  # of the run that `fit` makes with this step
        self.settings = {
            "lr": lr,
            "weight_decay": weight_decay,
            "clip": clip,
            "average": average,
            "schedule": [round(float(schedule(i / 10)), 6) for i in range(10)],
            "precision": precision,
            "parameters": {name: list(p.shape) for name, p in model.named_parameters()},
        }

    def __call__(self, batch, done):
        x, condition = (None if t is None else t.to(self.accelerator.device) for t in batch)
        lr = self.lr * float(self.schedule(done))
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        self.optimiser.zero_grad()
        loss = self.loss(x, condition)
        self.accelerator.backward(loss)
        norm = self.accelerator.clip_grad_norm_(self.parameters, self.clip)
        # The one wait for the device: both numbers at once, the same in every process.
        both = self.accelerator.reduce(torch.stack([loss.detach(), norm]), "mean")
        loss, norm = both.tolist()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise TrainingDiverged(f"loss {loss:g}, gradient norm {norm:g}, learning rate {lr:g}")
        self.optimiser.step()
        t = int(self.averaged.n_averaged)
        decay = min(self.average, (1 + t) / (10 + t))
        self.averaged.multi_avg_fn = get_ema_multi_avg_fn(decay)
        self.averaged.update_parameters(self.trained)
        return {"loss": loss, "gradient_norm": norm, "learning_rate": lr}

    def state_dict(self):
        return {
            "trained": self.trained.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }

    def load_state_dict(self, state):
        self.trained.load_state_dict(state["trained"])
        self.averaged.load_state_dict(state["averaged"])
        self.optimiser.load_state_dict(state["optimiser"])


class _Loss(nn.Module):
    """Several processes and mixed precision act on a module's forward: here it is the loss."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x, condition):
        return self.model.loss(x, condition)


# ---------------------------------------------------------------- the loop


def fit(
    step, batches, n_steps, *, validate=None, every=100, checkpoint=None, watch=None, progress=True
) -> History:
    """Make `n_steps` steps: the only training loop.

    step: from `minimise` (or `play`).   batches: a `Batches`.
    validate: model -> float, called `every` steps and at the end on the averaged model in eval
    mode, without gradients.
    checkpoint: path of a file, saved `every` steps, when stopped and at the end, atomically. If it
    exists, the run goes on from it as if it had never stopped: on a CPU, to the last bit.
    watch: called with the History about once a second and at the end, to draw it.
    progress: show a bar.

    Neither `validate` nor `watch` changes the run: the random state is put back after them.
    Nothing is seeded here: `torch.manual_seed` before the model is made fixes the whole run.

    Ctrl-C or the notebook's stop button ends the run after the step under way; what was learnt
    stays, and fit with the same step (or checkpoint) goes on. Press twice to break off at once.
    With several processes there is no such stop: they go on from the last checkpoint.

    Raises TrainingDiverged, with a diagnosis, when the loss or gradient is not finite; ValueError
    for a wrong argument and for a checkpoint that was made with other settings.
    """
    _expect(callable(step) and hasattr(step, "history"), "step", "minimise(model, lr)", type(step))
    _expect(isinstance(batches, Batches), "batches", "Batches(x, batch_size=...)", type(batches))
    _expect_whole("n_steps", n_steps, 1)
    _expect_whole("every", every, 1)
    accelerator = step.accelerator
    rank, world = accelerator.process_index, accelerator.num_processes
    settings = {"n_steps": n_steps, "processes": world} | step.settings
    if checkpoint is not None:
        checkpoint = Path(checkpoint)
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        settings |= {f"batches {name}": value for name, value in batches.settings().items()}
        if checkpoint.exists():
            _resume(checkpoint, step, settings)
    history = step.history = step.history or History(n_steps, step.unit)
    longer = f"{history.n_steps}, as this step was begun; for another run make a new minimise(...)"
    _expect(history.n_steps == n_steps, "n_steps", longer, n_steps)

    batches = batches.split(rank, world)
    step.model.eval()
    seconds, start, watched = history.seconds, time.monotonic(), -math.inf
    done, hidden = len(history.losses), not progress or rank > 0
    bar = tqdm(total=n_steps, initial=done, unit="step", disable=hidden)
    with bar, _stop_button(alone=world == 1) as stop:
        for k in range(done, n_steps):
            try:
                history.losses.append(step(batches[k], k / n_steps)["loss"])
            except TrainingDiverged as problem:
                raise TrainingDiverged(_diagnosis(problem, history)) from None
            bar.update()
            bar.set_postfix_str(history.summary(), refresh=False)
            last = k + 1 == n_steps
            due = (k + 1) % every == 0 or last
            if validate is not None and due:
                with _aside(step):
                    history.valid.append((k + 1, float(validate(step.model))))
            now, stopping = time.monotonic(), stop.is_set()
            history.seconds = seconds + now - start
            if checkpoint is not None and (due or stopping):
                _save(checkpoint, step, settings)
            if watch is not None and rank == 0 and (now > watched + 1 or last or stopping):
                with _aside(step):
                    watch(history)
                watched = time.monotonic()
            if stopping:
                break
        bar.set_postfix_str(history.summary())
    done = len(history.losses)
    if done < n_steps:
        print(
            f"stopped at step {done} of {n_steps}: "
            "the model keeps what it learnt; call fit again to go on"
        )
    return history


@contextmanager
def _stop_button(alone):
    """An event that Ctrl-C sets: a step is finished, not torn apart. The second press breaks off.

    Python hands signals to the main thread only, and several processes would stop at different
    steps and wait for each other: then Ctrl-C keeps its usual meaning.
    """
    stop = threading.Event()

    def press(signum, frame):
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    if not alone or threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = signal.signal(signal.SIGINT, press)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _aside(step):
    """Something beside training: eval mode, no gradients, and the random state put back after."""
    state = _random_state(step.accelerator.device)
    step.model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        _set_random_state(step.accelerator.device, state)


def _diagnosis(problem, history):
    """TrainingDiverged in words: what, where, why, and what to try."""
    losses = ", ".join(f"{loss:.4g}" for loss in history.losses[-5:])
    if losses:
        advice = (
            f"The last finite losses: {losses}.\n"
            "Most often the learning rate is too high: try a third of it, or a smaller clip.\n"
            "Else look in the loss for log(0), 0/0 or exp of a large number."
        )
    else:
        advice = (
            "No step was made, so the learning rate is not the cause: look for values out of range "
            "in the data,\nfor log(0), 0/0 or exp of a large number in the loss, and at how the "
            "parameters are initialised."
        )
    step = len(history.losses) + 1
    return (
        f"training diverged at step {step} of {history.n_steps}: {problem}.\n{advice}\n"
        f"The parameters are as they were before this step."
    )


# ---------------------------------------------------------------- checkpoints


def _save(path, step, settings):
    """Write the run to `path`, whole or not at all: a crash leaves the file that was there."""
    accelerator = step.accelerator
    random = gather_object([_random_state(accelerator.device)])  # one for each process
    if accelerator.is_main_process:
        state = {
            "settings": settings,
            "step": step.state_dict(),
            "history": asdict(step.history),
            "random": random,
        }
        part = path.with_name(path.name + ".part")
        try:
            with open(part, "wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    accelerator.wait_for_everyone()


def _resume(path, step, settings):
    """Put the run of `path` into `step` and the random state, if its settings are these."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        saved, history, random = state["settings"], state["history"], state["random"]
    except (RuntimeError, EOFError, pickle.UnpicklingError, KeyError, TypeError) as error:
        raise ValueError(
            f"checkpoint: {str(path)!r} is not a checkpoint of fit, or is damaged ({error}). "
            "Delete it or give another path."
        ) from error
    other = [
        f"  {name}: {short(saved.get(name))} in the file, {short(value)} here"
        for name, value in settings.items()
        if saved.get(name) != value
    ]
    if other:
        raise ValueError(
            f"checkpoint: {str(path)!r} was made with other settings.\n" + "\n".join(other) + "\n"
            "Use the same settings to go on, delete the file to begin anew, or give another path."
        )
    step.load_state_dict(state["step"])
    step.history = History(**history)
    _set_random_state(step.accelerator.device, random[step.accelerator.process_index])


def _random_state(device):
    """The states of torch's global generators: the CPU's, and the accelerator's if there is one."""
    others = [] if device.type == "cpu" else [torch.get_device_module(device).get_rng_state()]
    return [torch.get_rng_state(), *others]


def _set_random_state(device, states):
    torch.set_rng_state(states[0])
    if device.type != "cpu":
        torch.get_device_module(device).set_rng_state(states[1])


def _checksum(tensor):
    content = zlib.crc32(tensor.detach().cpu().contiguous().numpy().data)
    return f"{tuple(tensor.shape)} {tensor.dtype} {content:08x}"


# ---------------------------------------------------------------- arguments


def _expect(fine, name, expected, got):
    if not fine:
        raise ValueError(f"{name}: expected {expected}, got {short(got)}")


def _expect_whole(name, got, least):
    fine = isinstance(got, int) and not isinstance(got, bool) and got >= least
    _expect(fine, name, f"a whole number from {least}", got)


def _number(name, got, words, fine):
    _expect(isinstance(got, (int, float)) and fine(got), name, f"a number {words}", got)
    return float(got)  # NumPy's floats too become Python's: a checkpoint holds nothing else
