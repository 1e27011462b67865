"""Objects are kept within a number and a number of bytes."""

from studio.services.lru_store import LRUStore


def test_the_least_recently_used_objects_go_first():
    store = LRUStore(3, max_bytes=100)
    a, b, c = (store.put(name, 30) for name in "abc")
    assert store.get(a) == "a"
    d = store.put("d", 30)
    assert [store.get(key) for key in (a, b, c, d)] == ["a", None, "c", "d"]
    e = store.put("e", 60)
    assert [store.get(key) for key in (a, c, d, e)] == [None, None, "d", "e"]
    f = store.put("f", 500)  # alone it is over the limit, and is kept
    assert [store.get(key) for key in (d, e, f, "?", None)] == [None, None, "f", None, None]
