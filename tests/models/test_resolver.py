"""Latent models of a catalog: what they can do, and how their requests are checked and resolved."""

from __future__ import annotations

from dataclasses import replace

import pytest
from PIL import Image

from studio.engine.requests import Inpaint, InvalidRequest, SuperResolve, TextToImage
from studio.models.catalog import Catalog, ModelEntry
from studio.models.families.stable_diffusion import read_capabilities
from studio.models.identify import Identity, default_settings
from studio.models.resolver import ModelResolver
from tests.fakes import MODEL

RED, MASK = Image.new("RGB", (300, 200), "red"), Image.new("L", (300, 200), 255)


def entry(model_id: str = "sd", *, defaults=(), parameters: int = 1_066_000_000, **identity) -> ModelEntry:
    """A latent model that only the catalog knows."""
    kind = Identity(**{"family": "stable-diffusion", "version": "SD 1.x"} | identity)
    return ModelEntry(
        id=model_id,
        name=model_id.upper(),
        path=MODEL / "nowhere",
        layout="folder",
        bytes=4,
        parameters=parameters,
        dtype="F32",
        identity=kind,
        overrides={},
        defaults={**default_settings(kind), **dict(defaults)},
        trigger_words="",
        problems=(),
    )


class OtherModels(Catalog):
    """The bundled model, then these."""

    def __init__(self, *others: ModelEntry):
        self.others = others
        super().__init__(MODEL)

    @property
    def entries(self):
        return (*super().entries, *self.others)

    def get(self, model_id: str = "") -> ModelEntry:
        return next((other for other in self.others if other.id == model_id), None) or super().get(model_id)

    def sha256(self, entry: ModelEntry) -> str | None:
        return "0123456789abcdef" * 4


SD = read_capabilities(entry())
ASK = {"sampler": "ddim", "steps": 10, "guidance": 7.0}


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"width": 513}, "The width must be a multiple of 8 from 64 to 2048; it was 513."),
        ({"height": 4096}, "The height must be a multiple of 8 from 64 to 2048; it was 4096."),
        ({"resolution": 128}, "The output size must be empty for SD; it was 128."),
        ({"spacing": "karras"}, 'The spacing must be one of leading, trailing, linspace; it was "karras".'),
        ({"sampler": "plms"}, 'The sampler must be one of studio, ddim, .*; it was "plms".'),
        ({"clip_skip": 12}, "The clip skip must be a whole number from 0 to 11; it was 12."),
        ({"refiner": "sd"}, 'The refiner must be empty for SD; it was "sd".'),
        ({"style": "noto"}, 'The style must be one of any; it was "noto".'),
    ],
)
def test_what_a_latent_model_cannot_do_is_refused(wrong, says):
    with pytest.raises(InvalidRequest, match=says):
        SD.resolve(TextToImage("a cat", **ASK | wrong))


def test_kinds_have_their_own_tasks_and_samplers():
    inpainting, lcm = read_capabilities(entry(variant="inpainting")), read_capabilities(entry(variant="lcm"))
    upscaler = read_capabilities(entry(family="upscaler-x4"))
    assert inpainting.tasks == ("inpaint",) and upscaler.tasks == ("super-resolution",)
    assert read_capabilities(entry(family="sdxl-refiner")).tasks == ()
    assert (
        tuple(lcm.samplers) == ("lcm",) and "studio" not in read_capabilities(entry(prediction_type="sample")).samplers
    )
    assert upscaler.scales == (4,) and upscaler.noise_level.high == 350
    for model in (SD, lcm, inpainting, upscaler):  # each model can run its own settings
        for task, settings in model.defaults.items():
            pictures = {"inpaint": (RED, MASK), "super-resolution": (RED,), "text-to-image": ()}[task]
            kind = {"inpaint": Inpaint, "super-resolution": SuperResolve, "text-to-image": TextToImage}[task]
            words = () if kind is SuperResolve else ("a cat",)
            model.check(kind(*words, *pictures, **settings))
    with pytest.raises(InvalidRequest, match="The scale must be 4 for SD; it was 2."):
        upscaler.check(SuperResolve(RED, 2, sampler="ddim"))
    with pytest.raises(InvalidRequest, match="The larger pictures may have 16 megapixels together; SD would paint"):
        upscaler.check(SuperResolve(Image.new("RGB", (1200, 1000)), target=(1300, 1100), sampler="ddim"))


