"""Training steps of adapters on SmolLM2-135M, against peft and transformers.

Both sides are float32, LoRA of rank 8 on all linear layers of the blocks, AdamW
and the same tokens that count. Texts of the lengths of e-mails are packed into
rows by us, with what all prompts begin with once in each; the peer pads batches
of texts that were sorted by length. Each side has a process of its own, ours
with the memory settings of `launch.finetune`.

  python -m launch.benchmarks.finetuning CASE CANDIDATE

is that process: it runs a step, or an epoch, for each line of its input.
"""

import argparse
import dataclasses
import functools
import importlib.util
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from effjax import adapters, training
from effjax.data import packing
from effjax.data.dialogues import Example
from effjax.models import llama
from effjax.training import language
from launch import memory
from launch.benchmarks import apart, harness
from launch.benchmarks import language as decoding

RANK, DENSITY, RATE = 8, 0.01, 1e-4
# Tokens with which prompts of personalization begin, whatever they ask for.
_BEGINNING = 101
KERNELS = r"layer_\d+/.*kernel"
_OURS, _PLAIN, _LORA = "ours", "ours, small pages", "our LoRA step"
_PEFT = "peft, {} threads"
_MISSING = "torch, transformers or peft is not installed"


@dataclasses.dataclass(frozen=True)
class Work:
  """What both sides do in a case.

  Attributes:
    name: What is measured, with its size.
    arm: What we train.
    packed: What we learn from, in an epoch.
    padded: What the peer learns from: tokens of each batch, [texts, T].
    prompts: Tokens of each text that do not count, [texts] a batch.
    tokens: How many tokens there are, before packing and padding.
    note: What a reader must know.
  """

  name: str
  arm: language.Arm
  packed: Any
  padded: Sequence[np.ndarray]
  prompts: Sequence[np.ndarray]
  tokens: int
  note: str = ""


@dataclasses.dataclass(frozen=True)
class Model:
  """What is trained, and what to call it."""

  module: llama.Llama
  params: Any
  name: str


def cases(quick: bool) -> list[harness.Case]:
  """Return the comparisons, on a small random model if quick."""
  model = _model(quick)
  return [_case(name, model, quick) for name in _WORKS]


def main(argv: list[str] | None = None) -> None:
  """Serve one candidate of a case.

  Args:
    argv: Arguments instead of those of the command line.
  """
  parser = argparse.ArgumentParser(description=main.__doc__)
  parser.add_argument("case", choices=_WORKS)
  parser.add_argument("candidate")
  options = parser.parse_args(argv)
  model = _model(quick=False)
  work = _WORKS[options.case](model, False)
  if options.candidate == _OURS:
    run = _ours(model, work)
  else:
    run = _peers(model, work)[options.candidate]
  apart.serve(run)


def _model(quick: bool) -> Model:
  module, params, name = decoding.random_model(quick)
  return Model(module.clone(apply_part=adapters.dense), params, name)


def _case(name: str, model: Model, quick: bool) -> harness.Case:
  work = _WORKS[name](model, quick)
  limit = _limit(model.params, work.tokens)
  if quick or harness.on_accelerator():
    if name == "rosa":
      peers = {_LORA: _ours(model, _WORKS["lora"](model, quick))}
    else:
      peers = _peers(model, work)
    ours = _ours(model, work)
    note = "; ".join(filter(None, [work.note, "" if peers else _MISSING]))
    return harness.Case(
      name=work.name, ours=ours, peers=peers, note=note, limit=limit
    )
  huge_pages = memory.improved_environment()

  def candidate(which: str, of: str = name, environment=huge_pages):
    return apart.Apart(__spec__.name, of, which, environment=environment)

  everyone = {_OURS: candidate(_OURS)}
  if name == "rosa":
    everyone[_LORA] = candidate(_OURS, "lora")
  elif _peers_are_there():
    for threads in (1, harness.cores()):
      label = _PEFT.format(threads)
      everyone[label] = candidate(label, environment=None)
  if name == "lora" and huge_pages:
    everyone[_PLAIN] = candidate(_OURS, environment=None)

  def note() -> str:
    held = [f"{k} {v.memory / 1e9:.2f} GB" for k, v in everyone.items()]
    said = [
      work.note,
      "" if _peers_are_there() else _MISSING,
      "ours with huge pages, as launch.finetune has them" * bool(huge_pages),
      f"peak memory: {', '.join(held)}",
    ]
    return "; ".join(filter(None, said))

  def close() -> None:
    for each in everyone.values():
      each.close()

  return harness.Case(
    name=work.name,
    ours=everyone[_OURS],
    peers={k: v for k, v in everyone.items() if k != _OURS},
    note=note,
    limit=limit,
    close=close,
  )


