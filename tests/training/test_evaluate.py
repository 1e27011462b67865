import json
import math
import sys
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from studio.diffusion.pipelines.base import tensor_to_image
from studio.training.data.scenes import GROUNDS, Painter, SceneMaker
from studio.training.data.sprites import STYLES
from studio.training.evaluation import evaluate as program
from studio.training.evaluation.classifier import LabelledPictures, Labels, Verdict
from studio.training.evaluation.compositions import KINDS, PAIR, THREE, TWO, Question, compose, questions, words
from studio.training.evaluation.evaluate import (
    COMPOSED_SEED,
    FRECHET,
    PICTURES,
    border_ground,
    concept_labels,
    each,
    evaluate,
    held_out_pairs,
    model_digest,
    pair_labels,
    scores,
    spread,
    worst_concepts,
)
from studio.training.evaluation.report import beside, captioned_sheet, in_words, markdown, mean, of_a_set, share, table
from studio.training.evaluation.restoring import (
    evaluate_super_resolution,
    feature_distance,
    holes,
    psnr,
    scenes_to_restore,
    telea,
    tensor,
)
from tests.diffusion.conftest import random_pipeline


@dataclass
class Painted:
    """A row that is finished after one step."""

    labels: tuple[int, int, int] | Question
    finished: bool = False


class PerfectPainter:
    """Text to image that paints what it is asked for; if `wrong`, the next concept, and one thing of several."""

    def __init__(self, sprites, wrong: bool = False) -> None:
        self.sprites, self.wrong = sprites, wrong
        everything = range(len(sprites.concepts))
        asked = [q for seed in (0, 2) for n in (6, 12) for q in questions(sprites, everything, n, COMPOSED_SEED + seed)]
        self.composed = {words(question, sprites): question for question in asked}
        self.maker = SceneMaker(sprites, seed=32)
        self.pictures = LabelledPictures(sprites, seed=31)
        self.vocabulary = {"concepts": [{"name": name} for name in sprites.concepts]}
        self.seeds: list[int] = []

    def prepare(self, prompts, seeds):
        self.seeds += seeds
        rows = []
        for prompt in prompts:
            if prompt in self.composed:
                rows.append(Painted(self.composed[prompt]))
                continue
            subject, style, background = prompt.split(", ")
            concept = self.sprites.concepts.index(subject.split(" ", 1)[1])  # without its article
            concept = (concept + self.wrong) % len(self.sprites.concepts)
            names = list(GROUNDS)
            background = names.index(background.removeprefix("on a ").removesuffix(" background"))
            rows.append(Painted((concept, STYLES.index(style.removesuffix(" style")), background)))
        return rows

    def denoise_step(self, rows):
        for row in rows:
            row.finished = True

    def decode(self, row):
        if isinstance(row.labels, Question):
            scene = compose(row.labels, self.maker)
            scene = replace(scene, things=scene.things[:1]) if self.wrong else scene
            return tensor_to_image(Painter(self.sprites)([scene], 64)[0])
        labels = Labels(*(torch.tensor([value]) for value in row.labels))
        return tensor_to_image(self.pictures.paint(labels)[0])


def bicubic(image, scale_factor, generator):
    size = image[0].width * scale_factor
    return SimpleNamespace(images=[picture.resize((size, size), Image.Resampling.BICUBIC) for picture in image])


def gray(prompt, image, mask_image, generator, **options):
    return SimpleNamespace(images=image)


def test_every_concept_is_asked_for_in_every_style_that_training_saw(sprites):
    labels = concept_labels(sprites, range(12))
    assert (labels.concept.bincount() == PICTURES).all()
    asked = set(zip(labels.concept.tolist(), labels.style.tolist(), strict=True))
    assert not asked & set(held_out_pairs(sprites))
    assert len(asked) == len(sprites) - int(sprites.held_out.sum())
    assert set(labels.background.tolist()) == set(range(len(GROUNDS)))
    for style in range(len(STYLES)):  # no style has grounds of its own
        assert len(labels.background[labels.style == style].unique()) >= 8


