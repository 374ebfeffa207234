"""Training steps of adapters on SmolLM2-135M, against peft and transformers.

Both sides are float32, LoRA of rank 8 on all linear layers of the blocks, AdamW
and the same tokens that count. Texts of the lengths of e-mails are packed into
rows by us, with what all prompts begin with once in each; the peer pads batches
of texts that were sorted by length.

  python -m launch.benchmarks.finetuning ours     # or peft

runs two of the steps in a process of its own and prints its peak memory.
"""

import argparse
import importlib.util
import pathlib
import re
import subprocess
import sys
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
from launch.benchmarks import harness
from launch.benchmarks import language as decoding

RANK, DENSITY, RATE = 8, 0.01, 1e-4
# Tokens with which prompts of personalization begin, whatever they ask for.
_BEGINNING = 101
KERNELS = r"layer_\d+/.*kernel"


def cases(quick: bool) -> list[harness.Case]:
  """Return the comparisons, on a small random model if quick."""
  module, params, what = decoding.random_model(quick)
  module = module.clone(apply_part=adapters.dense)
  rng = np.random.default_rng(0)
  rows, length, texts = (2, 16, 4) if quick else (4, 256, 32)
  text = lambda size, prompt: _text(rng, module, size, prompt)
  whole = [text(length, 1) for _ in range(rows)]
  lora = _lora()
  ours = _ours(
    module, params, lora, packing.packed(whole, rows, length, seed=0)
  )
  batches = [np.stack([x.tokens for x in whole])]
  peers = _peers(module, params, batches, [np.ones(rows, int)])
  masks = jax.tree.map(
    lambda x: _few(rng, x.shape) if x.ndim == 2 else None, params
  )
  masks["embed"]["embedding"] = None
  rosa = language.adapted(adapters.rosa(RANK, masks, where=KERNELS, alpha=16))
  sparse = _ours(
    module, params, rosa, packing.packed(whole, rows, length, seed=0)
  )
  lora_step = harness.Case(
    name=f"LoRA step, rank {RANK}, {rows} x {length} tokens, {what}",
    ours=ours,
    peers=peers,
    note=_note(peers) if quick or not peers else _memory(),
    limit=_limit(params, rows * length),
  )
  rosa_step = harness.Case(
    name=f"RoSA step, rank {RANK} and {DENSITY:.0%}, {rows} x {length}"
    f" tokens, {what}",
    ours=sparse,
    peers={"our LoRA step": ours},
  )
  sizes = _lengths(rng, texts, length)
  mails = [text(size, max(size * 2 // 5, 1)) for size in sizes]
  head = text(6 if quick else _BEGINNING, 1).tokens
  asked = [
    Example(np.concatenate([head, own.tokens]), len(head) + own.prompt)
    for own in mails
  ]
  longer = length + 8 if quick else 2 * length
  return [
    lora_step,
    rosa_step,
    _mails(module, params, mails, rows, length, what),
    _mails(module, params, asked, rows // 2, longer, what),
  ]


def _mails(
  module: llama.Llama,
  params: Any,
  texts: Sequence[Example],
  rows: int,
  length: int,
  what: str,
) -> harness.Case:
  """Compare an epoch over texts of unlike lengths.

  The peer takes four at a time, which saves it most padding.
  """
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
  peers = _peers(module, params, padded, prompts)
  begin = f", the first {beginning} alike" if beginning else ""
  rest = " of the rest" if beginning else ""
  return harness.Case(
    name=f"LoRA, {len(texts)} texts of {sizes.min()} to {sizes.max()} tokens"
    f"{begin}, median {np.median(sizes):.0f}, three fifths{rest} count, {what}",
    ours=_ours(module, params, _lora(), packed),
    peers=peers,
    note=f"ours: {packed.per_epoch} steps of {rows} rows of {length}; the"
    f" peer: {len(padded)} of 4 texts; {_note(peers)}",
    limit=_limit(params, int(sizes.sum())),
  )


def _lora() -> language.Arm:
  return language.adapted(adapters.lora(RANK, where=KERNELS, alpha=16))


def _text(
  rng: np.random.Generator, module: llama.Llama, size: int, prompt: int
) -> Example:
  top = module.config.vocabulary - 1
  return Example(rng.integers(1, top, size).astype(np.int32), prompt)


def _memory() -> str:
  """Measure the peak memory of both sides, each in a fresh process."""
  found = []
  for side in ("ours", "peft"):
    command = [sys.executable, "-m", "launch.benchmarks.finetuning", side]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    found.append(f"{side} {run.stdout.split()[-1]} GB")
  return "peak memory of a process: " + ", ".join(found)


def main(argv: list[str] | None = None) -> None:
  """Run two LoRA steps of one side and print the peak memory in GB.

  Args:
    argv: Arguments instead of those of the command line.
  """
  parser = argparse.ArgumentParser(description=main.__doc__)
  parser.add_argument("side", choices=("ours", "peft"))
  side = parser.parse_args(argv).side
  module, params, _ = decoding.random_model(quick=False)
  module = module.clone(apply_part=adapters.dense)
  rng = np.random.default_rng(0)
  whole = [_text(rng, module, 256, 1) for _ in range(4)]
  if side == "ours":
    batches = packing.packed(whole, 4, 256, seed=0)
    run = _ours(module, params, _lora(), batches)
  else:
    tokens = [np.stack([x.tokens for x in whole])]
    run = next(iter(_peers(module, params, tokens, [np.ones(4, int)]).values()))
    del params
  for _ in range(2):
    run()
  status = pathlib.Path("/proc/self/status").read_text()
  peak = re.search(r"VmHWM:\s+(\d+) kB", status)
  print(f"{int(peak[1]) / 1e6:.2f}" if peak else "unknown")


def _few(rng: np.random.Generator, shape: tuple[int, ...]) -> jax.Array:
  size = shape[0] * shape[1]
  mask = np.zeros(size, bool)
  mask[rng.choice(size, max(int(DENSITY * size), 1), replace=False)] = True
  return jnp.asarray(mask.reshape(shape))


def _lengths(rng: np.random.Generator, count: int, most: int) -> np.ndarray:
  """Draw lengths as of e-mails with their prompts: few are long."""
  drawn = rng.lognormal(np.log(most / 3), 0.6, count)
  return np.clip(drawn, 4, most).astype(int)


def _note(peers: dict) -> str:
  return "" if peers else "torch, transformers or peft is not installed"


def _limit(params: Any, tokens: int) -> str:
  """Count forward and backward products; the weights get no gradients."""
  size = sum(x.size for x in jax.tree.leaves(params))
  return f"{4 * size * tokens / 1e9:.4g} GFLOP of dense products"


def _ours(
  module: llama.Llama, params: Any, arm: language.Arm, batches: Any
) -> Callable[[], Any]:
  """Make a run over all batches of an epoch."""
  trained, frozen = arm.init(jax.random.key(0), params)
  optimizer = optax.adamw(RATE)
  rows = batches[0]["tokens"].shape[0]
  step = language.finetune_step(
    module, arm, optimizer, accumulate=language.micro_batches(rows)
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


def _peers(
  module: llama.Llama,
  params: Any,
  batches: Sequence[np.ndarray],
  prompts: Sequence[np.ndarray],
) -> dict[str, Callable[[], float]]:
  """Return the same by peft, on one thread and on all."""
  torch = harness.torch_or_none()
  needed = ("transformers", "peft")
  if torch is None or any(not importlib.util.find_spec(x) for x in needed):
    return {}
  import peft
  import transformers

  network = decoding.torch_llama(torch, transformers, module.config, params)
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
  for tokens, sizes in zip(batches, prompts, strict=True):
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
  return {f"peft, {n} threads": make(n) for n in counts}


if __name__ == "__main__":
  main()
