"""The report of the study of personalization: its table, and what it says."""

from collections.abc import Mapping
from typing import Any

from effjax.studies import elements, figures, origin
from effjax.studies.personalize import arms, panes, published


def summary(results: Mapping[str, Any]) -> str:
  """Say in a few sentences what was found.

  Args:
    results: The content of `results.json`.

  Returns:
    Text for a report.
  """
  table = results["table"]
  best = max(table, key=lambda row: elements.number(row["bleu"]["estimate"]))
  people = results["data"]["people"]
  tests = sum(each["test"] for each in people.values())
  text = (
    f"{results['model']} wrote the mails of {_persons(results)}: {tests} that"
    " it never saw, from instructions. The highest Panza-BLEU is"
    f" {_plain(best['bleu'])}, of {best['title']}"
  )
  before = next((row for row in table if row["arm"] == "pretrained"), None)
  if before is not None and before is not best:
    text += f"; the model as it is has {_plain(before['bleu'])}"
  gains = [
    each
    for each in results["differences"]
    if each["than"] == "pretrained" and arms.find(each["arm"]).trained
  ]
  if gains:
    above = sum(_above(each["bleu"]) for each in gains)
    text += (
      f". **{above} of {len(gains)} tuned arms write closer to the person than"
      " the model as it is** by Panza-BLEU, beyond chance in the draw of mails,"
      f" and {sum(_above(each['mauve']) for each in gains)} by MAUVE, beyond"
      " chance in seeds"
    )
    if len(results["seeds"]) == 1:
      text += "; one seed says nothing of chance in training"
  return f"{text}.{_edges(results)}"


def _persons(results: Mapping[str, Any]) -> str:
  names = results["persons"]
  kinds = {
    "synthetic": "made-up person",
    "panza": "published person",
    "spam_assassin": "author of a public list",
  }
  kind = kinds.get(results["data"]["name"], "person")
  if len(names) == 1:
    return f"one {kind} ({names[0]})"
  kind = kind.replace("author", "authors").replace("person", "persons")
  return f"{len(names)} {kind} ({', '.join(names)})"


def _edges(results: Mapping[str, Any]) -> str:
  """Name what may want another learning rate than those that were tried."""
  found = []
  for kind, tried in results["tried"].items():
    if len(tried) > 1:
      rates = sorted(one["rate"] for one in tried)
      best = min(tried, key=lambda one: one["loss"])["rate"]
      if best in (rates[0], rates[-1]):
        found.append(arms.find(kind).title)
  if not found:
    return ""
  return (
    f" The learning rate of {', '.join(found)} is at the edge of those that"
    " were tried: another might be better still."
  )


def from_results(results: Mapping[str, Any]) -> list[elements.Section]:
  """Make the sections of the report.

  Args:
    results: The content of `results.json`.

  Returns:
    Sections.
  """
  sections = [
    ("What was learned", [plot(results), _table(results), _behaviour(results)]),
    ("What differs", panes.differences(results)),
    ("Side by side", panes.side_by_side(results)),
    ("One person's model, another's mails", panes.cross(results)),
    ("How much has to be learned from, and trained", panes.varied(results)),
    ("What is learned by heart", panes.privacy(results)),
    ("Cost", [_cost(results)]),
    ("Learning rates", panes.tried(results)),
    ("What the paper reports", [_published(results)]),
    ("The mails", [_mails(results), panes.USE]),
  ]
  return [
    elements.Section(title, content) for title, content in sections if content
  ]


def plot(results: Mapping[str, Any]) -> elements.Plot:
  """Draw how close each arm comes to what the persons wrote.

  Args:
    results: The content of `results.json`.

  Returns:
    The plot.
  """
  table = results["table"]
  best = max(table, key=lambda row: elements.number(row["bleu"]["estimate"]))
  title = f"{best['title']} comes closest to the words of the persons"
  others = [
    each["bleu"]
    for each in results["differences"]
    if best["arm"] in (each["arm"], each["than"])
  ]
  if any(not elements.beyond_zero(cell) for cell in others):
    title += ", others as close within chance"
  series: dict[str, Any] = {"bleu": elements.ends(row["bleu"] for row in table)}
  before = [row for row in table if row["arm"] == "pretrained"]
  return elements.Plot(
    figures.dot_intervals(
      [row["title"] for row in table],
      series,
      title=title,
      xlabel="Panza-BLEU; the line is the model as it is",
      reference=elements.number(before[0]["bleu"]["estimate"])
      if before
      else None,
    ),
    alt=title,
    caption=caption(results),
  )


