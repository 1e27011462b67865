"""One network call for many pictures: their inputs together, each picture's next phase, and then all advance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from studio.models.latent.phases import Outcome, Phase
from studio.models.latent.row import LatentRow

VAE_OVERFLOWED = "The VAE overflowed in half precision, so it computed again in float32."


@torch.no_grad()
def make_call(rows: Sequence[LatentRow]) -> None:
    """Make one network call with the next inputs of rows of one `call_key`. If it raises, no row has changed.

    Raises:
        ValueError: a row is finished.
        ArithmeticError: a picture cannot be decoded to numbers.
    """
    phases: list[Phase] = []
    states: list[torch.Tensor] = []
    for row in rows:
        if row.phase is None:
            raise ValueError("a row is finished: decode it")
        phases.append(row.phase)
        states.append(row.generator.get_state())
    try:
        outcomes, overflowed = _compute(phases, [row.generator for row in rows])
    except BaseException:
        for row, state in zip(rows, states, strict=True):
            row.generator.set_state(state)
        raise
    for row, outcome, has_overflowed in zip(rows, outcomes, overflowed, strict=True):
        row.commit(outcome)
        if has_overflowed and VAE_OVERFLOWED not in row.notes:
            row.notes += (VAE_OVERFLOWED,)


def _compute(phases: Sequence[Phase], generators: Sequence[torch.Generator]) -> tuple[list[Outcome], list[bool]]:
    """Return what the call makes of each phase, and whether its VAE call was repeated in float32."""
    inputs: list[Any] = []
    counts: list[int] = []
    for phase in phases:
        inputs += phase.inputs()
        counts.append(len(inputs) - sum(counts))
    networks, kind = phases[0].networks, phases[0].kind
    overflowed = [False] * len(inputs)
    if kind == "denoise":
        outputs = networks.predict(inputs)
    elif kind == "encode":
        outputs, overflowed = networks.encode(inputs)
    else:
        outputs, overflowed = networks.decode(inputs)
    outcomes: list[Outcome] = []
    flags: list[bool] = []
    begin = 0
    for phase, generator, count in zip(phases, generators, counts, strict=True):
        outcomes.append(phase.after(outputs[begin : begin + count].unbind(), generator))
        flags.append(any(overflowed[begin : begin + count]))
        begin += count
    return outcomes, flags
