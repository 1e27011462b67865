"""The models that a studio has: found in folders, identified, with a person's settings."""

from studio.models.catalog.catalog import Catalog
from studio.models.catalog.scan import ModelEntry

__all__ = ["Catalog", "ModelEntry"]
