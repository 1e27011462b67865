"""The tree as a whole: what importing costs, who may import whom, and that the README tells the truth about it."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import studio

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text("utf-8")
TOP_LEVEL = {"app.py", "requirements.txt", "studio", "assets", "tests", "README.md", "pyproject.toml", "LICENSE"}

# Who must not import whom; a name covers everything beneath it. Imports run downward only.
WALLS = {
    "studio.imaging": {"studio.diffusion", "studio.engine", "studio.library", "studio.lab", "torch", "gradio"},
    "studio.diffusion": {"studio.engine", "studio.library", "studio.lab", "studio.training", "studio.ui", "gradio"},
    "studio.engine": {"studio.diffusion", "studio.library", "studio.lab", "studio.training", "studio.ui", "torch"}
    | {"diffusers", "gradio"},
    "studio.library": {"studio.lab", "studio.training", "studio.ui", "gradio"},
    "studio.lab": {"studio.engine", "studio.library", "studio.training", "studio.ui", "gradio"},
    "studio.training": {"studio.engine", "studio.library", "studio.ui", "gradio"},
    "studio.ui": {"studio.training", "torch"},
}


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout


def test_importing_the_package_loads_nothing_heavy():
    heavy = ("torch", "diffusers", "transformers", "gradio", "numpy")
    assert run_python(f"import studio, sys; print([name for name in {heavy} if name in sys.modules])").strip() == "[]"


@pytest.mark.parametrize("name", studio.__all__)
def test_lazy_names_are_classes_of_the_package(name):
    found = getattr(studio, name)
    assert isinstance(found, type) and found.__name__ == name and found.__module__.startswith("studio.")


def test_other_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        studio.Nothing  # noqa: B018


def test_lazy_names_register_with_diffusers():
    code = "import studio; studio.StudioUNet; import diffusers; print(diffusers.StudioTextToImagePipeline.__module__)"
    assert run_python(code).strip() == "studio.diffusion.pipelines.text_to_image"


def imported(path: Path) -> set[str]:
    """Every module that the file imports, anywhere in it, and the names it takes from them, dotted."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


@pytest.mark.parametrize("package", WALLS)
def test_imports_run_downward(package):
    for path in (ROOT / package.replace(".", "/")).rglob("*.py"):
        for name in imported(path):
            crossed = [wall for wall in WALLS[package] if name == wall or name.startswith(f"{wall}.")]
            assert not crossed, f"{path.relative_to(ROOT)} imports {name}"


def test_top_level_is_as_agreed():
    beside = {"outputs", "__pycache__"}  # left by use, not part of the project
    found = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")} - beside
    assert found == TOP_LEVEL


def pins(path: Path) -> dict[str, str]:
    lines = (line.partition("#")[0].strip() for line in path.read_text("utf-8").splitlines())
    return dict(line.split("==") for line in lines if line)


def test_every_requirement_is_pinned_once():
    run, test = pins(ROOT / "requirements.txt"), pins(ROOT / "tests" / "requirements.txt")
    assert not run.keys() & test.keys()


def test_space_front_matter_matches_the_requirements():
    front = dict(re.findall(r"^(\w+): (.+)$", README.split("---")[1], re.MULTILINE))
    assert front["sdk"] == "gradio" and front["sdk_version"] == pins(ROOT / "requirements.txt")["gradio"]
    assert front["python_version"].strip('"') == "3.11"
    assert (ROOT / front["app_file"]).is_file()
    assert len(front["short_description"]) <= 60


def readme_tree() -> dict[str, str]:
    """Path -> phrase, from the README's file tree: two spaces a level, folders end with a slash."""
    block = re.search(r"## Files\n+```\n(.*?)```", README, re.DOTALL).group(1)
    folders, tree = [], {}
    for line in block.splitlines():
        name, phrase = re.fullmatch(r" *(\S+) *(.*)", line).groups()
        depth = (len(line) - len(line.lstrip())) // 2
        folders[depth:] = [name]
        tree["".join(folders)] = phrase
    return tree


def test_readme_names_every_module_and_nothing_else():
    tree = readme_tree()
    assert [path for path in tree if not (ROOT / path).exists()] == []
    modules = [path for path in (ROOT / "studio").rglob("*.py") if path.name != "__init__.py"]
    assert [path for path in modules if path.relative_to(ROOT).as_posix() not in tree] == []
    assert [path for path, phrase in tree.items() if not phrase] == []
