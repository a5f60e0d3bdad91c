"""A threshold and a smallest component that a user chooses in place of the model's own."""

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

from brainseg.inference import postprocessing
from brainseg.io.volumes import MAX_VOXELS

MAX_COMPONENT = MAX_VOXELS  # voxels

_LOWEST = 1 / 255  # probabilities are 255ths: below, what is certainly no tumour would be tumour too
_REMARKS = "chosen"  # key of facts: how the rule differs from the model's

M = TypeVar("M")


class RuleChoice(NamedTuple):
    """``threshold`` above 0 and below 1, ``min_component`` in voxels of the model's grid; None: the model's own."""

    threshold: float | None = None
    min_component: int | None = None


def apply(model: M, choice: RuleChoice) -> M:
    """The model with another rule, which its ``facts`` have too. The given one stays as it is.

    A smallest component that is chosen also holds for slices without neighbours, which keep all by the model's own.

    Args:
        model: an ``outlining.Outliner``.
    """
    if choice == RuleChoice():
        return model
    facts: Mapping[str, Any] = model.facts  # type: ignore[attr-defined]
    own = facts["rule"]
    asked = {name: value for name, value in choice._asdict().items() if value is not None}
    rule, told = {**own, **asked}, []
    if rule["threshold"] != own["threshold"]:
        told.append(f"threshold {rule['threshold']:g} (the model's: {own['threshold']:g})")
    if choice.min_component is not None:
        ours = f"the model's: {own['min_component']}, in volumes alone"
        told.append(f"smallest component {choice.min_component} voxels, in single slices too ({ours})")
        rule["min_share"] = 0.0  # the chosen size stands in the place of both
        rule["single_slices"] = True  # names another rule than the model's, even where the numbers are the same
    changed: Any = copy.copy(model)
    changed.facts = {**facts, "rule": rule, _REMARKS: told}
    changed.rule = postprocessing.read_rule({**rule, "threshold": max(rule["threshold"], _LOWEST)})
    changed.cleans_single_slices = choice.min_component is not None
    return changed


def describe(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The rule of an answer, and whether it is the model's own."""
    rule = facts["rule"]
    return {
        "threshold": rule["threshold"],
        "min_component": rule["min_component"],
        "min_share": rule.get("min_share", 0.0),
        "of_the_model": not remarks(facts),
    }


def remarks(facts: Mapping[str, Any]) -> list[str]:
    """What the readers of an answer must know of its rule: which values are not the model's."""
    return list(facts.get(_REMARKS, ()))
