"""The tree as a whole: what importing costs, who may import whom, and that the documents tell the truth about it."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

import studio

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "studio"
README = (ROOT / "README.md").read_text("utf-8")
TOP_LEVEL = {"app.py", "requirements.txt", "studio", "assets", "tests", "README.md", "pyproject.toml", "LICENSE"}

# The rooms that each room may import: imports run downward only. Nothing at run time imports `training`.
ROOMS = {
    "imaging": set(),
    "prompts": set(),
    "engine": {"imaging", "prompts"},
    "diffusion": {"imaging", "prompts"},
    "models": {"diffusion", "engine", "imaging", "prompts"},
    "library": {"engine", "imaging", "models"},
    "lab": {"diffusion", "imaging"},
    "services": {"diffusion", "engine", "imaging", "lab", "library", "models", "prompts"},
    "api": {"engine", "imaging", "library", "models", "prompts", "services"},
    "ui": {"engine", "imaging", "library", "models", "prompts", "services"},
    "training": {"diffusion", "imaging", "prompts"},
}
# What a module in no room may import: the command line and the server put the rooms together.
ABOVE = {
    "__init__": set(),
    "__main__": {"cli"},
    "cli": {"engine", "library", "models", "server", "services"},
    "server": {"api", "services", "ui"},
}
ALL_FRAMEWORKS = {"torch", "diffusers", "transformers", "accelerate", "gradio"}
# The frameworks that a room may use; any other library is free to all.
FRAMEWORKS = {
    "imaging": set(),
    "prompts": set(),
    "engine": set(),
    "diffusion": {"torch", "diffusers", "transformers"},
    "models": {"torch", "diffusers", "transformers", "accelerate"},
    "library": set(),
    "lab": {"torch"},
    "services": set(),
    "api": {"gradio"},
    "ui": {"gradio"},
    "training": {"torch", "diffusers", "transformers", "accelerate"},
}
# The only module of `prompts` that the engine may know: the others belong to the bundled model.
ENGINES_PROMPTS = {"studio.prompts.captions"}

MAX_LINES = 350  # of a file
MAX_MODULES = 15  # of a folder


def modules(folder: Path) -> list[Path]:
    """The Python files of a folder and of the folders in it; a test that finds none fails."""
    found = sorted(folder.rglob("*.py"))
    assert found, f"{folder} holds no modules"
    return found


# ---- what importing costs ----

STAGES = """
import sys, json, pathlib, tempfile
heavy = ("torch", "diffusers", "transformers", "gradio", "numpy")
loaded = lambda: [name for name in heavy if name in sys.modules]
stages = []
import studio
stages.append(loaded())
from studio.cli import parse_arguments
parse_arguments([])
stages.append(loaded())
from studio.engine.engine import Engine
from studio.engine.requests import TextToImage
from studio.library.store import Library
from studio.models.cache import ModelCache
from studio.models.catalog import Catalog
from studio.models.resolver import ModelResolver
from studio.server import build_app
from studio.services.context import AppContext
with tempfile.TemporaryDirectory() as folder:
    library = Library(pathlib.Path(folder))
    resolver = ModelResolver(Catalog(pathlib.Path("assets/model")))
    models = ModelCache(resolver.catalog.get().id, None, size=None, budget=None)
    engine = Engine(models, library.journal, resolve=resolver.resolve)
    build_app(AppContext(engine, library, resolver))
    engine.resolve(TextToImage("a red apple", count=4))
    library.close()
stages.append([name for name in loaded() if name not in ("gradio", "numpy")])
studio.StudioUNet
import diffusers
stages.append(diffusers.StudioTextToImagePipeline.__module__)
print(json.dumps(stages))
"""


def test_heavy_libraries_are_loaded_when_they_are_needed():
    done = subprocess.run([sys.executable, "-c", STAGES], cwd=ROOT, capture_output=True, text=True, check=True)
    package, command_line, page, registered = json.loads(done.stdout.splitlines()[-1])
    assert package == [] and command_line == []  # importing the package, reading options
    assert page == []  # building the page and checking a request load no torch
    assert registered == "studio.diffusion.pipelines.text_to_image"  # a lazy name registers with diffusers


@pytest.mark.parametrize("name", studio.__all__)
def test_lazy_names_are_classes_of_the_package(name):
    value = getattr(studio, name)
    assert isinstance(value, type) and value.__name__ == name and value.__module__.startswith("studio.")


def test_other_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        studio.Nothing  # noqa: B018


# ---- the walls ----


def imports(path: Path) -> set[str]:
    """The dotted names of all that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def crossings(paths: Iterable[Path], room: str, allowed: set[str]) -> list[str]:
    """The imports of modules that lead into a room that is not allowed, as sentences."""
    found = []
    for path in paths:
        for name in imports(path):
            parts = name.split(".")
            if parts[0] == "studio" and (len(parts) == 1 or parts[1] not in {room, *allowed}):
                found.append(f"{path.relative_to(ROOT)} imports {name}")
    return found


