"""The points of the study: what is trained once, and what it is examined on."""

import dataclasses

from effjax.studies.personalize import arms, tuning
from effjax.studies.personalize.letters import Raft

BASES = ("float32", "nf4", "int8")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
  """Something that is trained once; the defaults are those of a config.

  Attributes:
    person: Whose mails are learned.
    trained: A key of `plans.TITLES`; None for nothing.
    raft: Whether some prompts of training have earlier mails.
    rate: The highest learning rate; 0 where nothing is trained.
    seed: Of the training and of the drafts.
    rank: Of low-rank adapters.
    density: Share of the weights in the sparse part of RoSA.
    epochs: How often every mail is learned from.
    size: How many mails are learned from; 0 for all.
    base: One of `BASES`: how the weights are kept that are not trained.
    planted: Whether canaries are planted in the mails.
    validation: Whether a part of the mails to learn from is held out instead of
      those to be judged by.
  """

  person: str
  trained: str | None = None
  raft: bool = False
  rate: float = 0.0
  seed: int = 0
  rank: int = 8
  density: float = 0.01
  epochs: float = 5.0
  size: int = 0
  base: str = "float32"
  planted: bool = False
  validation: bool = False

  @property
  def name(self) -> str:
    """The path of what is found, below the directory of the study."""
    parts = [self.trained or "pretrained"]
    if self.trained:
      parts += ["raft"] * self.raft
      parts += [f"rate{self.rate:g}", f"epochs{self.epochs:g}"]
      if self.trained in ("lora", "dora", "rosa"):
        parts.append(f"rank{self.rank}")
      if self.trained == "rosa":
        parts.append(f"density{self.density:g}")
    parts += [f"size{self.size}"] * bool(self.size)
    parts += [self.base] * (self.base != "float32")
    parts += ["planted"] * self.planted + ["validation"] * self.validation
    return f"{self.person}/{'_'.join(parts)}_seed{self.seed}"

  def recipe(self, config) -> tuning.Recipe:
    """Return how it is trained.

    Args:
      config: The configuration of the study.
    """
    if self.trained is None:
      raise ValueError("nothing is trained of a pretrained model")
    raft = Raft(config.retrieval.share, config.retrieval.in_training)
    return tuning.Recipe(
      arm=self.trained,
      rank=self.rank,
      density=self.density,
      learning_rate=self.rate,
      epochs=self.epochs,
      rows=config.rows,
      length=config.length,
      raft=raft if self.raft else None,
      dropout=config.dropout,
      warm_up=config.warm_up,
      collected=config.collected,
      reduction=config.reduction,
      seed=self.seed,
    )


def of_arm(
  config, person: str, arm: arms.Arm, rates: dict[str, float], seed: int
) -> Point:
  """Return what an arm trains.

  Args:
    config: The configuration of the study.
    person: Whose mails are learned.
    arm: The arm.
    rates: The learning rate of what is trained.
    seed: Of the training and of the drafts.

  Returns:
    The point; arms that differ in retrieval for drafts alone have the same.
  """
  return Point(
    person=person,
    trained=arm.trained,
    raft=arm.raft,
    rate=rates[arm.trained] if arm.trained else 0.0,
    seed=seed,
    rank=config.rank,
    density=config.density,
    epochs=config.epochs,
  )
