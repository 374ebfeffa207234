"""What was learned of a mailbox, written with where it comes from."""

import datetime
import json
import pathlib
from typing import Any

from effjax.io import files, save_peft
from effjax.models import llama_weights
from effjax.studies import language
from effjax.studies.personalize import (
  arms,
  folders,
  letters,
  pipeline,
  prompts,
  retrieval,
  tuning,
)
from effjax.training import workdir

PURPOSE = (
  "Drafts of e-mails for the person whose mails it was trained on, with that"
  " person's consent. Not to be used to pose as anybody."
)


def save(
  folder: folders.Folder,
  plan: pipeline.Plan,
  model: language.Language,
  own: letters.Letters,
  trained: tuning.Trained,
) -> None:
  """Write what was learned, where it comes from, and what drafts need.

  The adapter holds no text of a mail and no address; the index, which is
  private, holds the mails.

  Args:
    folder: The folder of the run.
    plan: The plan.
    model: The base.
    own: The mails.
    trained: What was trained.
  """
  origin = provenance(plan, model, own, trained)
  tuned = trained.tuned
  path = pathlib.Path(plan.model)
  base = str(path.absolute()) if path.exists() else plan.model
  if tuned.chosen.adapter is None:
    merged = model._replace(params=tuned.merged)
    language.save(folder.adapter, merged, overwrite=True)
  else:
    save_peft(
      folder.adapter,
      tuned.chosen.adapter,
      model.params,
      tuned.trained,
      tuned.frozen[1],
      names=llama_weights.stored_name,
      # The path of a file would say whose machine it was.
      config={"base_model_name_or_path": path.name if path.exists() else base},
      metadata={"provenance": json.dumps(origin)},
      overwrite=True,
    )
  files.write_json(folder.adapter / "provenance.json", origin)
  if own.index is not None:
    # Nobody else enters this directory, not even before the next line.
    retrieval.save(folder.index, own.index)
    folder.index.chmod(0o600)
  arm = arms.find(plan.arm)
  settings = {
    "model": base,
    "preamble": own.preamble._asdict(),
    "length": plan.recipe.length,
    "retrieve": prompts.AFTERWARDS if arm.rag else 0,
    "max_tokens": plan.max_tokens,
  }
  folders.write_private(folder.settings, settings)


def provenance(
  plan: pipeline.Plan,
  model: language.Language,
  own: letters.Letters,
  trained: tuning.Trained,
) -> dict[str, Any]:
  """Say where an adapter comes from, without a word of a mail or an address.

  Args:
    plan: The plan.
    model: The base.
    own: The mails.
    trained: What was trained.

  Returns:
    Plain values.
  """
  record = workdir.environment()
  used = pipeline.recipe(plan)
  return {
    "purpose": PURPOSE,
    "made": datetime.datetime.now(datetime.UTC).date().isoformat(),
    "base": {
      "name": pathlib.Path(plan.model).name,
      "sha256": model.digest,
    },
    "arm": plan.arm,
    "rank": used.rank,
    "density": used.density if used.arm == "rosa" else None,
    "epochs": used.epochs,
    "seed": used.seed,
    "mails": trained.facts["mails"],
    "split": folders.split_digest(
      [mail.id for mail in own.train], [mail.id for mail in own.test]
    ),
    "versions": {"python": record["python"], **record["packages"]},
    "commit": record["commit"],
  }