def test_held_out_pairs_are_asked_for_by_name(sprites):
    pairs = held_out_pairs(sprites)
    words = each(pair_labels(pairs), sprites)
    assert {(concept, style) for concept, style, _ in words} == {("brown square", "flat"), ("coral disc", "noto")}
    assert len(words) == len(set(words)) == 2 * PICTURES


def test_border_tells_the_ground(sprites):
    pictures = LabelledPictures(sprites, seed=2)
    _, labels = pictures(100)
    assert (border_ground(pictures.paint(labels)) == labels.background).float().mean() > 0.97


def test_scores_of_a_known_verdict():
    sure = torch.eye(10)[[0, 1, 2, 3]] * 5 + torch.linspace(1, 0, 10)  # right; then 0 to 3 and 4, 5 follow
    labels = Labels(torch.tensor([0, 1, 9, 0]), torch.tensor([0, 1, 2, 3]), torch.tensor([0, 0, 0, 0]))
    verdict = Verdict(sure, torch.eye(4)[[0, 1, 0, 0]], torch.eye(10)[[0, 0, 0, 1]], torch.zeros(4, 1))
    white = torch.ones(4, 3, 8, 8)
    found = {name: figure["value"] for name, figure in scores(white, labels, verdict).items()}
    assert found == {
        "concept, top-1": 0.5,
        "concept, top-5": 0.75,
        "style": 0.5,
        "ground, by the judge": 0.75,
        "ground, by its border": 1.0,
    }


def test_the_worst_concepts_come_first_with_what_they_were_taken_for(sprites):
    labels = Labels(*torch.tensor([(0, 0, 0), (1, 0, 0), (1, 0, 0), (2, 0, 0)]).T)
    verdict = Verdict(torch.eye(12)[[0, 5, 5, 4]] * 9, torch.eye(4)[[0] * 4], torch.eye(10)[[0] * 4], torch.zeros(4, 1))
    worst = worst_concepts(labels, verdict, sprites, count=2)
    assert {entry["concept"] for entry in worst} == set(sprites.concepts[1:3])
    assert {entry["taken_for"] for entry in worst} == {sprites.concepts[5], sprites.concepts[4]}


def test_psnr_of_known_errors():
    truth = torch.zeros(2, 3, 8, 8)
    off = truth + 0.2  # a tenth of the range
    assert torch.allclose(psnr(off, truth), torch.tensor([20.0, 20.0]))
    assert psnr(truth, truth)[0].item() == pytest.approx(58.9, abs=0.03)
    off[:, :, :4] = 0
    half = torch.zeros(2, 1, 8, 8)
    half[:, :, 4:] = 1
    assert torch.allclose(psnr(off, truth, half), torch.tensor(20.0))
    assert torch.allclose(psnr(off, truth), torch.tensor(20 + 10 * math.log10(2)))


def test_intervals():
    figure = share(torch.tensor([True] * 50 + [False] * 50))
    assert (figure["value"], figure["count"]) == (0.5, 100)
    assert (figure["low"], figure["high"]) == pytest.approx((0.4038, 0.5962), abs=1e-4)  # Wilson 1927
    sure = share(torch.ones(20, dtype=torch.bool))
    assert sure["high"] == 1 and 0.83 < sure["low"] < 0.85
    middle = mean(torch.tensor([1.0, 2.0, 3.0]), "dB")
    assert middle["value"] == 2 and middle["high"] - 2 == pytest.approx(1.96 / math.sqrt(3), abs=1e-3)
    assert in_words(figure) == "50.0 % (40.4 to 59.6)"


def test_a_figure_of_a_set_has_no_interval():
    assert in_words(of_a_set(1.23456, 20)) == "1.235"


def test_two_models_stand_beside_each_other_and_real_pictures_once():
    one, two = {"value": 0.5, "count": 4, "unit": ""}, {"value": 0.25, "count": 4, "unit": ""}
    both = beside(
        {"task": {"real scenes": {"row": one}, "x2": {"row": one}}},
        {"task": {"real scenes": {"row": one}, "x2": {"row": two}}},
    )
    assert both == {"task": {"real scenes": {"row": one}, "x2": {"row": one}, "x2, before": {"row": two}}}
    head = "| | real scenes (n = 4) | x2 (n = 4) | x2, before (n = 4) |"
    assert table(both["task"]).splitlines()[0::2] == [head, "| row | 0.500 | 0.500 | 0.250 |"]