def caption(results: Mapping[str, Any]) -> str:
  """Say what intervals are of."""
  tests = sum(e["test"] for e in results["data"]["people"].values())
  seeds = ", ".join(map(str, results["seeds"]))
  return (
    f"{tests} mails of {', '.join(results['persons'])}, one draft of each;"
    f" seeds {seeds}. Intervals (95 %) of Panza-BLEU and ROUGE-L are of"
    " resampled mails and seeds, all others Student's t over seeds, where there"
    " are several."
  )


def _table(results: Mapping[str, Any]) -> elements.Table:
  feature = results["feature"]
  columns = [
    "arm",
    elements.Column("Panza-BLEU", digits=3),
    elements.Column("ROUGE-L", digits=3),
    elements.Column(f"MAUVE, {feature}", digits=3),
    elements.Column("sd over clusterings", digits=3),
    elements.Column(f"MAUVE*, {feature}", digits=3),
    elements.Column("MAUVE beside all mails", digits=3),
    elements.Column("perplexity", digits=2),
  ]
  minilm = any(row["mauve_minilm"] for row in results["table"])
  if minilm:
    columns.insert(5, elements.Column("MAUVE, MiniLM", digits=3))
  rows = []
  for row in results["table"]:
    cells = [
      row["title"],
      row["bleu"],
      row["rouge_l"],
      row["mauve"],
      row["mauve_sd"],
      row["mauve_star"],
      row["mauve_with_train"],
      row["perplexity"],
    ]
    if minilm:
      cells.insert(5, row["mauve_minilm"])
    rows.append(cells)
  one = results["runs"][0]
  counts = len(one[f"mauve_{feature}"]["values"]) or "no"
  return elements.Table(
    columns,
    rows,
    caption=caption(results),
    notes=[
      f"MAUVE has features of the last token by {feature} before it was tuned,"
      f" K = {buckets(results)} buckets, {counts}"
      " clusterings of each run; with so few buckets differences below 0.1 mean"
      " nothing, and values are not those of other features.",
      "Panza-BLEU is the mean of cumulative BLEU-1 to BLEU-4 of each mail,"
      " unsmoothed. Lines that announce a mail or its subject are removed first"
      " (anchored at the line's beginning).",
      "Perplexity is that of held-out mails given their prompts, over all their"
      f" tokens; the loss of the training is reduced {_reduction(results)}.",
    ],
  )


def buckets(results: Mapping[str, Any]) -> str:
  """Say how many buckets MAUVE has.

  Args:
    results: The content of `results.json`.

  Returns:
    The numbers that occur, or "no".
  """
  found = {k for row in results["table"] for k in row["buckets"] if k}
  return ", ".join(map(str, sorted(found))) or "no"


def _reduction(results: Mapping[str, Any]) -> str:
  found = {run["facts"].get("reduction") for run in results["runs"]} - {None}
  return ", ".join(sorted(f'"{name}"' for name in found)) or "nowhere"


def _behaviour(results: Mapping[str, Any]) -> elements.Table:
  share = lambda title: elements.Column(title, "%", digits=0, scale=100)
  columns = [
    "arm",
    share("copied run"),
    elements.Column("length ratio", digits=2),
    share("greeting agrees"),
    share("closing agrees"),
    elements.Column("BLEU between drafts", digits=3),
    elements.Column("cut off", digits=1),
    share("recognised"),
    share("with names"),
  ]
  rows: list[Any] = [
    [
      row["title"],
      row["copied"],
      row["length_ratio"],
      row["greeting"],
      row["closing"],
      row["self_bleu"],
      row["unfinished"],
      row["recognized_without_names"],
      row["recognized_with_names"],
    ]
    for row in results["table"]
  ]
  found = results["mails"]
  notes = [
    "The copied run is the longest run of words of a draft that stands in one"
    " mail that was learned from, over the draft's length.",
  ]
  if found:
    mean = lambda kind: (
      sum(e[kind]["share"] for e in found.values()) / len(found)
    )
    nothing = [None] * (len(columns) - 3)
    both = [mean("without_names"), mean("with_names")]
    rows.append(["the persons themselves", *nothing, *both])
    notes.append(
      f"Recognised by a classifier of character n-grams among {len(found)}"
      f" persons (chance {100 / len(found):.0f} %), without and with names,"
      " closings and addresses."
    )
  else:
    notes.append("With one person there is nobody to be told from.")
  return elements.Table(columns, rows, caption=caption(results), notes=notes)


