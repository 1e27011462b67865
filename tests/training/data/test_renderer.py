from dataclasses import replace

import pytest
import torch

from studio.training.data.renderer import Crop, SceneRenderer
from studio.training.data.scenes import BACKGROUND_COLORS, RELATIONS, Scene, SceneObject
from studio.training.data.sprites import Sprites


@pytest.fixture(scope="module")
def renderer(sprites) -> SceneRenderer:
    return SceneRenderer(sprites)


def rendered_centre(renderer: SceneRenderer, scene: Scene, item: SceneObject) -> tuple[float, float]:
    """Return the centre of mass (x, y) of the pixels that an object changes, as shares of the side."""
    bare = renderer.render([replace(scene, objects=())], 48)
    with_object = renderer.render([replace(scene, objects=(item,))], 48)
    mass = (with_object - bare).abs().sum(1)[0]
    steps = (torch.arange(48) + 0.5) / 48
    return ((mass.sum(0) * steps).sum() / mass.sum()).item(), ((mass.sum(1) * steps).sum() / mass.sum()).item()


@pytest.mark.parametrize("relation", RELATIONS)
def test_objects_stand_in_their_relation(renderer, scenes, relation):
    chosen = [scene for scene in scenes if scene.relation == relation][:12]
    assert len(chosen) == 12
    for scene in chosen:
        (x0, y0), (x1, y1) = (rendered_centre(renderer, scene, item) for item in scene.objects)
        gap = {"left of": x1 - x0, "right of": x0 - x1, "above": y1 - y0, "below": y0 - y1}
        assert gap.get(relation, max(abs(x1 - x0), abs(y1 - y0))) > 0.2


def test_a_plain_background_has_its_colour(renderer):
    for name, colour in BACKGROUND_COLORS.items():
        picture = renderer.render([Scene((), name)], 8)
        expected = torch.tensor(colour)[:, None, None] * 2 - 1
        assert torch.allclose(picture[0], expected.expand(3, 8, 8), atol=1e-6)


def test_patterns_have_both_colours(renderer):
    black, white = -0.88, 1.0
    for pattern in ("gradient", "striped", "dotted"):
        scene = Scene((), "black", second_background="white", pattern=pattern, phase=0.3)
        picture = renderer.render([scene], 64)[0, 0]
        assert picture.min() < black + 0.05 and picture.max() > white - 0.05, pattern
        assert 0.1 < ((picture - black) / (white - black)).mean() < 0.9


def test_an_empty_scene_can_be_rendered_beside_a_full_one(renderer):
    full = Scene((SceneObject(0, 0.5, 0.5, 0.8),), "white")
    both = renderer.render([Scene((), "white"), full], 32)
    assert torch.equal(both[1:], renderer.render([full], 32))
    assert (both[0] == 1).all()


def test_a_crop_is_the_part_of_a_larger_rendering(renderer, scenes):
    chosen = scenes[:24]
    whole = renderer.render(chosen, 128)
    part = renderer.render(chosen, 64, [Crop(0.25, 0.5, 0.5)] * len(chosen))
    assert any(item.tint for scene in chosen for item in scene.objects)
    assert torch.allclose(part, whole[:, :, 64:, 32:96], atol=1e-3)


def test_a_small_rendering_is_a_large_one_shrunk(renderer, scenes):
    chosen = [scene for scene in scenes if scene.pattern == "plain"][:24]
    shrunk = torch.nn.functional.avg_pool2d(renderer.render(chosen, 128), 4)
    assert (renderer.render(chosen, 32) - shrunk).abs().mean() < 0.03


def test_a_tint_changes_the_colour_and_keeps_the_outline(renderer, sprites):
    coral = SceneObject(sprites.concepts.index("coral disc"), 0.5, 0.5, 0.9)
    before = renderer.render([Scene((coral,), "white")], 64)
    names, colours = list(BACKGROUND_COLORS), torch.tensor(list(BACKGROUND_COLORS.values()))
    for name in ("red", "green", "blue", "yellow"):
        after = renderer.render([Scene((replace(coral, tint=name),), "white")], 64)
        middle = (after[0, :, 32, 32] + 1) / 2
        assert names[int((colours - middle).norm(dim=1).argmin())] == name
        assert torch.equal((before == 1).all(1), (after == 1).all(1))  # the background is unchanged


def test_premultiplied_edges_leave_no_fringe(sprites):
    """A white sprite on a white background is invisible at any size."""
    white = sprites.rgba[:1].clone()
    white[:, :3] = white[:, 3:]
    single = Sprites(white, *(part[:1] for part in (sprites.concept, sprites.style, sprites.held_out)), (), (), ())
    scene = Scene((SceneObject(0, 0.47, 0.53, 0.71),), "white")
    for size in (16, 32, 64, 200):
        assert SceneRenderer(single).render([scene], size).min() > 0.99
