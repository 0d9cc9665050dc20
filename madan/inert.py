"""Text from outside, such as file names and keys of weights files, made harmless for a terminal."""


def inert(text: str, longest: int | None = None) -> str:
    """Return text with every character that does not print as its escape, `\\x1b` for instance.

    That covers control characters, newlines, marks that reorder text, and bytes that are not UTF-8.
    Text of more than `longest` characters, of which there is at least one, loses its middle.
    """
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    if longest is None or len(shown) <= longest:
        return shown
    half, rest = longest // 2, max(0, longest - 1 - longest // 2)
    return f"{shown[:half]}…{shown[len(shown) - rest :]}"