def _cost(results: Mapping[str, Any]) -> elements.Table:
  columns = [
    "arm",
    elements.Column("learning rate", digits=None),
    elements.Column("trained numbers"),
    elements.Column("of all", "%", digits=2, scale=100),
    elements.Column("steps", digits=0),
    elements.Column("tokens learned", digits=0),
    elements.Column("tokens read", digits=0),
    elements.Column("time", "CPU s", digits=0),
    elements.Column("elapsed", "s", digits=0),
    elements.Column("most memory", "GiB", digits=2, scale=2**-30),
  ]
  rows = [
    [
      row["title"],
      row["rate"] or None,
      row["trained"],
      row["share"],
      *[row[name] or None for name in ("steps", "learned_tokens")],
      *[row[name] or None for name in ("read_tokens", "cpu", "wall")],
      row["memory"],
    ]
    for row in results["table"]
  ]
  return elements.Table(
    columns,
    rows,
    caption="Means over persons and seeds; arms that differ in retrieval for"
    " drafts alone are trained once.",
    notes=[
      "Every mail is learned from as often by every arm. Tokens read include"
      " prompts and padding. The time includes compilation, that of RoSA its"
      " warm-up and the choice of its places; memory is that of the process.",
    ],
  )


def _published(results: Mapping[str, Any]) -> elements.Table:
  columns = [
    "arm",
    elements.Column("Panza-BLEU here", digits=3),
    elements.Column("of 8B, five users", digits=3),
    elements.Column("of 8B, David", digits=3),
    elements.Column("ROUGE-L here", digits=3),
    elements.Column("of 8B, five users", digits=3),
    elements.Column("of 8B, David", digits=3),
  ]
  rows = []
  for row in results["table"]:
    nothing = (None, None, None)
    users = published.LLAMA_3.get(row["arm"], nothing)
    david = published.DAVID.get(row["arm"], nothing)
    cells = [row["bleu"]["estimate"], users[0], david[0]]
    cells += [row["rouge_l"]["estimate"], users[1], david[1]]
    rows.append([row["title"], *cells])
  return elements.Table(
    columns,
    rows,
    caption="Another class of model: the paper's has 8 billion parameters"
    " (Llama 3), other persons and other instructions. Its MAUVE has features"
    " of another model and cannot be set beside ours.",
  )


def _mails(results: Mapping[str, Any]) -> elements.Table:
  found = results["data"]
  rows = []
  for name, each in found["people"].items():
    counts = {k: n for k, n in each["instructions"].items() if n}
    ways = ", ".join(f"{n} {way}" for way, n in counts.items())
    cells = [each[k] for k in ("mails", "train", "test", "words")]
    rows.append([name, *cells, ways, each["threshold"], each["recall"]])
  return elements.Table(
    [
      "person",
      elements.Column("mails"),
      elements.Column("to learn from"),
      elements.Column("to be judged by"),
      elements.Column("words of a mail", digits=1),
      elements.Column("instructions"),
      elements.Column("least relevance", digits=3),
      elements.Column("own mail found", "%", digits=0, scale=100),
    ],
    rows,
    caption=f"Split at random ({found['order']}), no text in two parts.",
    notes=[
      "The least relevance of retrieved mails was chosen on mails to learn"
      " from: so that 5 % of other mails pass.",
      "Texts are shown."
      if found["shown"]
      else "No text of these mails, nor of drafts, is in this report.",
    ],
  )


def _plain(cell: Mapping[str, float | None]) -> str:
  return f"{elements.number(cell['estimate']):.3f}"


def _above(cell: Mapping[str, float | None]) -> bool:
  """Say whether an interval lies above zero."""
  return elements.number(cell["low"]) > 0


def provenance(
  results: Mapping[str, Any], config: Any = None
) -> dict[str, Any]:
  """Gather what a reader needs to repeat the study.

  Args:
    results: The content of `results.json`.
    config: The configuration, or None.

  Returns:
    Names to values.
  """
  rates = {row["title"]: row["rate"] for row in results["table"] if row["rate"]}
  return origin.facts(results, config, seeds=results["seeds"], rates=rates)
