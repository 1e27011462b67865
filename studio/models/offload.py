"""Keep components in the CPU's memory, and on the device only while they compute."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from accelerate import hooks  # pyright: ignore[reportMissingTypeStubs]

_hooks: Any = hooks


class _OneAtATime(hooks.ModelHook):
    """Moves its module to the device before a call, and the other modules to the CPU."""

    def __init__(self, modules: Sequence[Any], device: str) -> None:
        self.modules, self.device = modules, torch.device(device)

    def pre_forward(self, module: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        for other in self.modules:
            if other is not module:
                other.to("cpu")
        module.to(self.device)
        return _hooks.send_to_device(args, self.device), _hooks.send_to_device(kwargs, self.device)


def offload(modules: Sequence[Any], device: str) -> None:
    """Let each module be on the device only from its own call to the next call of another one.

    diffusers' VAE runs the hook for `encode` and `decode` too.
    """
    for module in modules:
        _hooks.add_hook_to_module(module.to("cpu"), _OneAtATime(modules, device))
