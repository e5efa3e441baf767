"""The training loop: truncated backpropagation through time, evaluation, exact resume.

A run is a folder: `config.json`, `tokenizer.model` or `.json`, `log.jsonl`, `checkpoint.pt` (all it
takes to go on bit for bit), and at the end `model/` (Hugging Face), `result.json` and `curves.png`.
"""

import json
import math
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from spiketrain.runtime.durable_files import read_all, replace_file
from spiketrain.runtime.errors import SpiketrainError, WriteError
from spiketrain.training import schedules
from spiketrain.training.build import build_model
from spiketrain.training.config import ConfigError, TrainConfig, find_data
from spiketrain.training.data import Lanes, read_text
from spiketrain.training.distil import Teacher, next_state
from spiketrain.training.encoder import Encoder, load_encoder
from spiketrain.training.evaluate import evaluate
from spiketrain.training.optimizers import Optimizers
from spiketrain.training.plots import plot_curves
from spiketrain.training.progress import describe, progress_bar
from spiketrain.training.run_folder import RunFolder, load_tensors
from spiketrain.training.teachers import load_teacher
from spiketrain.training.tokenizer import train_tokenizer


class Diverged(SpiketrainError, FloatingPointError):  # noqa: N818
    """A gradient that is no number: the recipe's learning rate or clip is too high."""


@dataclass
class Progressed:
    """Where a run stands: everything that changes beside weights and optimizer."""

    chunk: int = 0
    seconds: float = 0.0
    log_bytes: int = 0


def train(
    config: TrainConfig, recipe: Path, folder: Path, resume: bool, quiet: bool = False
) -> dict:
    """Run (or go on with) the recipe in `folder`; returns what `result.json` says.

    Raises ConfigError if the folder holds a run and `resume` is false, or another recipe's run.
    """
    trainer = Trainer(config, recipe, folder, resume)
    return trainer.run(quiet)


