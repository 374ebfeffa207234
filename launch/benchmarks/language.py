"""Decoding with SmolLM2-135M, against transformers with the same weights.

Without `python -m launch.fetch smollm2` the weights are random: the work is the
same. Both sides are float32, greedy, and keep what they have read in a cache.
"""

import importlib.util
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from effjax import tree
from effjax.models import generation, llama, llama_weights
from effjax.studies import language
from launch.benchmarks import harness

PROMPT, NEW = 54, 64
SMOLLM2 = llama.Config(
  vocabulary=49152,
  width=576,
  layers=30,
  heads=9,
  key_heads=3,
  head_size=64,
  hidden=1536,
  context=8192,
  rope_base=1e5,
)
SMALL = llama.Config(
  vocabulary=64,
  width=16,
  layers=2,
  heads=4,
  key_heads=2,
  head_size=4,
  hidden=24,
)


def cases(quick: bool) -> list[harness.Case]:
  """Return the comparisons, on a small random model if quick."""
  module, params, what = _model(quick)
  tokens = np.random.default_rng(0).integers(5, 60, PROMPT).tolist()
  fused, ready = llama_weights.fuse(module, params)

  def ours() -> tuple[int, ...]:
    (made,) = generation.generate(None, fused, ready, [tokens], max_tokens=NEW)
    return made.tokens

  peers, note = _peers(module, params, tokens, ours)
  size = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
  return [
    harness.Case(
      name=f"{NEW} tokens after a prompt of {PROMPT}, {what}, float32",
      ours=ours,
      peers=peers,
      note=note,
      limit=f"reading {NEW} times {size / 1e6:.0f} MB of weights",
    )
  ]


def _model(quick: bool) -> tuple[llama.Llama, Any, str]:
  """Return the model, its parameters and what to call it."""
  if not quick:
    try:
      found = language.load("smollm2")
      return found.module, found.params, "SmolLM2-135M"
    except FileNotFoundError:
      pass
  return random_model(quick)


def random_model(quick: bool) -> tuple[llama.Llama, Any, str]:
  """Return a model with random weights, and what to call it.

  Args:
    quick: Whether it is small, else of the size of SmolLM2-135M.

  Returns:
    The model, its parameters and its name.
  """
  module = llama.Llama(SMALL if quick else SMOLLM2)
  tokens = jnp.zeros((1, 1), jnp.int32)
  params = jax.jit(module.init)(jax.random.key(0), tokens)["params"]
  return module, params, "a small model" if quick else "random SmolLM2-135M"


def _peers(
  module: llama.Llama, params: Any, tokens: list[int], ours: Callable
) -> tuple[dict[str, Callable[[], Any]], str]:
  """Return the same work by transformers, on one thread and on all."""
  torch = harness.torch_or_none()
  if torch is None or importlib.util.find_spec("transformers") is None:
    return {}, "torch or transformers is not installed"
  import transformers

  network = torch_llama(torch, transformers, module.config, params)
  prompt = torch.tensor([tokens])

  def make(threads: int) -> Callable[[], Any]:
    def run():
      torch.set_num_threads(threads)
      with torch.inference_mode():
        made = network.generate(
          prompt,
          attention_mask=torch.ones_like(prompt),
          do_sample=False,
          max_new_tokens=NEW,
          min_new_tokens=NEW,
        )
      return tuple(made[0, PROMPT:].tolist())

    return run

  counts = sorted({1, harness.cores()})
  found = {f"transformers, {n} threads": make(n) for n in counts}
  same = next(iter(found.values()))() == ours()
  return found, f"tokens {'are' if same else 'are NOT'} the same"


def torch_llama(
  torch: Any, transformers: Any, config: llama.Config, params: Any
) -> Any:
  """Return a model of transformers with the weights of ours."""
  network = transformers.LlamaForCausalLM(
    transformers.LlamaConfig(
      vocab_size=config.vocabulary,
      hidden_size=config.width,
      num_hidden_layers=config.layers,
      num_attention_heads=config.heads,
      num_key_value_heads=config.key_heads,
      head_dim=config.head_size,
      intermediate_size=config.hidden,
      max_position_embeddings=config.context,
      rope_theta=config.rope_base,
      rms_norm_eps=config.epsilon,
      tie_word_embeddings=config.tied,
      bos_token_id=None,
      eos_token_id=None,
      pad_token_id=0,
    )
  )
  paths, leaves = jax.tree.leaves(tree.names(params)), jax.tree.leaves(params)
  state = {}
  for path, leaf in zip(paths, leaves, strict=True):
    value = np.array(leaf)
    value = value.T.copy() if path.endswith("kernel") else value
    state[llama_weights.stored_name(path)] = torch.from_numpy(value)
  if config.tied:
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
  network.load_state_dict(state)
  return network.eval()