def test_settings_that_a_person_set_count_where_the_model_has_them():
    model = read_capabilities(entry(defaults={"sampler": "euler", "spacing": "karras", "width": 768, "steps": 0}))
    settings = model.defaults["text-to-image"]
    assert (settings["sampler"], settings["spacing"], settings["width"], settings["height"]) == (
        "euler", "karras", 768, 512,
    )  # fmt: skip
    assert model.size.default == (768, 512) and "width" not in model.defaults["inpaint"] and "steps" not in settings


def test_sizes_of_results():
    assert (SD.resolve(TextToImage("a", **ASK)).width, SD.resolve(TextToImage("a", **ASK)).height) == (512, 512)
    varied = SD.resolve(TextToImage("a", image=Image.new("RGB", (517, 300)), **ASK))
    assert (varied.width, varied.height) == (520, 304)
    assert SD.size.fit((4000, 1000)) == (2048, 512) and SD.size.fit((10, 20)) == (64, 128)
    wide = SD.resolve(TextToImage("a", width=768, count=2, **ASK))
    assert (wide.width, wide.height, wide.pixels) == (768, 512, 2 * 768 * 512)


def test_rows_and_seconds_of_latent_models():
    def rows(request) -> int:
        return SD.resolve(request).rows

    assert rows(TextToImage("a", **ASK)) == 10 * 2 and rows(TextToImage("a", **ASK | {"guidance": 1.0})) == 10
    assert rows(TextToImage("a", **ASK | {"sampler": "heun"})) == 10 * 2 * 2
    assert rows(TextToImage("a", image=RED, strength=0.3, **ASK)) == 3 * 2
    assert rows(Inpaint("a", RED, MASK, **ASK)) == 10 * 2
    reads = read_capabilities(entry(variant="lcm", embeds_guidance=True))
    assert reads.resolve(TextToImage("a", sampler="lcm", guidance=8.0)).passes == 1
    picture = SD.resolve(TextToImage("a", **ASK))
    assert picture.seconds == pytest.approx(20 * 8 + 16)  # as measured on two cores, and decoding
    assert SD.resolve(TextToImage("a", width=1024, **ASK)).seconds == pytest.approx(2 * picture.seconds)
    small = read_capabilities(entry(parameters=10_660_000))
    assert small.resolve(TextToImage("a", **ASK)).seconds == pytest.approx(picture.seconds / 10)
    xl = read_capabilities(entry(family="sdxl", sample_size=(1024, 1024), parameters=3_469_000_000))
    assert 0.9 < xl.seconds_per_row / (8 * 2990 / 401) < 1.1  # billions of multiplications of the two networks


def test_requests_are_resolved_by_the_model_that_they_name():
    xl = entry("xl", family="sdxl", version="SDXL", sample_size=(1024, 1024))
    refiner, broken = entry("refiner", family="sdxl-refiner"), replace(entry("broken"), problems=("It is cut short.",))
    models = ModelResolver(OtherModels(xl, refiner, broken))
    bundled = models.resolve(TextToImage("a cat"))
    assert bundled.model_id == bundled.request.model_id == bundled.settings["model_id"] == "model"
    assert (bundled.model_ids, bundled.model_name, bundled.model_hash) == (("model",), "Studio Emoji", "0123456789")
    both = models.resolve(TextToImage("a cat", model_id="xl", refiner="refiner", **ASK))
    assert both.model_ids == ("xl", "refiner") and (both.width, both.height) == (1024, 1024)
    with pytest.raises(InvalidRequest, match="The model must be one of model; it was .gone"):
        models.resolve(TextToImage("a cat", model_id="gone"))
    with pytest.raises(InvalidRequest, match="The model broken cannot be used: It is cut short."):
        models.resolve(TextToImage("a cat", model_id="broken", **ASK))
    with pytest.raises(InvalidRequest, match='The refiner must be refiner or empty for XL; it was "xl".'):
        models.resolve(TextToImage("a cat", model_id="xl", refiner="xl", **ASK))
    assert models.capabilities_of("xl") is models.capabilities_of("xl")
