"""The English of prompts: nouns with an article, their plural and singular, and phrases that name a style."""

from __future__ import annotations

import re

_ARTICLE = re.compile(r"(?:an?|the|one|some)\s", re.IGNORECASE)
_SINGULAR_ENDINGS = ("ss", "bus", "cactus", "octopus", "lotus")  # of words that are singular although they end in s
_COLLECTIVE = re.compile(  # pictured and named as several
    r"(?:.*(?:fish|sheep|shrimp)|.*\b(?:blueberries|cherries|crossed swords|fries|grapes|jeans|nesting dolls|pancakes"
    r"|pants|paw prints|scissors|shorts|socks|sparkles|sunglasses|(?<!wine )(?<!cocktail )glasses|(?<!boxing )gloves"
    r"|(?<!open )(?<!closed )books))",
    re.IGNORECASE,
)
_STYLE = (  # "flat style", "the pixel art style"
    r"(?:an?\s|the\s)?(?:(?!(?:in|with|of|same|this|that)\s)[\w'’-]+\s){1,%d}style"
)
_STYLE_CLAUSE = re.compile(r"\s*(?:(?:in|with)\s)?" + _STYLE % 3 + r"\s*", re.IGNORECASE)  # between two commas
_IN_STYLE = re.compile(r"\s(?:in|with)\s" + _STYLE % 2 + r"\b(?!\sof\b)", re.IGNORECASE)
_CONTINUES = re.compile(r"\s*(?:on|in)\s", re.IGNORECASE)
_IRREGULAR = {  # plural -> singular
    **{"mice": "mouse", "geese": "goose", "children": "child", "people": "person", "leaves": "leaf"},
    **{"wolves": "wolf", "knives": "knife", "axes": "axe", "shoes": "shoe", "cookies": "cookie", "ties": "tie"},
    **{"neckties": "necktie", "pies": "pie", "dies": "die", "zombies": "zombie", "rhinoceros": "rhinoceros"},
    **{"taxis": "taxi", "moais": "moai", "broccolis": "broccoli", "spaghettis": "spaghetti", "sushis": "sushi"},
    **{"oxen": "ox"},
}


def with_article(thing: str) -> str:
    """Return "a red apple", "an owl". Names that are plural or have an article stay: "grapes", "the moon"."""
    if _ARTICLE.match(thing) or (thing.endswith("s") and not thing.endswith(_SINGULAR_ENDINGS)):
        return thing
    return f"{'an' if thing[0].lower() in 'aeiou' and not thing.lower().startswith(('one', 'uni')) else 'a'} {thing}"


def plural(thing: str) -> str:
    """Return several of a thing: "red fox" -> "red foxes", by the rules that most words follow."""
    if thing.endswith(("s", "fish", "sheep", "shrimp")):
        return thing + "es" if thing.endswith(_SINGULAR_ENDINGS) else thing
    if thing.endswith(("x", "ch", "sh", "o")) and not thing.endswith(("oo", "io", "eo")):
        return thing + "es"
    if thing.endswith("y") and thing[-2] not in "aeiou":
        return thing[:-1] + "ies"
    return thing + "s"


def is_collective(things: str) -> bool:
    """Return whether the words are the same for one and for several: "sheep", "scissors"."""
    return bool(_COLLECTIVE.fullmatch(things))


def singular(things: str) -> str:
    """Return one of the things: "red foxes" -> "red fox", by the rules that most words follow."""
    head, _, word = things.rpartition(" ")
    lower = word.lower()
    if lower in _IRREGULAR:
        word = _IRREGULAR[lower]
    elif lower.endswith("ies"):
        word = word[:-3] + "y"
    elif (
        lower.endswith(("xes", "ches", "shes", "oes"))
        or lower.endswith("es")
        and lower[:-2].endswith(_SINGULAR_ENDINGS)
    ):
        word = word[:-2]
    elif lower.endswith("s") and not lower.endswith(("ss", "us", "is")):
        word = word[:-1]
    return things if is_collective(things) else f"{head} {word}".lstrip()


def without_style(prompt: str) -> str:
    """Remove the style that a prompt names between commas or after "in". Return other prompts unchanged.

    "a cat, flat style, on a red background" and "a cat in flat style on a red background" become "a cat on a red
    background".
    """
    plain, last = "", -1
    for i, clause in enumerate(prompt.split(",")):
        if _STYLE_CLAUSE.fullmatch(clause):
            continue
        clause = _IN_STYLE.sub("", clause)
        comma = "" if not plain or (i > last + 1 and _CONTINUES.match(clause)) else ","
        plain, last = plain + comma + clause, i
    return prompt if plain == prompt else plain.strip()


def texts_without_style(texts: tuple[str, ...], negative: str) -> tuple[str, ...]:
    """Return texts without their style; () if none names a style, or only the negative prompt is left."""
    plain = tuple(map(without_style, texts))
    return () if plain == texts or set(plain) == {negative} else plain
