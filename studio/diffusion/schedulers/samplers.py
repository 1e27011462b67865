"""The samplers to choose from: StudioScheduler and six of diffusers, each with the settings that our schedule needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    UniPCMultistepScheduler,
)

from studio.diffusion.schedulers.studio_scheduler import StudioScheduler

# Any scheduler of diffusers, or StudioScheduler: diffusers declares no type for what its schedulers have in common.
AnyScheduler: TypeAlias = Any


@dataclass(frozen=True)
class Sampler:
    """A choice of sampler: its label, its class, and the values that it changes in a model's config."""

    label: str
    scheduler_class: AnyScheduler
    overrides: Mapping[str, Any] = field(default_factory=dict)


# Trailing spacing begins at the last train step, which is pure noise: sigma / alpha of the cosine schedule is 20,000.
# Values that only some classes have are listed too, so that none comes from another class's config or defaults.
TRAILING_SPACING = {"timestep_spacing": "trailing"}
SOLVER_CONFIG = {"lower_order_final": True, "final_sigmas_type": "zero"}
SAMPLERS: dict[str, Sampler] = {
    "studio": Sampler("Studio", StudioScheduler, TRAILING_SPACING | SOLVER_CONFIG),
    "ddim": Sampler("DDIM", DDIMScheduler, TRAILING_SPACING | {"clip_sample": False, "set_alpha_to_one": True}),
    "ddpm": Sampler("DDPM", DDPMScheduler, TRAILING_SPACING | {"clip_sample": False, "variance_type": "fixed_small"}),
    "dpm++2m": Sampler(
        "DPM++ 2M",
        DPMSolverMultistepScheduler,
        TRAILING_SPACING
        | SOLVER_CONFIG
        | {"solver_order": 2, "algorithm_type": "dpmsolver++", "solver_type": "midpoint"},
    ),
    "unipc": Sampler(
        "UniPC", UniPCMultistepScheduler, TRAILING_SPACING | SOLVER_CONFIG | {"solver_order": 2, "solver_type": "bh2"}
    ),
    "euler": Sampler("Euler", EulerDiscreteScheduler, TRAILING_SPACING | {"final_sigmas_type": "zero"}),
    "heun": Sampler("Heun", HeunDiscreteScheduler, {"timestep_spacing": "leading", "clip_sample": False}),
}


def timestep_arguments(scheduler: AnyScheduler, num_inference_steps: int) -> dict[str, Any]:
    """Return the arguments for `set_timesteps`.

    Heun steps in sigma / alpha, which falls from 20,000 to 30 within 20 train steps of the cosine schedule, and its
    trapezoid rule needs short steps there. So its times are spaced quadratically, and begin just before pure noise.
    """
    if not isinstance(scheduler, HeunDiscreteScheduler):
        return {"num_inference_steps": num_inference_steps}
    train_steps = scheduler.config["num_train_timesteps"]
    last = round(train_steps / num_inference_steps) - 1  # as in trailing spacing
    shares = [(i + 0.75) / (num_inference_steps - 0.25) for i in range(num_inference_steps)]
    times = [round(last + (train_steps - 1 - last) * (1 - share**2)) for share in shares]
    return {"timesteps": [min(time, train_steps - 1 - i) for i, time in enumerate(times)]}  # none twice


def make_sampler(name: str, config: Mapping[str, Any]) -> AnyScheduler:
    """Return the scheduler of a key of SAMPLERS, for a model whose scheduler has this config.

    Every value of config counts, even a default of its scheduler: `from_config` alone would replace those by the new
    class's defaults.

    Raises:
        ValueError: the name is unknown.
    """
    if name not in SAMPLERS:
        raise ValueError(f"sampler is {name!r}; it must be one of {', '.join(SAMPLERS)}")
    sampler = SAMPLERS[name]
    explicit = {key: value for key, value in config.items() if not key.startswith("_")}
    if sampler.scheduler_class is not StudioScheduler:
        explicit.pop("solver_tables", None)  # the other classes warn of it
    scheduler: AnyScheduler = sampler.scheduler_class.from_config({**explicit, **sampler.overrides})
    scheduler.register_to_config(_use_default_values=[])  # nor may the next class drop any
    return scheduler
