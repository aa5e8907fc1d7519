"""Texts that others chose, made safe for what they are shown in."""

# A spreadsheet takes a cell that begins with one of these for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def for_terminal(text: str) -> str:
    """On one line, without characters that move the cursor, colour, or turn the text around."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else " " for char in text)


def for_csv(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula: one is preceded by an apostrophe."""
    return f"'{cell}" if cell.startswith(_FORMULA) else cell
