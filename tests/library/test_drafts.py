import os
import time
from pathlib import Path

import numpy as np
from PIL import Image

from studio.library import drafts as drafts_module
from studio.library.drafts import Drafts
from studio.library.files import TEMPORARY_SUFFIX


def test_draft_belongs_to_its_owner_and_outlives_a_restart(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (5, 7, 4), dtype=np.uint8)
    Drafts(tmp_path, "secret").put("ann", "inpaint", "picture", Image.fromarray(values, "RGBA"), "photograph")
    reopened = Drafts(tmp_path, "secret")
    assert np.array_equal(np.asarray(reopened.get("ann", "inpaint", "picture")), values)
    assert reopened.get_note("ann", "inpaint", "picture") == "photograph"
    for owner, tab, name in (("bob", "inpaint", "picture"), ("ann", "other", "picture"), ("ann", "inpaint", "mask")):
        assert reopened.get(owner, tab, name) is None and reopened.get_path(owner, tab, name) is None
    reopened.delete("ann", "inpaint", "picture")
    assert reopened.get("ann", "inpaint", "picture") is None


def test_file_names_depend_on_the_key(tmp_path):
    one, other = Drafts(tmp_path, "secret"), Drafts(tmp_path, "another")
    one.put("user:ann", "inpaint", "picture", Image.new("RGB", (2, 2)))
    assert other.get("user:ann", "inpaint", "picture") is None


def test_damaged_file_is_no_draft(tmp_path):
    drafts = Drafts(tmp_path, "secret")
    drafts.put("ann", "inpaint", "picture", Image.new("RGB", (2, 2)))
    drafts.get_path("ann", "inpaint", "picture").write_bytes(b"torn")
    assert drafts.get("ann", "inpaint", "picture") is None and drafts.get_note("ann", "inpaint", "picture") == ""


def test_file_renamed_by_another_thread_is_no_error(tmp_path, monkeypatch):
    drafts = Drafts(tmp_path, "secret")
    drafts.put("ann", "inpaint", "picture", Image.new("RGB", (2, 2)))
    part = drafts.folder / f".abc{TEMPORARY_SUFFIX}"
    part.write_bytes(b"half")
    glob = Path.glob

    def glob_late(folder, pattern):
        paths = list(glob(folder, pattern))
        part.unlink(missing_ok=True)  # as the thread that writes it would
        return paths

    monkeypatch.setattr(Path, "glob", glob_late)
    drafts.put("ann", "inpaint", "mask", Image.new("L", (2, 2)))
    assert drafts.get("ann", "inpaint", "mask")


def test_oldest_drafts_go_over_the_limit(tmp_path, monkeypatch):
    drafts = Drafts(tmp_path, "secret")
    for number in range(4):
        drafts.put(str(number), "inpaint", "picture", Image.new("RGB", (2, 2)))
        moment = time.time() - 100 + number
        os.utime(drafts.get_path(str(number), "inpaint", "picture"), (moment, moment))
    size = drafts.get_path("0", "inpaint", "picture").stat().st_size
    monkeypatch.setattr(drafts_module, "MAX_BYTES", 2.5 * size)
    drafts.put("new", "inpaint", "picture", Image.new("RGB", (2, 2)))
    left = [owner for owner in ("0", "1", "2", "3", "new") if drafts.get_path(owner, "inpaint", "picture")]
    assert left == ["3", "new"]
