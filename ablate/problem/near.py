"""What someone may have meant by a name that does not exist: another name for the same thing, or a slip of the pen.

A name that merely looks alike is not offered: `weight_decay` is no `weight`, a `tpu` no `gpu`, and `nadam` no `adam`.
"""

from collections.abc import Iterable, Mapping, Sequence

# In words up to the first length a slip keeps the letters, up to the second it brings no other; from the third on there
# may be two slips.
SHORT, MIDDLE, LONG = 4, 5, 8


def near(word: str, known: Iterable[str], also_called: Mapping[str, Sequence[str]]) -> list[str]:
    """Those of the known names that are meant by a word; `also_called` are other names for some of them.

    A name itself, written otherwise, or another name for it comes before any slip.
    """
    names = list(known)
    meant = [name for name in names if is_called(word, (name, *also_called.get(name, ())))]
    return meant or [name for name in names if is_slip(word, name)]


def is_called(word: str, names: Iterable[str]) -> bool:
    """Whether a word is one of some names but for capitals, underscores and hyphens."""
    return _plain(word) in map(_plain, names)


def is_slip(word: str, name: str) -> bool:
    """Whether a word is a name with a letter too many, too few, wrong, or two exchanged; in long ones twice.

    A whole name with more around it is another name, but for its last letter twice and an s.
    """
    word, name = word.lower(), name.lower()
    shortest, longest = sorted((len(word), len(name)))
    if longest <= SHORT and set(word) != set(name):
        return False
    if longest <= MIDDLE and not set(word) <= set(name):
        return False
    if name in word and word.removeprefix(name) not in (name[-1], "s"):
        return False
    return longest - shortest <= 2 and _distance(word, name) <= (2 if shortest >= LONG else 1)


def did_you_mean(word: str, known: Iterable[str], also_called: Mapping[str, Sequence[str]]) -> str:
    """The question whether a known name was meant by a word; "" where none is near."""
    found = near(word, known, also_called)
    return f"did you mean {' or '.join(found)}?" if found else ""


def no_such_choice(kind: str, name: str, known: Iterable[str], also_called: Mapping[str, Sequence[str]]) -> str:
    """The message for a choice that does not exist."""
    names = sorted(known)
    advice = f"{did_you_mean(name, names, also_called)} choose one of {', '.join(names)}".strip()
    return f"{kind}={name}: no such choice; {advice}"


def _plain(word: str) -> str:
    return word.lower().replace("_", "").replace("-", "")


def _distance(a: str, b: str) -> int:
    """The least number of letters to insert, drop or change, or of neighbours to exchange, that makes a of b."""
    before, row = [0] * (len(b) + 1), list(range(len(b) + 1))
    for i, letter in enumerate(a, 1):
        earlier, before, row = before, row, [i]
        for j, other in enumerate(b, 1):
            least = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != other))
            if i > 1 and j > 1 and (letter, a[i - 2]) == (b[j - 2], other):
                least = min(least, earlier[j - 2] + 1)
            row.append(least)
    return row[-1]
