"""What programs send to the Images API and what they get back, as OpenAI names it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

DEFAULT_COMPRESSION = 90


def _as_written(value: Any) -> Any:
    """Refuse true and false where a number is asked for, which pydantic would read as 1 and 0."""
    if isinstance(value, bool):
        raise ValueError("not a number")
    return value


WholeNumber = Annotated[int, BeforeValidator(_as_written)]
# What each field may hold, for the sentence about a value that is refused.
ALLOWED = {
    "prompt": "text",
    "n": "a whole number from 1 to 9",
    "size": '"auto" or a width and a height such as "512x512"',
    "quality": "low, medium, high or auto",
    "style": "text",
    "response_format": "b64_json or url",
    "output_format": "png, jpeg or webp",
    "output_compression": "a whole number from 0 to 100",
    "background": "text",
    "stream": "true or false",
    "partial_images": "a whole number from 0 to 3",
    "model": "text",
    "user": "text",
}


class ImageBody(BaseModel):
    """The fields that all calls share. Unknown fields are ignored, and null counts as left out."""

    model_config = ConfigDict(extra="ignore")

    model: str | None = Field(None, description="id of a model (GET /v1/models); left out, the default one")
    n: WholeNumber | None = Field(None, ge=1, le=9, description="number of pictures, 1 to 9")
    size: str | None = Field(
        None, description="auto or WIDTHxHEIGHT in px; mapped to the nearest that the model paints"
    )
    response_format: str | None = Field(None, description="b64_json (default), or url: an address good for an hour")
    output_format: str | None = Field(None, description="png (default), jpeg or webp")
    output_compression: WholeNumber | None = Field(None, ge=0, le=100, description="quality of jpeg and webp, 0 to 100")
    user: str | None = Field(None, description="not read")


class GenerationBody(ImageBody):
    """Pictures from text."""

    model_config = ConfigDict(
        extra="ignore", json_schema_extra={"example": {"prompt": "a red apple", "n": 2, "size": "auto"}}
    )

    prompt: str = Field(description="what to paint")
    quality: str | None = Field(
        None, description="low, medium (as auto and standard) or high (as hd): fewer or more steps"
    )
    style: str | None = Field(None, description="one of the model's styles; vivid and natural are not read")
    background: str | None = Field(None, description="one of the model's backgrounds; pictures are always opaque")
    stream: bool | None = Field(None, description="answer by server-sent events")
    partial_images: WholeNumber | None = Field(None, ge=0, le=3, description="pictures on the way, of a stream, 0 to 3")


class EditBody(GenerationBody):
    """A picture that is painted anew, or where a mask is transparent. Sent as multipart/form-data."""


class VariationBody(ImageBody):
    """Variations of a picture. Sent as multipart/form-data."""


class ImageAnswer(BaseModel):
    """One picture."""

    b64_json: str | None = None
    url: str | None = None
    revised_prompt: str


class ImagesAnswer(BaseModel):
    """The pictures of a call.

    usage: zeros, since nothing is billed.
    notes: sentences about what was mapped or not read.
    """

    created: int
    data: list[ImageAnswer]
    background: str
    output_format: str
    quality: str
    size: str
    usage: dict[str, Any]
    model: str
    seeds: list[int]
    notes: list[str]