def test_every_room_has_its_walls():
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == ROOMS.keys() == FRAMEWORKS.keys()
    assert {path.stem for path in PACKAGE.glob("*.py")} == ABOVE.keys()


@pytest.mark.parametrize("room", ROOMS)
def test_imports_run_downward(room):
    assert crossings(modules(PACKAGE / room), room, ROOMS[room]) == []


@pytest.mark.parametrize("name", ABOVE)
def test_modules_above_the_rooms_import_what_they_put_together(name):
    assert crossings([PACKAGE / f"{name}.py"], name, ABOVE[name]) == []


def test_imports_run_one_way():
    """No room can be reached from itself."""
    for room in ROOMS:
        reached, todo = set(), list(ROOMS[room])
        while todo:
            below = todo.pop()
            if below not in reached:
                reached.add(below)
                todo += ROOMS[below]
        assert room not in reached


@pytest.mark.parametrize("room", ROOMS)
def test_frameworks_stay_in_their_rooms(room):
    for path in modules(PACKAGE / room):
        used = {name.split(".")[0] for name in imports(path)} & ALL_FRAMEWORKS
        assert used <= FRAMEWORKS[room], path.relative_to(ROOT)


def test_the_engine_knows_nothing_of_the_bundled_models_words():
    used = {name for path in modules(PACKAGE / "engine") for name in imports(path) if name.startswith("studio.prompts")}
    assert {name.rpartition(".")[0] for name in used} <= ENGINES_PROMPTS


# ---- sizes ----


def test_files_and_folders_stay_small():
    files = [path for path in PACKAGE.rglob("*") if path.suffix in (".py", ".js", ".css", ".html")]
    assert len(files) > 100
    long = {str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines()) for path in files}
    assert {path: lines for path, lines in long.items() if lines > MAX_LINES} == {}
    counts: dict[str, int] = {}
    for path in modules(PACKAGE):
        if path.name != "__init__.py":
            counts[str(path.parent.relative_to(ROOT))] = counts.get(str(path.parent.relative_to(ROOT)), 0) + 1
    assert {folder: count for folder, count in counts.items() if count > MAX_MODULES} == {}


# ---- what the documents say ----


def test_top_level_is_as_agreed():
    beside = {"models", "outputs", "__pycache__", "node_modules", "build", "diffusion_studio.egg-info"}  # left by use
    assert {path.name for path in ROOT.iterdir() if not path.name.startswith(".")} - beside == TOP_LEVEL


def pins(path: Path) -> dict[str, str]:
    lines = (line.partition("#")[0].strip() for line in path.read_text("utf-8").splitlines())
    return dict(line.split("==") for line in lines if line)


def test_every_requirement_is_pinned_once():
    run, test = pins(ROOT / "requirements.txt"), pins(ROOT / "tests" / "requirements.txt")
    assert len(run) > 5 and len(test) > 3 and not run.keys() & test.keys()


def test_space_front_matter_matches_the_requirements():
    text = (ROOT / "assets" / "space" / "README.md").read_text("utf-8")
    front = dict(re.findall(r"^(\w+): (.+)$", text.split("---")[1], re.MULTILINE))
    assert front["sdk"] == "gradio" and front["sdk_version"] == pins(ROOT / "requirements.txt")["gradio"]
    assert front["python_version"].strip('"') == "3.11"
    assert (ROOT / front["app_file"]).is_file()
    assert len(front["short_description"]) <= 60


def readme_tree() -> dict[str, str]:
    """Path -> phrase, from the tree under "Where things are": two spaces a level, folders end with a slash."""
    block = re.search(r"## Where things are\n+```\n(.*?)```", README, re.DOTALL)
    assert block, "the README has no tree"
    folders, tree = [], {}
    for line in block[1].splitlines():
        name, phrase = re.fullmatch(r" *(\S+) *(.*)", line).groups()
        depth = (len(line) - len(line.lstrip())) // 2
        folders[depth:] = [name]
        tree["".join(folders)] = phrase
    return tree


def test_readme_names_every_room_and_nothing_else():
    tree = readme_tree()
    assert [path for path in tree if not (ROOT / path).exists()] == []
    assert [path for path, phrase in tree.items() if not phrase] == []
    assert {path.split("/")[1] for path in tree if path.startswith("studio/") and path != "studio/"} == ROOMS.keys()
    assert max(path.rstrip("/").count("/") for path in tree) == 1  # two levels


@pytest.mark.parametrize("name", ["README.md", ".github/CONTRIBUTING.md", "tests/benchmarks/README.md"])
def test_links_within_the_project_lead_somewhere(name):
    page = ROOT / name
    targets = re.findall(r"\]\((?!https?://|#|mailto:)([^)#\s]+)", page.read_text("utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []
