"""The evaluation: its measures on known values, and the whole program on perfect, wrong and random pictures."""

import json
import sys
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
from PIL import Image

from studio.diffusion.pipelines.base import tensor_to_image
from studio.training.data.scenes import SceneMaker
from studio.training.data.sprites import STYLES
from studio.training.evaluation import evaluate as program
from studio.training.evaluation.classifier import LabelledPictures
from studio.training.evaluation.compositions import (
    KINDS,
    PAIR,
    THREE,
    TWO,
    Composition,
    compose_scene,
    composition_prompt,
    draw_compositions,
)
from studio.training.evaluation.evaluate import Evaluators, Pipelines, evaluate, model_digest
from studio.training.evaluation.report import markdown_report
from studio.training.evaluation.several_objects import COMPOSITION_SEED, TOGETHER
from studio.training.evaluation.single_objects import (
    AUGMENTED,
    BY_BORDER,
    BY_CLASSIFIER,
    FRECHET,
    GENERATED,
    HELD_OUT,
    PICTURES,
    REAL,
    TOP1,
)
from tests.diffusion.conftest import random_pipeline

SHEETS = {"concepts", "held-out", "compositions", "other-tasks"}


@dataclass
class FakeRow:
    """A picture that is finished after one step."""

    content: tuple[int, int, str] | Composition
    finished: bool = False


class PerfectPipeline:
    """Text to image that shows what the prompt asks for; if `wrong`, the next concept, and one object of several."""

    def __init__(self, sprites, wrong: bool = False) -> None:
        self.sprites, self.wrong = sprites, wrong
        self.compositions = {}
        for seed, count in ((0, 6), (2, 12)):
            for composition in draw_compositions(sprites, range(len(sprites.concepts)), count, COMPOSITION_SEED + seed):
                self.compositions[composition_prompt(composition, sprites)] = composition
        self.maker = SceneMaker(sprites, seed=32)
        self.pictures = LabelledPictures(sprites, seed=31)
        self.vocabulary = {"concepts": [{"name": name} for name in sprites.concepts]}
        self.seeds: list[int] = []

    def prepare(self, prompts, seeds):
        self.seeds += seeds
        return [FakeRow(self.compositions.get(prompt) or self.parse(prompt)) for prompt in prompts]

    def parse(self, prompt: str) -> tuple[int, int, str]:
        subject, style, background = prompt.split(", ")
        concept = self.sprites.concepts.index(subject.split(" ", 1)[1])  # without its article
        return (
            (concept + self.wrong) % len(self.sprites.concepts),
            STYLES.index(style.removesuffix(" style")),
            background.removeprefix("on a ").removesuffix(" background"),
        )

    def denoise_step(self, rows):
        for row in rows:
            row.finished = True

    def decode(self, row):
        if isinstance(row.content, Composition):
            scene = compose_scene(row.content, self.maker)
            if self.wrong:
                scene = replace(scene, objects=scene.objects[:1])
        else:
            scene = self.pictures.scenes.make_single(*row.content)
            scene = replace(scene, objects=tuple(replace(item, tint=None) for item in scene.objects))
        return tensor_to_image(self.pictures.renderer.render([scene], 64)[0])


def enlarge_bicubic(image, scale_factor, generator):
    size = image[0].width * scale_factor
    return SimpleNamespace(images=[picture.resize((size, size), Image.Resampling.BICUBIC) for picture in image])


def keep_gray(prompt, image, mask_image, generator, **options):
    return SimpleNamespace(images=image)


@pytest.fixture(scope="module")
def evaluators(sprites, classifier, detector) -> Evaluators:
    return Evaluators(classifier, detector, sprites)


def test_perfect_pictures_score_as_real_ones(sprites, evaluators, tmp_path):
    perfect = PerfectPipeline(sprites)
    report, sheets = evaluate(Pipelines(perfect, enlarge_bicubic, keep_gray), evaluators, sample=12, seed=2)
    columns = report["tasks"]["Text to image"]
    assert list(columns) == [AUGMENTED, REAL, GENERATED, HELD_OUT]
    assert columns[GENERATED][TOP1]["count"] == 12 * PICTURES
    for row in (TOP1, "style", BY_CLASSIFIER, BY_BORDER):
        assert columns[GENERATED][row]["value"] == pytest.approx(columns[REAL][row]["value"], abs=0.13)
    assert columns[GENERATED][TOP1]["value"] > 0.85
    assert len(set(perfect.seeds)) == len(perfect.seeds) == 14 * PICTURES + 3 * 12
    assert columns[GENERATED][FRECHET]["value"] < 3 * columns[REAL][FRECHET]["value"]
    for kind in KINDS:
        real, generated = report["tasks"][kind]["real scenes"], report["tasks"][kind]["generated"]
        for row, figure in real.items():
            assert generated[row]["value"] == pytest.approx(figure["value"], abs=0.42), (kind, row)  # of 6 and of 12
    together = report["tasks"][TOGETHER]
    assert together["generated"][FRECHET]["value"] < 3 * together["real scenes"][FRECHET]["value"]
    assert report["tasks"]["Inpainting"]["scenes of held-out pairs"]["PSNR in the hole, difference"]["value"] < 0

    page = markdown_report({"command": "python -m x", "model": "m", "classifier": "c", **report})
    assert "| concept, top-1 | " in page and "×4" in page
    json.dumps(report)
    assert set(sheets) == SHEETS
    for sheet in sheets.values():
        sheet.save(tmp_path / "sheet.png")
        assert min(sheet.size) > 128


def test_wrong_pictures_score_low(sprites, evaluators):
    pipelines = Pipelines(PerfectPipeline(sprites, wrong=True), enlarge_bicubic, keep_gray)
    report, _ = evaluate(pipelines, evaluators, sample=6)
    columns = report["tasks"]["Text to image"]
    assert columns[GENERATED][TOP1]["value"] < 0.15
    assert columns[GENERATED]["style"]["value"] > 0.5
    for kind, row in ((PAIR, "both present"), (TWO, "count right"), (THREE, "count right")):
        table = report["tasks"][kind]
        assert table["generated"][row]["value"] < 0.4 < table["real scenes"][row]["value"]
    together = report["tasks"][TOGETHER]
    assert together["generated"][FRECHET]["value"] > 1.5 * together["real scenes"][FRECHET]["value"]
    assert len(report["worst_concepts"]) == 6 and report["worst_concepts"][0]["top1"] == 0


def test_concepts_without_sprites_are_named(sprites, evaluators):
    pipe = PerfectPipeline(sprites)
    pipe.vocabulary["concepts"].append({"name": "castle"})
    with pytest.raises(ValueError, match="castle"):
        evaluate(Pipelines(pipe, enlarge_bicubic, keep_gray), evaluators)


def test_the_digest_of_a_model_is_of_its_weights(tmp_path):
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "a.safetensors").write_bytes(b"one")
    first = model_digest(tmp_path)
    (tmp_path / "README.md").write_text("words")
    assert model_digest(tmp_path) == first and len(first) == 16
    (tmp_path / "unet" / "a.safetensors").write_bytes(b"two")
    assert model_digest(tmp_path) != first


def test_the_program_writes_the_same_report_twice(sprites, tmp_path, monkeypatch, capsys):
    sprites.save(tmp_path / "sprites")
    random_pipeline().save_pretrained(tmp_path / "model")
    names = {"concepts": [{"name": name} for name in sprites.concepts[:3]]}
    (tmp_path / "model" / "vocabulary.json").write_text(json.dumps(names))
    folders = [f"--{name}={tmp_path / name}" for name in ("model", "sprites", "cache")]
    options = ["--sample=2", "--steps=2", "--guidance=1.5", "--sampler=ddim"]
    options += ["--classifier-views=1", "--detector-updates=1"]
    reports, folder = [], tmp_path / "cache" / "report"
    for before in ([], [f"--before={tmp_path / 'model'}"]):  # the second time with networks from the cache
        monkeypatch.setattr(sys, "argv", ["evaluate", *folders, *options, *before])
        program.main()
        reports.append(json.loads((folder / "report.json").read_text()))
    single, compared = reports
    assert single["options"] == {"num_inference_steps": 2, "guidance_scale": 1.5, "sampler": "ddim"}
    assert single["tasks"]["Text to image"][GENERATED]["style"]["count"] == 2 * PICTURES
    for task, columns in single["tasks"].items():
        for name, column in columns.items():
            assert compared["tasks"][task][name] == column
            if not name.startswith("real"):  # the same model before and after
                assert compared["tasks"][task][f"{name}, before"] == column
    output = capsys.readouterr().out
    assert single["command"] in output and f"model {model_digest(tmp_path / 'model')}" in output
    pictures = {f"{name}{suffix}.png" for name in SHEETS for suffix in ("", "-before")}
    assert {file.name for file in folder.iterdir()} == {"report.json", "report.md"} | pictures