def _peers_are_there() -> bool:
  names = ("torch", "transformers", "peft")
  return all(importlib.util.find_spec(name) is not None for name in names)


def _steps(arm: language.Arm, what: str, model: Model, quick: bool) -> Work:
  """Prepare one step on rows that are full."""
  rng = np.random.default_rng(0)
  rows, length = (2, 16) if quick else (4, 256)
  whole = [_text(rng, model, length, 1) for _ in range(rows)]
  return Work(
    name=f"{what}, {rows} x {length} tokens, {model.name}",
    arm=arm,
    packed=packing.packed(whole, rows, length, seed=0),
    padded=[np.stack([x.tokens for x in whole])],
    prompts=[np.ones(rows, int)],
    tokens=rows * length,
  )


def _lora_step(model: Model, quick: bool) -> Work:
  return _steps(_lora(), f"LoRA step, rank {RANK}", model, quick)


def _rosa_step(model: Model, quick: bool) -> Work:
  rng = np.random.default_rng(1)
  masks = jax.tree.map(
    lambda x: _few(rng, x.shape) if x.ndim == 2 else None, model.params
  )
  masks["embed"]["embedding"] = None
  rosa = adapters.rosa(RANK, masks, where=KERNELS, alpha=16)
  what = f"RoSA step, rank {RANK} and {DENSITY:.0%}"
  return _steps(language.adapted(rosa), what, model, quick)


