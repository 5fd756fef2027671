"""Money is integer micro-USD; sizes and times say their unit in their name."""

#: Micro-USD in one USD.
MICRO = 1_000_000


def format_usd(micros: int) -> str:
    """Write money for people: cents, and four more digits where they matter."""
    usd = micros / MICRO
    if micros and abs(usd) < 0.01:
        return f"${usd:.6f}".rstrip("0")
    return f"${usd:,.2f}"


def format_duration(milliseconds: float) -> str:
    """Write a duration for people: 310 ms, 4.1 s, 3 min 12 s."""
    if milliseconds < 1000:
        return f"{milliseconds:.0f} ms"
    seconds = milliseconds / 1000
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def whole_number(text: str, *, most: int = 2**31 - 1) -> int | None:
    """Read a whole number that somebody typed or sent; None for anything else.

    `int` alone takes no superscripts, and fails on five thousand digits.
    """
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(most))):
        return None
    number = int(text)
    return number if number <= most else None
