import os
import time
from pathlib import Path

import numpy as np
from PIL import Image

from studio.library import drafts
from studio.library.drafts import Drafts
from studio.library.files import TEMPORARY_SUFFIX


def test_a_draft_is_its_owners_over_a_restart(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (5, 7, 4), dtype=np.uint8)
    Drafts(tmp_path, "secret").put("ann", "inpaint", "picture", Image.fromarray(values, "RGBA"), "photograph")
    again = Drafts(tmp_path, "secret")
    assert np.array_equal(np.asarray(again.get("ann", "inpaint", "picture")), values)
    assert again.get_note("ann", "inpaint", "picture") == "photograph"
    for owner, tab, what in (("bob", "inpaint", "picture"), ("ann", "other", "picture"), ("ann", "inpaint", "mask")):
        assert again.get(owner, tab, what) is None and again.get_path(owner, tab, what) is None
    again.delete("ann", "inpaint", "picture")
    assert again.get("ann", "inpaint", "picture") is None


def test_names_cannot_be_guessed_without_the_secret(tmp_path):
    one, other = Drafts(tmp_path, "secret"), Drafts(tmp_path, "another")
    one.put("user:ann", "inpaint", "picture", Image.new("RGB", (2, 2)))
    assert other.get("user:ann", "inpaint", "picture") is None


def test_a_broken_file_is_no_draft(tmp_path):
    kept = Drafts(tmp_path, "secret")
    kept.put("ann", "inpaint", "picture", Image.new("RGB", (2, 2)))
    kept.get_path("ann", "inpaint", "picture").write_bytes(b"torn")
    assert kept.get("ann", "inpaint", "picture") is None and kept.get_note("ann", "inpaint", "picture") == ""


def test_what_another_thread_finishes_meanwhile_is_no_fault(tmp_path, monkeypatch):
    kept = Drafts(tmp_path, "secret")
    kept.put("ann", "inpaint", "picture", Image.new("RGB", (2, 2)))
    part = kept.folder / f".abc{TEMPORARY_SUFFIX}"
    part.write_bytes(b"half")
    glob = Path.glob

    def late(folder, pattern):
        found = list(glob(folder, pattern))
        part.unlink(missing_ok=True)  # its thread has given it its name
        return found

    monkeypatch.setattr(Path, "glob", late)
    kept.put("ann", "inpaint", "mask", Image.new("L", (2, 2)))
    assert kept.get("ann", "inpaint", "mask")


def test_the_oldest_go_when_there_are_many(tmp_path, monkeypatch):
    kept = Drafts(tmp_path, "secret")
    for number in range(4):
        kept.put(str(number), "inpaint", "picture", Image.new("RGB", (2, 2)))
        moment = time.time() - 100 + number
        os.utime(kept.get_path(str(number), "inpaint", "picture"), (moment, moment))
    size = kept.get_path("0", "inpaint", "picture").stat().st_size
    monkeypatch.setattr(drafts, "MAX_BYTES", 2.5 * size)
    kept.put("new", "inpaint", "picture", Image.new("RGB", (2, 2)))
    left = [owner for owner in ("0", "1", "2", "3", "new") if kept.get_path(owner, "inpaint", "picture")]
    assert left == ["3", "new"]
