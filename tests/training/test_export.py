from __future__ import annotations

import copy

import pytest
import torch

from studio.diffusion.unet import StudioUNet
from studio.training.export import average_weights, save_model
from tests.diffusion.conftest import random_pipeline


@pytest.fixture
def saved(tmp_path):
    """A pipeline with one-pass guidance, and the folder that its weights are saved in."""
    pipe = random_pipeline()
    save_model(pipe, tmp_path)
    return pipe, tmp_path


def test_weights_are_averaged_with_those_of_a_folder(saved):
    pipe, folder = saved
    before = copy.deepcopy(pipe.unet.float().state_dict())  # as rounded in the folder
    with torch.no_grad():
        for parameter in pipe.unet.parameters():
            parameter.add_(1.0)
    average_weights(pipe, folder)
    for name, value in pipe.unet.state_dict().items():
        torch.testing.assert_close(value, before[name] + 0.5)


def test_one_pass_guidance_is_left_out_of_the_average(saved):
    guided, folder = saved
    pipe = random_pipeline()
    pipe.unet = StudioUNet.from_config(pipe.unet.config, guidance_rank=0)
    before = copy.deepcopy(pipe.unet.state_dict())
    average_weights(pipe, folder)
    for name, value in pipe.unet.state_dict().items():
        torch.testing.assert_close(value, (before[name] + guided.unet.state_dict()[name].float()) / 2)


def test_weights_of_other_shapes_cannot_be_averaged(saved):
    pipe, folder = saved
    pipe.unet = StudioUNet.from_config(pipe.unet.config, guidance_rank=0, time_embedding_dim=48)
    with pytest.raises(ValueError, match="other shapes than the run's"):
        average_weights(pipe, folder)