def test_features_are_near_where_pictures_are_alike(sprites, trained):
    truth, _ = LabelledPictures(sprites, seed=8)(24)
    nearly = (truth + 0.02).clamp(-1, 1)
    assert (feature_distance(trained, truth, truth) < 1e-3).all()
    others = feature_distance(trained, truth.flip(0), truth).mean()
    assert feature_distance(trained, nearly, truth).mean() < 0.5 * others


def test_holes_are_over_things(sprites):
    scenes, truth = scenes_to_restore(sprites, 24, seed=0)
    held = set(held_out_pairs(sprites))
    for scene in scenes:
        pairs = {(int(sprites.concept[t.sprite]), int(sprites.style[t.sprite])) for t in scene.things}
        assert pairs <= held
    hole = holes(scenes, truth, sprites, seed=0)
    assert torch.equal(hole, holes(scenes, truth, sprites, seed=0))
    assert hole.mean((1, 2, 3)).min() >= 0.05 and hole.mean((1, 2, 3)).max() <= 0.5


def test_telea_fills_a_plain_ground(sprites):
    picture, mask = Image.new("RGB", (32, 32), (200, 40, 90)), Image.new("L", (32, 32))
    mask.paste(255, (10, 10, 20, 20))
    holed = picture.copy()
    holed.paste((0, 0, 0), (10, 10, 20, 20))
    assert (tensor([telea(holed, mask)]) - tensor([picture])).abs().max() < 0.02


def test_without_opencv_a_sentence_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(SystemExit, match="pip install opencv-python-headless"):
        telea(Image.new("RGB", (8, 8)), Image.new("L", (8, 8)))


def test_bicubic_is_not_ahead_of_itself(sprites):
    _, truth = scenes_to_restore(sprites, 6, seed=0)
    column, strip = evaluate_super_resolution(bicubic, truth, 2, seed=0)
    assert column["PSNR, difference"]["value"] == 0
    assert 15 < column["PSNR, ours"]["value"] < 45
    assert [len(part) for part in strip] == [6] * 4 and strip[0][0].size == (32, 32)


def test_spread_is_even():
    assert spread(range(10), None) == list(range(10))
    assert spread(range(10), 5) == [0, 2, 4, 6, 8]
    assert spread("ab", 5) == ["a", "b"]


def test_perfect_pictures_score_as_real_ones_and_wrong_ones_do_not(sprites, trained, detector, tmp_path):
    perfect = PerfectPainter(sprites)
    report, sheets = evaluate(perfect, bicubic, gray, trained, detector, sprites, sample=12, seed=2)
    columns = report["tasks"]["Text to image"]
    assert list(columns) == [
        "real sprites, augmented",
        "real sprites, as asked",
        "generated",
        "generated, held-out pairs",
    ]
    assert columns["generated"]["concept, top-1"]["count"] == 12 * PICTURES
    for row in ("concept, top-1", "style", "ground, by the judge", "ground, by its border"):
        assert columns["generated"][row]["value"] == pytest.approx(
            columns["real sprites, as asked"][row]["value"], abs=0.13
        )
    assert columns["generated"]["concept, top-1"]["value"] > 0.85
    assert len(set(perfect.seeds)) == len(perfect.seeds) == 14 * PICTURES + 3 * 12
    assert columns["generated"][FRECHET]["value"] < 3 * columns["real sprites, as asked"][FRECHET]["value"]
    for kind in KINDS:
        real, generated = report["tasks"][kind]["real scenes"], report["tasks"][kind]["generated"]
        for row, figure in real.items():
            assert generated[row]["value"] == pytest.approx(figure["value"], abs=0.42), (kind, row)  # of 6 and of 12
    together = report["tasks"]["Several things, together"]
    assert together["generated"][FRECHET]["value"] < 3 * together["real scenes"][FRECHET]["value"]
    assert report["tasks"]["Inpainting"]["scenes of held-out pairs"]["PSNR in the hole, difference"]["value"] < 0

    page = markdown({"command": "python -m x", "model": "m", "classifier": "c", **report})
    assert "| concept, top-1 | " in page and "×4" in page
    json.dumps(report)
    assert set(sheets) == {"concepts", "held-out", "compositions", "other-tasks"}
    for sheet in sheets.values():
        sheet.save(tmp_path / "sheet.png")
        assert min(sheet.size) > 128

    wrong, _ = evaluate(PerfectPainter(sprites, wrong=True), bicubic, gray, trained, detector, sprites, sample=6)
    columns = wrong["tasks"]["Text to image"]
    assert columns["generated"]["concept, top-1"]["value"] < 0.15
    assert columns["generated"]["style"]["value"] > 0.5
    for kind, row in ((PAIR, "both present"), (TWO, "count right"), (THREE, "count right")):
        assert wrong["tasks"][kind]["generated"][row]["value"] < 0.4 < wrong["tasks"][kind]["real scenes"][row]["value"]
    together = wrong["tasks"]["Several things, together"]
    assert together["generated"][FRECHET]["value"] > 1.5 * together["real scenes"][FRECHET]["value"]
    assert len(wrong["worst_concepts"]) == 6 and wrong["worst_concepts"][0]["top1"] == 0


