"""The controls of a form that follow the chosen model: shown where the model has the field, with its choices."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Literal

import gradio as gr

from studio.engine.requests import Request
from studio.models.capabilities import Capabilities
from studio.services.build_request import as_int
from studio.ui.components.parts import Control
from studio.ui.events import Updates

Values = Mapping[str, Any]
# The properties of a control for a model, given the form's values; None where the model does not have the field.
Properties = Callable[[Capabilities, Values], Mapping[str, Any] | None]


@dataclass(frozen=True)
class ModelForm:
    """The controls of a form by the fields of its request, in an order in which later ones may depend on earlier ones.

    capabilities: of the model for which the page is built.  kind: the request of the form.
    own_defaults: first values where neither the model nor the request has one.
    """

    capabilities: Capabilities
    kind: type[Request]
    own_defaults: Callable[[Capabilities], Mapping[str, Any]] = lambda capabilities: {}
    controls: dict[str, Control] = field(default_factory=dict[str, Control])
    _properties: dict[str, Properties] = field(default_factory=dict[str, Properties])
    _rows: dict[gr.Row | gr.Radio, tuple[str, ...]] = field(default_factory=dict[gr.Row | gr.Radio, tuple[str, ...]])

    def add(self, name: str, kind: type[Any], properties: Properties, **fixed: Any) -> None:
        """Create the control of a field. fixed: properties that hold for every model."""
        values = self.defaults(self.capabilities)
        own = properties(self.capabilities, values)
        if own is None and kind in (gr.Radio, gr.Dropdown):  # Gradio warns of a value that is no choice
            fixed["choices"] = [str(values[name])]
        self._properties[name] = properties
        self.controls[name] = kind(value=values[name], visible=shown_if(own is not None), **fixed, **(own or {}))

    def add_row(self, row: gr.Row | gr.Radio, *names: str) -> None:
        """Hide a row, or a choice that sets fields, where none of its fields is shown. Call it after `add`."""
        self._rows[row] = names

    @property
    def outputs(self) -> list[Any]:
        """What `follow` may change."""
        return [*self.controls.values(), *self._rows]

    def defaults(self, capabilities: Capabilities) -> dict[str, Any]:
        """Return the first values of all fields for a model."""
        values: dict[str, Any] = {
            item.name: None if item.default is MISSING else item.default for item in fields(self.kind) if item.init
        }
        own = {**self.own_defaults(capabilities), **capabilities.defaults.get(self.kind.task, {})}
        return values | {"prompt": ""} | own

    def visible(self, capabilities: Capabilities, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values of the fields that the model has."""
        return {
            name: value
            for name, value in values.items()
            if name not in self._properties or self._properties[name](capabilities, values) is not None
        }

    def follow(
        self, capabilities: Capabilities, before: Capabilities, values: Values, names: Collection[str] = ()
    ) -> tuple[Updates, list[str]]:
        """Return the updates that show the fields of a model, and a sentence for each value that had to change.

        before: the model that the form shows.  values: of the controls.  names: the fields to look at; none: all, and
        the rows. A value that equals the default of the model
        before becomes that of the new model; other values stay, unless they are no choices of the new model. A field
        that the new model does not have keeps its value out of sight.
        """
        updates: Updates = {}
        notes: list[str] = []
        old, new, result = self.defaults(before), self.defaults(capabilities), dict(values)
        shown: set[str] = set()
        for name, properties in self._properties.items():
            if names and name not in names:
                continue
            control = self.controls[name]
            if as_int(values[name]) == old[name]:  # also out of sight, so that it is the default when it is seen again
                result[name] = new[name]
            own = properties(capabilities, result)
            if own is None:
                updates[control] = gr.update(visible=shown_if(False), **_changed(result, values, name))
                continue
            shown.add(name)
            if "choices" in own and result[name] not in (keys := [key for _, key in own["choices"]]):
                result[name] = new[name] if new[name] in keys else keys[0]
                if name in self.visible(before, values):
                    label = str(own.get("label") or control.label)
                    notes.append(f"{capabilities.name} does not have the {label.lower()} that was chosen.")
            updates[control] = gr.update(visible=True, **own, **_changed(result, values, name))
        for row, in_row in () if names else self._rows.items():
            updates[row] = gr.update(visible=shown_if(any(name in shown for name in in_row)))
        return updates, notes

    def reset(self, capabilities: Capabilities) -> Updates:
        """Return the updates that set the model's own settings: those that it has defaults for."""
        names = capabilities.defaults.get(self.kind.task, {})
        return {self.controls[name]: value for name, value in names.items() if name in self.controls}

    def differs(self, capabilities: Capabilities, values: Mapping[str, Any]) -> bool:
        """Return whether a value is another than the model's own setting."""
        own = capabilities.defaults.get(self.kind.task, {})
        return any(as_int(values[name]) != value for name, value in own.items() if name in values)


def shown_if(is_shown: bool) -> bool | Literal["hidden"]:
    """Return the `visible` property of a part: what is hidden stays on the page.

    A part that is not on the page reports its old values for a moment when it comes back.
    """
    return is_shown or "hidden"


def _changed(result: Values, values: Values, name: str) -> dict[str, Any]:
    """Return the property that sets a control to its new value; nothing if it has that value."""
    return {} if result[name] == as_int(values[name]) else {"value": result[name]}
