"""Fixtures that the page tests share."""

from tests.ui.conftest import studio_folder, studio_url  # noqa: F401
