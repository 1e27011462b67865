"""Tables of a solver fitted to a network: times and coefficients for one number of calls and one guidance scale.

The Generalized Solver (arXiv 2510.17699) is a linear multistep method whose history reaches back to the first call. Its
evaluation-time shifts need no numbers of their own: the coefficients are free, so a sample need not have the noise
level of the time that the network is called with. Two things are added here. Coarse structure has coefficients of its
own, since it settles long before fine detail. And each call has its own guidance factor, since a long step keeps the
direction of its start.

Tables are stored in a scheduler's config; `studio.training.solver` fits them.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

COLUMNS, SQUARES = ("timesteps", "a", "coarse_a", "guidance"), ("b", "coarse_b")  # fields of a table, by their shape
MAX_SCALE_RATIO = math.sqrt(2)  # between a guidance scale and that of a table that serves it, either way


@dataclass(frozen=True)
class SolverTable:
    """A run of N calls.

    x_{i+1} = a_i x_i + sum_j b_ij x0_{i-j} + smooth_3x3(coarse_a_i x_i + sum_j coarse_b_ij x0_{i-j}), as in
    `studio.diffusion.schedulers.sampling_plan.SamplingPlan`; the last x is the picture.

    Raises:
        ValueError: lengths differ, a number is not finite, or a guidance is not above 0.
    """

    guidance_scale: float  # that the table is fitted for
    timesteps: tuple[float, ...]  # (N,) real train steps, decreasing
    a: tuple[float, ...]  # (N,)
    b: tuple[tuple[float, ...], ...]  # (N, N), zeros where there is no history yet
    coarse_a: tuple[float, ...]  # (N,)
    coarse_b: tuple[tuple[float, ...], ...]  # (N, N)
    guidance: tuple[float, ...]  # (N,) above 0: the scale s of a call becomes 1 + factor (s - 1)

    def __post_init__(self) -> None:
        count = len(self.timesteps)
        columns, squares = (self.a, self.coarse_a, self.guidance), (self.b, self.coarse_b)
        square = all([len(row) for row in rows] == [count] * count for rows in squares)
        if not count or not square or any(len(column) != count for column in columns):
            raise ValueError(
                f"a solver table of {count} timesteps must have as many a, coarse_a and guidance, and rows of b and "
                "coarse_b of that length"
            )
        numbers = [*self.timesteps, *(n for column in columns for n in column)]
        numbers += [n for rows in squares for row in rows for n in row]
        if not all(map(math.isfinite, (self.guidance_scale, *numbers))):
            raise ValueError("the numbers of a solver table must be finite")
        if min(self.guidance) <= 0:
            raise ValueError(f"guidance of a solver table is {self.guidance}; it must be above 0")
        if self.guidance_scale <= 0:
            raise ValueError(f"guidance_scale of a solver table is {self.guidance_scale}; it must be above 0")

    def __len__(self) -> int:
        return len(self.timesteps)


@dataclass(frozen=True)
class SolverTables:
    """All tables fitted to one network."""

    model: str  # its `fingerprint`
    tables: tuple[SolverTable, ...]

    @classmethod
    def from_config(cls, config: Mapping[str, Any] | None) -> SolverTables:
        """Return the tables that `to_config` wrote; none for None. Raises ValueError for anything else."""
        if config is None:
            return cls("", ())
        try:
            return cls(str(config["model"]), tuple(map(_from_numbers, config["tables"])))
        except (KeyError, TypeError) as problem:
            raise ValueError(f"solver_tables is not what the fitting wrote: {problem!r}") from problem

    def to_config(self) -> dict[str, Any]:
        """Return plain numbers, without the zeros where there is no history yet."""
        tables = [
            asdict(table) | {name: [row[: i + 1] for i, row in enumerate(getattr(table, name))] for name in SQUARES}
            for table in self.tables
        ]
        return {"model": self.model, "tables": [_lists(table) for table in tables]}

    def find(self, num_inference_steps: int, guidance_scale: float) -> SolverTable | None:
        """Return the table of so many calls whose guidance scale is nearest in ratio; None if it is not near enough."""
        if guidance_scale <= 0:
            return None
        nearest, least = None, math.inf
        for table in self.tables:
            distance = abs(math.log(guidance_scale / table.guidance_scale))
            if len(table.timesteps) == num_inference_steps and distance < least:
                nearest, least = table, distance
        return nearest if least <= math.log(MAX_SCALE_RATIO) + 1e-9 else None


def _from_numbers(numbers: Mapping[str, Any]) -> SolverTable:
    count = len(numbers["timesteps"])
    zeros = [0.0] * count
    defaults = {"coarse_a": zeros, "coarse_b": [zeros] * count, "guidance": [1.0] * count}  # absent in earlier tables
    numbers = defaults | dict(numbers)
    fields: dict[str, Any] = {name: tuple(map(float, numbers[name])) for name in COLUMNS}
    for name in SQUARES:
        fields[name] = tuple((*map(float, row), *[0.0] * (count - len(row))) for row in numbers[name])
    return SolverTable(float(numbers["guidance_scale"]), **fields)


def _lists(value: Any) -> Any:
    """Return tuples as lists, as in JSON, so that a config is the same before it is saved and after."""
    if isinstance(value, Mapping):
        return {key: _lists(part) for key, part in value.items()}
    return [_lists(part) for part in value] if isinstance(value, Sequence) else value


_fingerprints: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()


def fingerprint(network: nn.Module) -> str:
    """Return sixteen hexadecimal digits that identify a network's weights; computed once for each module.

    It is the hash of the weights rounded to float16 and then to bfloat16, so that it is the same for a file loaded as
    float32, float16 or bfloat16, compiled or not. It is empty where the weights are offloaded and cannot be read.
    """
    if network not in _fingerprints:
        digest = hashlib.sha256()
        for name, values in network.state_dict().items():
            if values.is_meta:
                return ""
            digest.update(name.removeprefix("_orig_mod.").encode())
            stored = values.detach().to("cpu", torch.float16)  # as in the file
            digest.update(stored.to(torch.bfloat16).contiguous().view(torch.int16).numpy())
        _fingerprints[network] = digest.hexdigest()[:16]
    return _fingerprints[network]
