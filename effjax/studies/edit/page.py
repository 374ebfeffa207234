"""The report of the study of edits."""


def summary(results):
  return ""


def from_results(results):
  return []


def provenance(results, config=None):
  from effjax.studies import origin

  return origin.facts(results, config)
