"""What a search may change: parameters of params.yaml with ranges, read from a file of recipes/tune/."""

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError, model_validator

from brainseg import config
from brainseg.config import ParamsBlock
from brainseg.errors import DataError, Problem, raise_all
from brainseg.experiments import variants

DIGITS = 6  # of a number that is proposed: of long ones DVC writes another last digit into its lock
Choice = str | bool | int | float | None
# Trials are compared on one data set and split, by one measure, and none is trained on whom it is scored by.
UNCHANGEABLE = {"download", "phantom", "preprocess", "brains", "split", "evaluate", "render", "export"}
UNCHANGEABLE |= {"train.subset", "train.initial_weights", "train.soft_masks", "train.soft_weight", "train.seed"}


class Range(ParamsBlock):
    """From low to high; both whole numbers: only whole numbers between them. log: drawn by its logarithm."""

    low: int | float
    high: int | float
    log: bool = False
    step: int | float | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"low, {self.low:g}, must be below high, {self.high:g}")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("log needs a low above 0, and no step")
        if self.step is not None and self.step <= 0:
            raise ValueError("step must be above 0")
        return self

    @property
    def is_whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    def ends(self) -> tuple[Any, ...]:
        return self.low, self.high

    def holds(self, value: Any) -> bool:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        steps = (value - self.low) / self.step if is_number and self.step is not None else 0.0
        on_step = abs(steps - round(steps)) < 1e-9
        return is_number and self.low <= value <= self.high and on_step

    def shorten(self, value: float) -> float:
        """A proposed value as it is trained with: of ``DIGITS`` digits, within the range."""
        return value if self.is_whole else min(max(float(f"{value:.{DIGITS}g}"), self.low), self.high)

    def suggest(self, trial: Any, name: str) -> Any:
        if self.is_whole:
            return trial.suggest_int(name, self.low, self.high, log=self.log, step=int(self.step or 1))
        step = None if self.step is None else float(self.step)
        return trial.suggest_float(name, self.low, self.high, log=self.log, step=step)


class Choices(ParamsBlock):
    """One of several values."""

    choices: list[Choice] = Field(min_length=2)

    def ends(self) -> tuple[Any, ...]:
        return tuple(self.choices)

    def holds(self, value: Any) -> bool:
        return any(value == choice and type(value) is type(choice) for choice in self.choices)

    def shorten(self, value: Choice) -> Choice:
        return value

    def suggest(self, trial: Any, name: str) -> Any:
        return trial.suggest_categorical(name, self.choices)


class SearchSpace(ParamsBlock):
    """``parameters`` by their dotted names; ``fixed``: values of all trials, nested as in params.yaml."""

    parameters: dict[str, Range | Choices] = Field(min_length=1)
    fixed: dict[str, dict[str, Any]] = Field(default_factory=dict)

    def suggest(self, trial: Any) -> dict[str, dict[str, Any]]:
        """The values that Optuna proposes for a trial, nested, with the fixed ones."""
        asked = {name: each.suggest(trial, name) for name, each in self.parameters.items()}
        return config.merge(self.fixed, variants.nest(self.shorten(asked)))

    def shorten(self, proposed: Mapping[str, Any]) -> dict[str, Any]:
        """Proposed values by dotted name as they are trained with."""
        return {name: self.parameters[name].shorten(value) for name, value in proposed.items()}

    def find_default(self, params: Mapping[str, Any]) -> dict[str, Any] | None:
        """The values of params.yaml by dotted name; None where one lies outside of its range."""
        values = config.flatten(config.merge(config.list_defaults(*params), params))
        own = {name: values[name] for name in self.parameters}
        return own if all(self.parameters[name].holds(value) for name, value in own.items()) else None


def read(path: Path, root: Path = Path()) -> SearchSpace:
    """Read and check a search space.

    Raises:
        DataError: every fault at once: what is no parameter, with the nearest name; a value at an end of a range, or a
            choice, that params.yaml does not take; a parameter that no trial may change.
    """
    if not path.is_file():
        known = ", ".join(sorted(str(each) for each in Path("recipes/tune").glob("*.yaml"))) or "none"
        raise DataError(path, "there is no such search space", f"name a file; here are: {known}")
    try:
        space = SearchSpace.model_validate(config.read_yaml(path))
    except ValidationError as error:
        fix = "write parameters: {train.learning_rate: {low: 0.0005, high: 0.008, log: true}}"
        raise DataError(path, config.reason(error), fix) from None
    raise_all(list(_find_faults(path, space, config.read_yaml(root / "params.yaml"))))
    return space


def _find_faults(path: Path, space: SearchSpace, params: dict[str, Any]) -> Iterator[Problem]:
    known = set(config.list_names())
    for name in itertools.chain(space.parameters, config.flatten(space.fixed)):
        if name in UNCHANGEABLE or name.partition(".")[0] in UNCHANGEABLE:
            what = f"{name} may not be searched or fixed: it says on whom, or by what, trials are compared"
            yield Problem(str(path), what, "set it in params.yaml")
        elif name not in known:
            nearest = config.suggest_name(name)
            what = f"{name} is not a parameter" + (f" (did you mean {nearest}?)" if nearest else "")
            yield Problem(str(path), what, "params.yaml names all of them")
    unknown = set(space.parameters) - known
    for name, each in space.parameters.items():
        for value in () if unknown else each.ends():
            changed = config.merge(config.merge(params, space.fixed), variants.nest({name: value}))
            try:
                config.check(changed, path)
            except DataError as error:
                yield from error.problems
