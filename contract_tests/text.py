"""Text of others, for people."""


def printable(text: str, kept: str = "") -> str:
    """The text with an escape for each character that is not shown as itself, but for those kept.

    A terminal takes orders from control characters, also from those between U+0080 and U+009F, and
    marks of direction show a text in another order than it has.
    """
    if text.isprintable():  # at once, since a text may be a body of many megabytes
        return text
    return "".join(
        each if each.isprintable() or each in kept else each.encode("unicode_escape").decode()
        for each in text
    )