def _mails(model: Model, quick: bool, *, alike: bool) -> Work:
  """Prepare an epoch over texts of unlike lengths.

  The peer takes four at a time, which saves it most padding. `alike` texts
  begin as those of personalization do.
  """
  rng = np.random.default_rng(0)
  rows, length, count = (2, 16, 4) if quick else (4, 256, 32)
  texts = [
    _text(rng, model, size, max(size * 2 // 5, 1))
    for size in _lengths(rng, count, length)
  ]
  if alike:
    head = _text(rng, model, 6 if quick else _BEGINNING, 1).tokens
    texts = [
      Example(np.concatenate([head, own.tokens]), len(head) + own.prompt)
      for own in texts
    ]
    rows, length = rows // 2, length + 8 if quick else 2 * length
  sizes = np.array([len(x.tokens) for x in texts])
  beginning = packing.common_beginning(texts)
  packed = packing.packed(texts, rows, length, seed=0, beginning=beginning)
  order = np.argsort(sizes, kind="stable")
  padded, prompts = [], []
  for start in range(0, len(texts), 4):
    chosen = [texts[i] for i in order[start : start + 4]]
    longest = max(len(x.tokens) for x in chosen)
    padded.append(
      np.stack([np.pad(x.tokens, (0, longest - len(x.tokens))) for x in chosen])
    )
    prompts.append(np.array([x.prompt for x in chosen]))
  begin = f", the first {beginning} alike" if beginning else ""
  rest = " of the rest" if beginning else ""
  return Work(
    name=f"LoRA, {len(texts)} texts of {sizes.min()} to {sizes.max()} tokens"
    f"{begin}, median {np.median(sizes):.0f}, three fifths{rest} count,"
    f" {model.name}",
    arm=_lora(),
    packed=packed,
    padded=padded,
    prompts=prompts,
    tokens=int(sizes.sum()),
    note=f"ours: {packed.per_epoch} steps of {rows} rows of {length}; the"
    f" peer: {len(padded)} of 4 texts",
  )


_WORKS = {
  "lora": _lora_step,
  "rosa": _rosa_step,
  "mails": functools.partial(_mails, alike=False),
  "alike": functools.partial(_mails, alike=True),
}


def _lora() -> language.Arm:
  return language.adapted(adapters.lora(RANK, where=KERNELS, alpha=16))


def _text(
  rng: np.random.Generator, model: Model, size: int, prompt: int
) -> Example:
  top = model.module.config.vocabulary - 1
  return Example(rng.integers(1, top, size).astype(np.int32), prompt)


def _few(rng: np.random.Generator, shape: tuple[int, ...]) -> jax.Array:
  size = shape[0] * shape[1]
  mask = np.zeros(size, bool)
  mask[rng.choice(size, max(int(DENSITY * size), 1), replace=False)] = True
  return jnp.asarray(mask.reshape(shape))


def _lengths(rng: np.random.Generator, count: int, most: int) -> np.ndarray:
  """Draw lengths as of e-mails with their prompts: few are long."""
  drawn = rng.lognormal(np.log(most / 3), 0.6, count)
  return np.clip(drawn, 4, most).astype(int)


def _limit(params: Any, tokens: int) -> str:
  """Count forward and backward products; the weights get no gradients."""
  size = sum(x.size for x in jax.tree.leaves(params))
  return f"{4 * size * tokens / 1e9:.4g} GFLOP of dense products"


def _ours(model: Model, work: Work) -> Callable[[], float]:
  """Make a run over all batches of an epoch."""
  arm, batches = work.arm, work.packed
  trained, frozen = arm.init(jax.random.key(0), model.params)
  optimizer = optax.adamw(RATE)
  rows = batches[0]["tokens"].shape[0]
  step = language.finetune_step(
    model.module, arm, optimizer, accumulate=language.micro_batches(rows)
  )
  step = jax.jit(step, donate_argnums=0)
  state = training.create(jax.random.key(1), trained, optimizer)
  held = [jax.tree.map(lambda x: jnp.array(x, copy=True), state)]
  given = [jax.device_put(batches[i]) for i in range(batches.per_epoch)]

  def run() -> float:
    losses = []
    for batch in given:
      held[0], measures = step(held[0], batch, frozen)
      losses.append(measures["loss"])
    return float(losses[-1])

  return run


def _peers(model: Model, work: Work) -> dict[str, Callable[[], float]]:
  """Return the same by peft, on one thread and on all."""
  if not _peers_are_there():
    return {}
  torch = harness.torch_or_none()
  import peft
  import transformers

  network = decoding.torch_llama(
    torch, transformers, model.module.config, model.params
  )
  device = harness.torch_device(torch)
  recipe = peft.LoraConfig(
    r=RANK,
    lora_alpha=16,
    target_modules=r".*layers.*_proj",
    task_type="CAUSAL_LM",
  )
  with warnings.catch_warnings():
    # peft asks transformers in a way that this will not know for ever.
    warnings.simplefilter("ignore", FutureWarning)
    adapted = peft.get_peft_model(network, recipe).to(device)
  adapted.train()
  trained = [p for p in adapted.parameters() if p.requires_grad]
  optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=1e-4)
  given = []
  for tokens, sizes in zip(work.padded, work.prompts, strict=True):
    places = np.arange(tokens.shape[1])[None]
    # Token 0 is padding; it occurs in no text.
    counts = (tokens > 0) & (places >= sizes[:, None])
    given.append(
      {
        "input_ids": torch.from_numpy(tokens.astype(np.int64)).to(device),
        "attention_mask": torch.from_numpy((tokens > 0) * 1).to(device),
        "labels": torch.from_numpy(np.where(counts, tokens, -100)).to(device),
      }
    )

  def make(threads: int) -> Callable[[], float]:
    def run():
      torch.set_num_threads(threads)
      for batch in given:
        optimizer.zero_grad()
        loss = adapted(**{k: v.long() for k, v in batch.items()}).loss
        loss.backward()
        optimizer.step()
      harness.finish(torch)
      return float(loss.detach())

    return run

  counts = harness.torch_threads(torch)
  return {_PEFT.format(n): make(n) for n in counts}


if __name__ == "__main__":
  main()
