"""Time of whole pictures, of single network calls, and of a plain diffusers loop with the same arithmetic.

    python -m tests.benchmarks.paint [--model assets/model] [--repeats 15]

Run it on an otherwise idle machine. Ratios are between measurements next to each other in time, in one run.
"""

from __future__ import annotations

import argparse
import inspect
import math
import statistics
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import DPMSolverMultistepScheduler, UNet2DConditionModel
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from studio.diffusion.pipelines import StudioTextToImagePipeline
from studio.diffusion.pipelines.base import tensor_to_image
from studio.diffusion.schedulers.samplers import make_sampler
from tests.benchmarks.machine import heading, seconds, spread, table, times

PROMPT = "a red apple, glossy style, on a blue background"
GIGA = 1e9
TOLERANCE = 0.03  # of the other network's operations, from ours


def operations(network: torch.nn.Module, *inputs: object) -> int:
    """Count the operations of one call (a multiply-add is two): matrix products, attention and convolutions."""
    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # which torch itself does not count
    counted = {fused: lambda query, key, value, *_, **__: sdpa_flop_count(query, key, value)}
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=counted) as counter:
        network(*inputs)
    return counter.get_total_flops()


def network_inputs(pipe: StudioTextToImagePipeline, rows: int, size: int) -> tuple:
    """Return what `denoise_step` gives the network for `rows` network rows of `size` px."""
    channels = pipe.unet.config.in_channels
    text, mask = pipe.encode([PROMPT] * rows)
    zeros = torch.zeros(rows, dtype=torch.long)
    return torch.randn(rows, channels, size, size), torch.full((rows,), 500.0), text, mask, zeros, zeros.float()


def matmul_peak(repeats: int) -> float:
    """Return the operations per second of the machine's fastest float32 matrix product."""
    best = 0.0
    for side in (512, 1024, 2048):
        left, right, out = torch.randn(side, side), torch.randn(side, side), torch.empty(side, side)
        taken = times(lambda a=left, b=right, c=out: torch.mm(a, b, out=c), repeats)
        best = max(best, 2 * side**3 / min(taken))
    return best


def time_pictures(pipe: StudioTextToImagePipeline, repeats: int) -> str:
    """Return a table of times from text to PIL pictures, with the pipeline's default settings."""
    rows = []
    for count in (1, 4, 9):
        generators = [torch.Generator().manual_seed(seed) for seed in range(count)]
        taken = times(lambda n=count, g=generators: pipe(PROMPT, num_images_per_prompt=n, generator=g), repeats)
        rows.append((count, spread(taken), f"{statistics.median(taken) / count:.2f}"))
    head = (f"pictures of {pipe.default_size} px at once", "s, median (min to max)", "s per picture")
    return table(head, rows)


@torch.no_grad()
def time_network_calls(pipe: StudioTextToImagePipeline, repeats: int) -> str:
    """Return a table of single calls, with their operations and their speed relative to the fastest matrix product."""
    peak = matmul_peak(repeats)
    measured = []
    for size in dict.fromkeys((pipe.sample_size, pipe.window_size)):
        for count in (1, 2, 8):
            inputs = network_inputs(pipe, count, size)
            work = operations(pipe.unet, *inputs)
            measured.append((size, count, work, times(lambda given=inputs: pipe.unet(*given), repeats)))
    peak = max(peak, matmul_peak(repeats))
    rows = []
    for size, count, work, taken in measured:
        speed = work / statistics.median(taken)
        figures = f"{work / GIGA:.2f}", spread(taken, 1e-3, 1), f"{speed / GIGA:.0f}", f"{speed / peak:.0%}"
        rows.append((f"{count} x {size} px", *figures))
    head = ("rows in the call", "GFLOP", "ms, median (min to max)", "GFLOP/s", "of the fastest product")
    return f"Fastest float32 matrix product: {peak / GIGA:.0f} GFLOP/s.\n\n{table(head, rows)}"


def stock_network(widths: tuple[int, ...], size: int, text_dim: int, attending: int) -> UNet2DConditionModel:
    """Return diffusers' U-Net in pixel space, with self- and cross-attention in the last `attending` levels."""
    plain = len(widths) - attending
    return UNet2DConditionModel(
        sample_size=size,
        in_channels=3,
        out_channels=3,
        block_out_channels=widths,
        layers_per_block=1,
        down_block_types=("DownBlock2D",) * plain + ("CrossAttnDownBlock2D",) * attending,
        up_block_types=("CrossAttnUpBlock2D",) * attending + ("UpBlock2D",) * plain,
        norm_num_groups=4,
        cross_attention_dim=text_dim,
    )


