"""What a run leaves, made into a model folder."""

from __future__ import annotations

import copy

import pytest
import torch

from studio.diffusion.unet import StudioUNet
from studio.training.export import halfway, save
from tests.diffusion.conftest import random_pipeline


def test_halfway_is_the_mean_with_the_weights_of_before(tmp_path):
    pipe = random_pipeline()
    save(pipe, tmp_path)
    before = copy.deepcopy(pipe.unet.float().state_dict())  # as the folder has them
    with torch.no_grad():
        for parameter in pipe.unet.parameters():
            parameter.add_(1.0)
    halfway(pipe, tmp_path)
    for name, value in pipe.unet.state_dict().items():
        torch.testing.assert_close(value, before[name] + 0.5)


def test_a_mean_with_weights_that_were_taught_guidance_leaves_that_out(tmp_path):
    taught = random_pipeline()
    save(taught, tmp_path)
    pipe = random_pipeline()
    pipe.unet = StudioUNet.from_config(pipe.unet.config, guidance_rank=0)
    begun = copy.deepcopy(pipe.unet.state_dict())
    halfway(pipe, tmp_path)
    for name, value in pipe.unet.state_dict().items():
        torch.testing.assert_close(value, (begun[name] + taught.unet.state_dict()[name].float()) / 2)


def test_there_is_no_mean_with_another_network(tmp_path):
    pipe = random_pipeline()
    save(pipe, tmp_path)
    pipe.unet = StudioUNet.from_config(pipe.unet.config, guidance_rank=0, time_embedding_dim=48)
    with pytest.raises(ValueError, match="has other weights than the run's"):
        halfway(pipe, tmp_path)
