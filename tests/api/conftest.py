"""Fixtures that the page tests share."""

from tests.ui.conftest import studio_url  # noqa: F401
