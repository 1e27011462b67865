"""The engine's `Backend` over one loaded latent model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from studio.diffusion.sampling.steppers import Stepper
from studio.engine.requests import BaseRequest, Inpaint, Request, SuperResolve, TextToImage
from studio.engine.resolved import ResolvedRequest
from studio.engine.trace import TraceModel
from studio.models.latent.calls import make_call
from studio.models.latent.enlarging import plan_enlarging, plan_upscaling
from studio.models.latent.inpainting import plan_inpainting
from studio.models.latent.networks import Conditioning, Networks
from studio.models.latent.pictures import fit_picture, to_picture, to_tensor
from studio.models.latent.plan import DenoisingStage, Plan
from studio.models.latent.preview import fit_preview, read_examples
from studio.models.latent.row import LatentRow
from studio.models.latent.samplers import make_stepper
from studio.models.latent.starts import FromNoise, FromPicture, Start
from studio.models.latent.text import TextEncoders, embed_guidance
from studio.models.latent.tiles import Tiles
from studio.models.latent.work import Work
from studio.models.loader import LoadedModel

# Scores that the SDXL refiner is conditioned on, with the prompt and with the negative prompt, as in diffusers.
AESTHETIC_SCORE, NEGATIVE_AESTHETIC_SCORE = 6.0, 2.5
GPU_TILES_PER_CALL = 4  # of one picture; a CPU takes one, so that a call is short


class LatentBackend:
    """Runs the requests of one latent model.

    loaded: the model. find: gives the backend of another loaded model by its id, such as the refiner's.
    """

    def __init__(self, loaded: LoadedModel, find: Callable[[str], LatentBackend]) -> None:
        self.loaded, self._find = loaded, find
        self.networks = Networks(loaded)
        config, options = loaded.unet.config, loaded.extra
        self._is_xl = config.addition_embed_type == "text_time"
        self._zeros_for_empty = self._is_xl and options.get("force_zeros_for_empty_prompt", True)
        self._reads_aesthetics = bool(options.get("requires_aesthetics_score", False))
        self._guidance_width: int | None = config.time_cond_proj_dim
        self.text = TextEncoders(
            loaded.text_encoders, loaded.tokenizers, device=self.networks.device, is_xl=self._is_xl
        )
        scheduler_class: Any = loaded.scheduler_class
        self.scheduler = scheduler_class.from_config(dict(loaded.scheduler_config))
        examples = read_examples()
        self.networks.preview_matrix = fit_preview(self._encode(examples), examples).to(self.networks.device)
        self.trace_model = TraceModel(
            id=loaded.entry.id,
            space="latent",
            preview=self.networks.preview_matrix.cpu().numpy(),
            scheduler_config=dict(loaded.scheduler_config),
        )

    @property
    def device(self) -> str:
        """The networks' device: "cpu", "cuda:0" ..."""
        return str(self.networks.device)

    # ---- the engine's protocol ----

    def prepare(self, resolved: ResolvedRequest) -> list[LatentRow]:
        """Return one row per picture, in the order of `resolved.seeds`."""
        request = resolved.request
        if isinstance(request, TextToImage):
            plans = self._plan_text_to_image(request, resolved)
        else:
            plans = self._plan_work(request, resolved, self._find_work(request))
        rows: list[LatentRow] = []
        for plan, seed in zip(plans, resolved.seeds, strict=True):
            rows.append(LatentRow.begin(plan, seed))
        return rows

    def denoise_step(self, rows: Sequence[LatentRow]) -> None:
        """Make one network call for rows of one `call_key`: of a U-Net, or of a VAE."""
        make_call(rows)
        device = self.networks.device
        if device.type in ("cuda", "mps"):  # the engine measures the call's time, so wait until it is done
            torch.cuda.synchronize(device) if device.type == "cuda" else torch.mps.synchronize()

    def decode(self, row: LatentRow) -> Image.Image:
        """Return the picture of a finished row."""
        assert row.picture is not None, "the row is not finished"
        return row.plan.finish(to_picture(row.picture))

    def truncated(self, text: str) -> str:
        """Return the end of the text that the model does not read, "" if it reads all of it."""
        return self.text.truncated(text)

    def reduce_memory(self) -> str | None:
        """Choose the next setting that needs less memory, and return a sentence about it; None if there is none."""
        return self.loaded.reduce_memory()

    # ---- plans ----

    def _plan_text_to_image(self, request: TextToImage, resolved: ResolvedRequest) -> list[Plan]:
        """Return the plan of each picture: from noise, or from the request's picture; a refiner may take the end."""
        size = (resolved.width, resolved.height)
        strength = 1.0 if request.image is None else request.strength
        end = request.refiner_start if request.refiner else 1.0
        parts: list[tuple[LatentBackend, Stepper]] = [(self, self.make_stepper(request, strength=strength, end=end))]
        if request.refiner:
            refiner = self._find(request.refiner)
            parts.append((refiner, refiner.make_stepper(request, start=end)))
        parts = [part for part in parts if part[1].times]  # few steps may all lie on one side
        start: Start
        if request.image is None:
            start = FromNoise((self.networks.latent_channels, *self.latent_size(size)))
        else:
            start = FromPicture(to_tensor(fit_picture(request.image, size)))
        plans: list[Plan] = []
        for caption in resolved.captions:
            stages = tuple(backend.make_stage(request, caption, stepper, size) for backend, stepper in parts)
            plans.append(Plan(start=start, stages=stages))
        return plans

    def _find_work(self, request: Request) -> Work:
        """Return what a request other than text to image asks of the latents."""
        side = min(self.loaded.entry.identity.sample_size)
        tile_size = side // self.networks.vae_scale
        if isinstance(request, Inpaint):
            channels = self.loaded.unet.config.in_channels
            return plan_inpainting(request, side, has_mask_channels=channels > self.networks.latent_channels)
        if not isinstance(request, SuperResolve):
            raise ValueError(f"latent models do not run {request.task} requests")
        scheduler = self.loaded.extra.get("low_res_scheduler")
        if scheduler is None:
            return plan_enlarging(request, tile_size)
        return plan_upscaling(request, tile_size, self.networks.latent_channels, scheduler)

    def _plan_work(self, request: Request, resolved: ResolvedRequest, work: Work) -> list[Plan]:
        """Return the plan of each picture."""
        stepper = self.make_stepper(request, strength=work.strength)
        plans: list[Plan] = []
        for caption in resolved.captions:
            stage = self.make_stage(
                request, caption, stepper, work.size, tile_size=work.tile_size, class_label=work.class_label
            )
            plans.append(Plan(start=work.start, stages=(stage,), finish=work.finish))
        return plans

    def latent_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return (h, w) of the latents of a picture of (width, height) px."""
        width, height = size
        return height // self.networks.vae_scale, width // self.networks.vae_scale

    def make_stepper(
        self, request: BaseRequest, *, strength: float = 1.0, start: float = 0.0, end: float = 1.0
    ) -> Stepper:
        """Return the stepper of a request; see `studio.models.latent.samplers.make_stepper`."""
        return make_stepper(
            request.sampler, request.spacing, self.scheduler, request.steps, strength=strength, start=start, end=end
        )

    def make_stage(
        self,
        request: BaseRequest,
        caption: str,
        stepper: Stepper,
        size: tuple[int, int],
        *,
        tile_size: int | None = None,
        class_label: int | None = None,
    ) -> DenoisingStage:
        """Return what this model does to the latents of a picture of `size`, (width, height) in px.

        SDXL is conditioned on the size of a tile, for a tile is what it sees.

        caption: the text that the model reads. stepper: of `make_stepper`.
        tile_size: side of the latents' tiles; None: one tile. class_label: see `UNetInput`.
        """
        tiles = Tiles(*self.latent_size(size), tile_size)
        height, width = (side * self.networks.vae_scale for side in tiles.shape)
        size = (width, height)
        is_guided = request.guidance > 1 and self._guidance_width is None
        negative_prompt = None
        if is_guided:
            negative_prompt = self._condition(
                request.negative_prompt, request.clip_skip, size, NEGATIVE_AESTHETIC_SCORE, is_negative=True
            )
        embedding = None
        if self._guidance_width is not None:
            embedding = embed_guidance(request.guidance, self._guidance_width).to(
                self.networks.device, self.networks.dtype
            )
        return DenoisingStage(
            networks=self.networks,
            stepper=stepper,
            tiles=tiles,
            prompt=self._condition(caption, request.clip_skip, size, AESTHETIC_SCORE),
            negative_prompt=negative_prompt,
            guidance_scale=float(request.guidance) if is_guided else 1.0,
            guidance_rescale=float(request.guidance_rescale),
            tiles_per_call=1 if self.networks.device.type == "cpu" else GPU_TILES_PER_CALL,
            class_label=class_label,
            guidance_embedding=embedding,
        )

    def _condition(
        self, text: str, clip_skip: int, size: tuple[int, int], aesthetic_score: float, is_negative: bool = False
    ) -> Conditioning:
        """Encode a text. An empty negative prompt is zeros where the model's config says so."""
        is_zero = is_negative and not text and self._zeros_for_empty
        embedding = self.text.zeros() if is_zero else self.text.encode(text, clip_skip)
        if not self._is_xl:
            return Conditioning(embedding.text)
        width, height = size
        last = (aesthetic_score,) if self._reads_aesthetics else (height, width)
        ids = torch.tensor((height, width, 0, 0, *last), dtype=self.networks.dtype, device=self.networks.device)
        return Conditioning(embedding.text, embedding.pooled, ids)

    # ---- for the noise view; from any thread ----

    def encode_text(self, text: str, width: int = 0, height: int = 0) -> dict[str, Any]:
        """Return the arguments of the U-Net for one row: `encoder_hidden_states` (1, 77, D), and what SDXL adds.

        text: the prompt. width, height: of the picture, px.
        """
        conditioning = self._condition(text, 0, (width, height), AESTHETIC_SCORE)
        arguments: dict[str, Any] = {"encoder_hidden_states": conditioning.text[None]}
        if conditioning.pooled is not None and conditioning.time_ids is not None:
            arguments["added_cond_kwargs"] = {
                "text_embeds": conditioning.pooled[None],
                "time_ids": conditioning.time_ids[None],
            }
        return arguments

    @torch.no_grad()
    def encode_picture(self, picture: Image.Image) -> Tensor:
        """Return the latents (C, h, w) of an RGB picture, the mode of the VAE's distribution, scaled."""
        return self._encode(to_tensor(picture)[None])[0]

    @torch.no_grad()
    def decode_latents(self, latents: Tensor) -> Image.Image:
        """Return the picture of scaled latents (C, h, w)."""
        height, width = latents.shape[1:]
        tiles = Tiles(height, width, self.networks.vae_tile_size(height, width))
        decoded: list[Tensor] = []
        for corner in tiles.corners:
            decoded.append(self.networks.decode([tiles.cut(latents, corner)])[0][0])
        return to_picture(tiles.blend(decoded, self.networks.vae_scale))

    def _encode(self, pictures: Tensor) -> Tensor:
        """Return the latents (N, C, h, w) of pictures (N, 3, H, W) in [-1, 1]."""
        with torch.no_grad():
            moments, _ = self.networks.encode(pictures.unbind())
        return moments[:, : self.networks.latent_channels] * self.networks.scaling_factor
