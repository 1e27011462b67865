import math

import pytest
import torch
from PIL import Image

from studio.training.evaluation.report import (
    contact_sheet,
    format_figure,
    markdown_table,
    mean,
    set_figure,
    share,
    side_by_side,
)


def test_intervals():
    figure = share(torch.tensor([True] * 50 + [False] * 50))
    assert (figure["value"], figure["count"]) == (0.5, 100)
    assert (figure["low"], figure["high"]) == pytest.approx((0.4038, 0.5962), abs=1e-4)  # Wilson 1927
    always = share(torch.ones(20, dtype=torch.bool))
    assert always["high"] == 1 and 0.83 < always["low"] < 0.85
    average = mean(torch.tensor([1.0, 2.0, 3.0]), "dB")
    assert average["value"] == 2 and average["high"] - 2 == pytest.approx(1.96 / math.sqrt(3), abs=1e-3)
    assert format_figure(figure) == "50.0 % (40.4 to 59.6)"


def test_a_figure_of_a_set_has_no_interval():
    assert format_figure(set_figure(1.23456, 20)) == "1.235"


def test_two_models_stand_side_by_side_and_real_pictures_once():
    one, two = {"value": 0.5, "count": 4, "unit": ""}, {"value": 0.25, "count": 4, "unit": ""}
    both = side_by_side(
        {"task": {"real scenes": {"row": one}, "x2": {"row": one}}},
        {"task": {"real scenes": {"row": one}, "x2": {"row": two}}},
    )
    assert both == {"task": {"real scenes": {"row": one}, "x2": {"row": one}, "x2, before": {"row": two}}}
    head = "| | real scenes (n = 4) | x2 (n = 4) | x2, before (n = 4) |"
    assert markdown_table(both["task"]).splitlines()[0::2] == [head, "| row | 0.500 | 0.500 | 0.250 |"]


def test_a_contact_sheet_shows_every_picture():
    pictures = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]
    sheet = contact_sheet(pictures, ["a", "b", "c"], 2)
    assert sheet.width == 256
    pixels = [sheet.getpixel(place) for place in ((60, 60), (190, 60), (60, 220))]
    assert pixels == [picture.getpixel((0, 0)) for picture in pictures]