class Trainer:
    """One run: its data, model, optimizer and log."""

    def __init__(self, config: TrainConfig, recipe: Path, folder: Path, resume: bool) -> None:
        self.config, self.folder = config, folder
        self._check_folder(resume)
        self.files = RunFolder(_made(folder))
        torch.set_num_threads(config.run.threads)
        torch.manual_seed(config.seed)
        self.device = _device(config.run.device)
        self.beside = recipe.resolve().parent
        self.tokenizer = self._tokenizer()
        self.train_stream = self._encode(config.data.train)
        self.valid_stream = self._encode(config.data.valid)
        self.valid_bytes = len(read_text(find_data(config.data.valid, self.beside)).encode())
        self.lanes = Lanes(self.train_stream, config.run.batch, config.run.steps)
        self.model = build_model(config, self.tokenizer.vocab_size).to(self.device)
        if config.run.start_from:
            self._start_from(Path(config.run.start_from))
        self.teacher = self._teacher()
        vocab_size = self.model.config.vocab_size
        self.optimizer = Optimizers(self.model, config.optimizer, vocab_size)
        self.at = Progressed()
        self.state = self.model.initial_state(config.run.batch)
        sizes = self.model.event_sizes
        self.rates = [torch.zeros(n, device=self.device) for n in sizes]  # of each unit, running
        if (folder / "checkpoint.pt").exists():
            self._load()
        self.files.cut_log(self.at.log_bytes)
        self.files.write_json("config.json", config.model_dump_json(indent=2))  # the run is on

    def run(self, quiet: bool) -> dict:
        """Train to the end and write the results."""
        run = self.config.run
        per_chunk = run.batch * run.steps
        chunks = math.ceil(run.tokens / per_chunk)
        every = max(1, run.evaluate_every_tokens // per_chunk)
        self.model.train()
        saved = started = time.monotonic()
        before = self.at.seconds
        with progress_bar(quiet) as progress:
            bar = progress.add_task("", total=chunks, completed=self.at.chunk)
            while self.at.chunk < chunks:
                record = self._step()
                self.at.seconds = before + time.monotonic() - started
                if self.at.chunk % 20 == 0 or self.at.chunk == chunks:
                    record |= {"tokens": self.at.chunk * per_chunk, "seconds": self.at.seconds}
                    self.files.append(record)
                    progress.update(bar, description=describe(record))
                if self.at.chunk % every == 0 and self.at.chunk < chunks:
                    scores = self._evaluate(run.evaluate_tokens)
                    self.files.append({"tokens": self.at.chunk * per_chunk, **scores})
                progress.update(bar, completed=self.at.chunk)
                if time.monotonic() - saved > run.checkpoint_minutes * 60:
                    self.save()
                    saved = time.monotonic()
        self.save()
        return self._finish(self.at.chunk * per_chunk)

    def _step(self) -> dict:
        inputs, targets, _ = self.lanes.chunk(self.at.chunk)
        config, run = self.config, self.config.run
        done = self.at.chunk * run.batch * run.steps
        rate = schedules.learning_rate(config.optimizer, done, run.tokens)
        features, state, events = self.model.features(
            torch.from_numpy(inputs).to(self.device), self.state, self._event_costs()
        )
        text = loss = self.model.mean_nll(features, torch.from_numpy(targets).to(self.device))
        if self.teacher is not None:
            loss = self._with_teacher(text, inputs, features)
        self.optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), config.optimizer.clip)
        if not math.isfinite(norm.item()):
            raise Diverged(
                f"gradient norm is {norm.item()} at chunk {self.at.chunk}; "
                "lower optimizer.learning_rate or optimizer.clip"
            )
        self.optimizer.step(rate)
        self._follow_rates(events)
        kept = self._kept_lanes()
        self.state = next_state(self.model, state, kept)
        if self.teacher is not None:
            self.teacher.go_on(kept)
        self.at.chunk += 1
        return {
            "loss": text.item(),
            **({"distil_loss": loss.item()} if self.teacher is not None else {}),
            "gradient_norm": norm.item(),
            "learning_rate": rate,
            "firing_rates": [rates.mean().item() for rates in self.rates],
        }

    def _event_costs(self) -> list[Tensor]:
        run, done = self.config.run, self.at.chunk * self.config.run.batch * self.config.run.steps
        costs = []
        for rates in self.rates:
            price = schedules.event_price(self.config.activity, rates, done, run.tokens)
            costs.append(price / (run.batch * run.steps))
        return costs

    def _follow_rates(self, events: list[Tensor]) -> None:
        for rates, y in zip(self.rates, events, strict=True):
            now = (y.detach() != 0).sum((0, 1), dtype=torch.float32) / (y.shape[0] * y.shape[1])
            rates.lerp_(now, 0.1 if self.at.chunk else 1.0)

    def _kept_lanes(self) -> Tensor:
        """Which lanes go on (B, 1); the others restart, each with reset_probability."""
        run = self.config.run
        return (torch.rand(run.batch, 1) >= run.reset_probability).to(self.device)

    def _evaluate(self, limit: int | None = None) -> dict:
        """Eight lanes of the validation stream, or of its first `limit` tokens."""
        stream = self.valid_stream[: limit + 1] if limit else self.valid_stream
        num_bytes = round(self.valid_bytes * len(stream) / len(self.valid_stream))
        scores = evaluate(self.model, stream, num_bytes, steps=self._context())
        return {f"valid_{key}": value for key, value in scores.items()}

    def _test(self) -> dict:
        """The whole test text in the carry protocol: one lane, each token, after an end of text."""
        name = self.config.data.test
        if not name:
            return {}
        stream = self._encode(name)
        num_bytes = len(read_text(find_data(name, self.beside)).encode())
        whole = np.concatenate([[self.tokenizer.eos_id], stream])
        scores = evaluate(self.model, whole, num_bytes, lanes=1, steps=self._context())
        return {f"test_{key}": value for key, value in scores.items()}

    def _context(self) -> int:
        """Tokens evaluated at once: a model that carries nothing on sees a chunk of training."""
        zero = getattr(self.model.config, "carry", "state") == "zero"
        return max(128, self.config.run.steps) if zero else 128

    def save(self) -> None:
        """Write checkpoint.pt, whole or not at all."""
        self.at.log_bytes = self.files.log_bytes()
        content = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "state": self.state,
            "rates": self.rates,
            "at": asdict(self.at),
            "random": torch.get_rng_state(),
        }
        if self.teacher is not None:
            content["teacher_state"] = self.teacher.state
        self.files.save_checkpoint(content)

    def _teacher(self) -> Teacher | None:
        """The teacher of [distil], which needs this run's tokenizer."""
        distil, run = self.config.distil, self.config.run
        if distil is None:
            return None
        folder = Path(distil.teacher)
        model = load_teacher(folder, context=run.steps).to(self.device)
        self._check_tokenizer(folder, "distil.teacher")
        return Teacher(model, distil, run.batch)

    def _with_teacher(self, loss: Tensor, inputs: np.ndarray, features: Tensor) -> Tensor:
        """The loss on text and the divergence from the teacher, weighted as [distil] says."""
        assert self.teacher is not None
        distil, run = self.teacher.config, self.config.run
        ids = torch.from_numpy(inputs).to(self.device)
        divergence = self.teacher.divergence(ids, self.model.logits(features))
        loss = (1 - distil.weight) * loss + distil.weight * divergence
        if distil.attention and self.at.chunk * run.batch * run.steps < (
            distil.attention_until * run.tokens
        ):
            loss = loss + distil.attention * self.teacher.attention_gap(self.model)
        return loss

    def _check_tokenizer(self, run: Path, field: str) -> None:
        tokenizer = self.tokenizer.file
        theirs = run / tokenizer.name
        if not theirs.is_file() or theirs.read_bytes() != tokenizer.read_bytes():
            raise ConfigError(f"{field} must have this run's tokenizer, {run} has another")

    def _start_from(self, run: Path) -> None:
        """Take the weights of a finished run of the same architecture and tokenizer."""
        try:
            content = load_tensors(run / "checkpoint.pt", self.device)
            self.model.load_state_dict(content["model"])
        except (ConfigError, KeyError, RuntimeError) as error:
            raise ConfigError(
                f"run.start_from must be a run of this model, {run}: {error}"
            ) from error
        self._check_tokenizer(run, "run.start_from")

    def _load(self) -> None:
        content = load_tensors(self.folder / "checkpoint.pt", self.device)
        self.model.load_state_dict(content["model"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.state, self.rates = content["state"], content["rates"]
        if self.teacher is not None:
            self.teacher.state = content["teacher_state"]
        self.at = Progressed(**content["at"])
        torch.set_rng_state(content["random"].cpu())

    def _finish(self, tokens: int) -> dict:
        result = {
            "name": self.config.name,
            "tokens": tokens,
            "seconds": self.at.seconds,
            "parameters": sum(p.numel() for p in self.model.parameters()),
            **self._evaluate(),
            **self._test(),
        }
        last = {key: value for key, value in result.items() if key.startswith("valid")}
        self.files.append({"tokens": tokens, **last})
        self.files.save_model(self.model)
        plot_curves(self.files.log, self.folder / "curves.png", self.config.name)
        self.files.write_json("result.json", json.dumps(result, indent=2) + "\n")
        return result

    def _check_folder(self, resume: bool) -> None:
        """The folder is new, or holds a run of this very recipe that may be resumed."""
        stored = self.folder / "config.json"
        if stored.exists():
            if not resume:
                raise ConfigError(f"{self.folder} holds a run: pass --resume or another --out")
            try:  # fields that a run older than they are does not state have their defaults
                same = TrainConfig.model_validate_json(stored.read_text("utf-8")) == self.config
            except ValueError:
                same = False
            if not same:
                raise ConfigError(f"{self.folder} holds another recipe's run, see config.json")

    def _tokenizer(self) -> Encoder:
        """The run's own copy of the tokenizer, made with a new run."""
        data = self.config.data
        target = self.folder / f"tokenizer{Path(data.tokenizer or '.model').suffix or '.model'}"
        if not (self.folder / "config.json").exists():  # a new run
            if data.tokenizer:
                replace_file(target, read_all(find_data(data.tokenizer, self.beside)))
            else:
                corpus = find_data(data.train, self.beside)
                train_tokenizer(corpus, target, data.vocab_size, os.cpu_count() or 1)
        return load_encoder(target, data.end_of_text)

    def _encode(self, name: str) -> np.ndarray:
        text = find_data(name, self.beside)
        return self.tokenizer.stream(text, self.folder.parent / ".cache")


def _made(folder: Path) -> Path:
    """The folder, which exists from now on. Raises WriteError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError.of(folder, error) from error
    return folder


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