def match_operations(target: int, size: int, text: torch.Tensor, attending: int) -> tuple[tuple[int, ...], int]:
    """Return widths with which diffusers' U-Net needs nearly `target` operations a row, and their number.

    The widths double from level to level, the last one up to twice more. Raise ValueError if none come within 3 %.
    """
    found = []
    with torch.device("meta"):  # counted, not computed
        inputs = torch.empty(1, 3, size, size), torch.empty(1), torch.empty(1, *text.shape[1:])
        for width in range(8, 129, 4):
            for last in range(8 * math.ceil(width / 2), 8 * width + 1, 8):  # attention has eight heads
                widths = (width, 2 * width, 4 * width, last)
                work = operations(stock_network(widths, size, text.shape[-1], attending), *inputs)
                found.append((abs(work / target - 1), widths, work))
                if work > target:
                    break
            if work > target and last == 8 * math.ceil(width / 2):
                break
    off, widths, work = min(found)
    if off > TOLERANCE:
        raise ValueError(
            f"no widths come within {TOLERANCE:.0%} of {target / GIGA:.2f} GFLOP; the nearest are {widths}"
        )
    return widths, work


def stock_loop(
    pipe: StudioTextToImagePipeline, network: UNet2DConditionModel, steps: int, guidance: float
) -> Callable[[], Image.Image]:
    """Return the loop of diffusers' documentation: text to a PIL picture, with guidance at every step."""
    scheduler = make_sampler("dpm++2m", pipe.scheduler.config)
    assert isinstance(scheduler, DPMSolverMultistepScheduler)
    size = network.config.sample_size

    @torch.no_grad()
    def generate() -> Image.Image:
        text, _ = pipe.encode(["", PROMPT])
        scheduler.set_timesteps(steps)
        sample = torch.randn(1, 3, size, size) * scheduler.init_noise_sigma
        for time in scheduler.timesteps:
            both = scheduler.scale_model_input(torch.cat([sample] * 2), time)
            unconditional, conditional = network(both, time, encoder_hidden_states=text).sample.chunk(2)
            prediction = unconditional + guidance * (conditional - unconditional)
            sample = scheduler.step(prediction, time, sample).prev_sample
        return tensor_to_image(sample[0])

    return generate


def compare_with_stock(pipe: StudioTextToImagePipeline, repeats: int) -> str:
    """Return a table of the plain loop's time over ours, measured in turn, at `sample_size` and `default_size`.

    At `sample_size` both make the same number of network calls with the same number of operations. The plain loop
    generates a larger picture at its full size, by a network with our operations there; ours enlarges a small one.
    """
    defaults = inspect.signature(pipe.__call__).parameters
    steps, guidance = (defaults[name].default for name in ("num_inference_steps", "guidance_scale"))
    attending = sum(pipe.unet.config.attention_levels)
    rows = []
    for size in dict.fromkeys((pipe.sample_size, pipe.default_size)):
        x, time, text, *rest = network_inputs(pipe, 1, size)
        ours_work = operations(pipe.unet, x, time, text, *rest)
        widths, work = match_operations(ours_work, size, text, attending)
        stock = stock_loop(pipe, stock_network(widths, size, text.shape[-1], attending).eval(), steps, guidance)

        def ours(size: int = size) -> None:
            pipe(PROMPT, size=size)

        times(ours, 1)
        times(stock, 1)
        taken = [(seconds(ours), seconds(stock)) for _ in range(repeats)]
        mine, theirs = zip(*taken, strict=True)
        ratio = spread([stock_time / our_time for our_time, stock_time in taken])
        work_text = f"{ours_work / GIGA:.2f} / {work / GIGA:.2f}"
        rows.append((f"{size} px", work_text, str(widths), spread(mine), spread(theirs), ratio))
    text = (
        f"`UNet2DConditionModel` and {steps} steps of `DPMSolverMultistepScheduler`, guidance {guidance:g} at every "
        "step, compared with this pipeline's defaults; the same prompt and text encoder, in turn. Medians (min to "
        "max).\n\n"
    )
    head = ("picture", "GFLOP a row, ours / plain", "widths of plain", "ours, s", "plain, s", "plain / ours")
    return text + table(head, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("assets/model"), help="folder of the pipeline")
    parser.add_argument("--repeats", type=int, default=15, help="of each measurement")
    parser.add_argument("--threads", type=int, help="threads of torch; default: its own choice")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    print(heading())
    pipe = StudioTextToImagePipeline.from_pretrained(args.model)
    pipe.set_progress_bar_config(disable=True)
    print(f"{torch.get_num_threads()} threads, float32, warm, {args.repeats} times each.\n")
    print(f"### Pictures\n\n{time_pictures(pipe, args.repeats)}")
    print(f"### Network calls\n\n{time_network_calls(pipe, args.repeats)}")
    print(f"### Compared with a plain loop\n\n{compare_with_stock(pipe, args.repeats)}")


if __name__ == "__main__":
    main()
