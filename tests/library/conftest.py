from __future__ import annotations

from pathlib import Path

import pytest

from studio.library.store import Library


@pytest.fixture
def open_library():
    """Open libraries that are closed at the end of the test."""
    libraries = []

    def open_library(folder: Path, **options) -> Library:
        libraries.append(Library(folder, **options))
        return libraries[-1]

    yield open_library
    for library in libraries:
        library.close()


@pytest.fixture
def library(open_library, tmp_path) -> Library:
    return open_library(tmp_path / "data")


@pytest.fixture
def reopen(open_library):
    """Close a library and open its folder again."""

    def reopen(library: Library) -> Library:
        library.close()
        return open_library(library.folder)

    return reopen