def test_claims_without_sprites_are_named(sprites, trained, detector):
    pipe = PerfectPainter(sprites)
    pipe.vocabulary["concepts"].append({"name": "castle"})
    with pytest.raises(ValueError, match="castle"):
        evaluate(pipe, bicubic, gray, trained, detector, sprites)


def test_a_model_has_a_digest_of_its_weights(tmp_path):
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "a.safetensors").write_bytes(b"one")
    first = model_digest(tmp_path)
    (tmp_path / "README.md").write_text("words")
    assert model_digest(tmp_path) == first and len(first) == 16
    (tmp_path / "unet" / "a.safetensors").write_bytes(b"two")
    assert model_digest(tmp_path) != first


def test_sheets_hold_every_picture():
    pictures = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]
    sheet = captioned_sheet(pictures, ["a", "b", "c"], 2)
    assert sheet.width == 256
    seen = [sheet.getpixel(place) for place in ((60, 60), (190, 60), (60, 220))]
    assert seen == [picture.getpixel((0, 0)) for picture in pictures]


def test_the_program_writes_the_same_report_twice(sprites, tmp_path, monkeypatch, capsys):
    sprites.save(tmp_path / "sprites")
    random_pipeline().save_pretrained(tmp_path / "model")
    names = {"concepts": [{"name": name} for name in sprites.concepts[:3]]}
    (tmp_path / "model" / "vocabulary.json").write_text(json.dumps(names))
    folders = [f"--{name}={tmp_path / name}" for name in ("model", "sprites", "cache")]
    options = ["--sample=2", "--steps=2", "--guidance=1.5", "--sampler=ddim", f"--before={tmp_path / 'model'}"]
    options += ["--classifier-views=1", "--detector-updates=1"]
    monkeypatch.setattr(sys, "argv", ["evaluate", *folders, *options])
    reports = []
    for _ in range(2):  # the second time with the judge from the cache
        program.main()
        reports.append(json.loads((tmp_path / "cache" / "report" / "report.json").read_text()))
    assert reports[0] == reports[1]
    assert reports[0]["options"] == {"num_inference_steps": 2, "guidance_scale": 1.5, "sampler": "ddim"}
    tasks = reports[0]["tasks"]
    assert tasks["Text to image"]["generated"]["style"]["count"] == 2 * PICTURES
    for columns in tasks.values():  # the same model before and after
        after = [name for name in columns if not name.startswith("real") and not name.endswith("before")]
        assert after and all(columns[name] == columns[f"{name}, before"] for name in after)
    said = capsys.readouterr().out
    assert reports[0]["command"] in said and f"model {model_digest(tmp_path / 'model')}" in said
    written = {file.name for file in (tmp_path / "cache" / "report").iterdir()}
    sheets = {"concepts", "held-out", "compositions", "other-tasks"}
    assert written == {"report.json", "report.md"} | {f"{name}{end}.png" for name in sheets for end in ("", "-before")}
