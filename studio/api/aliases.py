"""Earlier names of parameters, which work for one more release."""

from __future__ import annotations

from typing import TypeVar

ValueT = TypeVar("ValueT")


def current_value(name: str, value: ValueT, default: ValueT, old_name: str, old_value: ValueT | None) -> ValueT:
    """Return the value of a parameter that may be given by its current or its earlier name.

    default: the parameter's default, which stands for "not given".  old_value: None if not given.
    Raises ValueError if both names are given with different values.
    """
    if old_value is None or old_value == value:
        return value
    if value != default:
        raise ValueError(
            f"{old_name} is the earlier name of {name}, and the two differ: {old_value!r} and {value!r}. "
            f"Give {name} alone."
        )
    return old_value
