"""English as prompts have it: nouns with an article, several of them, one of them; and what is said of the style."""

from __future__ import annotations

import re

_ARTICLE = re.compile(r"(?:an?|the|one|some)\s", re.IGNORECASE)
_SINGULAR = ("ss", "bus", "cactus", "octopus", "lotus")  # ends of words that are singular for all their s
_TOGETHER = re.compile(  # pictured, and named, as several
    r"(?:.*(?:fish|sheep|shrimp)|.*\b(?:blueberries|cherries|crossed swords|fries|grapes|jeans|nesting dolls|pancakes"
    r"|pants|paw prints|scissors|shorts|socks|sparkles|sunglasses|(?<!wine )(?<!cocktail )glasses|(?<!boxing )gloves"
    r"|(?<!open )(?<!closed )books))",
    re.IGNORECASE,
)
_STYLE = (  # "flat style", "the pixel art style"
    r"(?:an?\s|the\s)?(?:(?!(?:in|with|of|same|this|that)\s)[\w'’-]+\s){1,%d}style"
)
_SAYS_STYLE = re.compile(r"\s*(?:(?:in|with)\s)?" + _STYLE % 3 + r"\s*", re.IGNORECASE)  # all between two commas
_IN_STYLE = re.compile(r"\s(?:in|with)\s" + _STYLE % 2 + r"\b(?!\sof\b)", re.IGNORECASE)
_GOES_ON = re.compile(r"\s*(?:on|in)\s", re.IGNORECASE)
_ODD = {  # to their singular
    **{"mice": "mouse", "geese": "goose", "children": "child", "people": "person", "leaves": "leaf"},
    **{"wolves": "wolf", "knives": "knife", "axes": "axe", "shoes": "shoe", "cookies": "cookie", "ties": "tie"},
    **{"neckties": "necktie", "pies": "pie", "dies": "die", "zombies": "zombie", "rhinoceros": "rhinoceros"},
    **{"taxis": "taxi", "moais": "moai", "broccolis": "broccoli", "spaghettis": "spaghetti", "sushis": "sushi"},
    **{"oxen": "ox"},
}


def with_article(thing: str) -> str:
    """ "a red apple", "an owl", "grapes", "the moon": names that are already plural, or have an article, take none."""
    if _ARTICLE.match(thing) or (thing.endswith("s") and not thing.endswith(_SINGULAR)):
        return thing
    return f"{'an' if thing[0].lower() in 'aeiou' and not thing.lower().startswith(('one', 'uni')) else 'a'} {thing}"


def plural(thing: str) -> str:
    if thing.endswith(("s", "fish", "sheep", "shrimp")):
        return thing + "es" if thing.endswith(_SINGULAR) else thing
    if thing.endswith(("x", "ch", "sh", "o")) and not thing.endswith(("oo", "io", "eo")):
        return thing + "es"
    if thing.endswith("y") and thing[-2] not in "aeiou":
        return thing[:-1] + "ies"
    return thing + "s"


def is_collective(things: str) -> bool:
    """Whether the words are the same for one and for several: "sheep", "scissors"."""
    return bool(_TOGETHER.fullmatch(things))


def singular(things: str) -> str:
    """One of the things: "red foxes" -> "red fox". By the rules that most words follow."""
    head, _, word = things.rpartition(" ")
    low = word.lower()
    if low in _ODD:
        word = _ODD[low]
    elif low.endswith("ies"):
        word = word[:-3] + "y"
    elif low.endswith(("xes", "ches", "shes", "oes")) or low.endswith("es") and low[:-2].endswith(_SINGULAR):
        word = word[:-2]
    elif low.endswith("s") and not low.endswith(("ss", "us", "is")):
        word = word[:-1]
    return things if is_collective(things) else f"{head} {word}".lstrip()


def without_style(prompt: str) -> str:
    """The prompt without what it says of a style between commas or after "in": "a cat, flat style, on a red background"
    and "a cat in flat style on a red background" -> "a cat on a red background". One that says nothing of a style in
    such words comes back as it is."""
    clauses = prompt.split(",")
    left = [(i, _IN_STYLE.sub("", clause)) for i, clause in enumerate(clauses) if not _SAYS_STYLE.fullmatch(clause)]
    plain, last = "", -1
    for i, clause in left:
        comma = "" if not plain or (i > last + 1 and _GOES_ON.match(clause)) else ","
        plain, last = plain + comma + clause, i
    return prompt if plain == prompt else plain.strip()


def texts_without_style(texts: tuple[str, ...], negative: str) -> tuple[str, ...]:
    """Texts without their style; () where they say nothing of one, or nothing else than what is kept away from."""
    plain = tuple(map(without_style, texts))
    return () if plain == texts or set(plain) == {negative} else plain
