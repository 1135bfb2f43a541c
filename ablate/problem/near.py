"""What someone may have meant by a name that does not exist: another name for the same thing, or a slip of the pen.

A name that merely looks alike is not offered: `weight_decay` is no `weight`, and a `tpu` no `gpu`.
"""

from collections.abc import Iterable, Mapping, Sequence

# The longest word of which only its own letters may be a slip, and the shortest that may have two.
SHORT, LONG = 4, 8


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
    """Whether a word is a name with a letter too many, too few, wrong, or two exchanged; in long ones twice."""
    word, name = word.lower(), name.lower()
    longest = max(len(word), len(name))
    if longest <= SHORT and set(word) != set(name):
        return False
    return abs(len(word) - len(name)) <= 2 and _distance(word, name) <= (2 if longest >= LONG else 1)


def no_such_choice(kind: str, name: str, known: Iterable[str], also_called: Mapping[str, Sequence[str]]) -> str:
    """The message for a choice that does not exist."""
    names = sorted(known)
    found = near(name, names, also_called)
    meant = f"did you mean {' or '.join(found)}? " if found else ""
    return f"{kind}={name}: no such choice; {meant}choose one of {', '.join(names)}"


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
