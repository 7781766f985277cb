"""Says numbers as people do: how long ago, which share, how many bytes."""

MINUTE, HOUR, DAY, WEEK = 60, 3600, 86_400, 7 * 86_400
STEPS = ((WEEK, "week"), (DAY, "day"), (HOUR, "hour"), (MINUTE, "minute"))
JUST_NOW_S = 90


def ago(at: int | None, now: int) -> str:
    """Return when something was: "just now", "5 minutes ago", "never"."""
    if at is None:
        return "never"
    passed = now - at
    return "just now" if passed < JUST_NOW_S else f"{lasting(passed)} ago"


def lasting(seconds: int) -> str:
    """Return a time in its largest unit: "5 minutes", "1 day"."""
    for length, name in STEPS:
        if seconds >= length:
            number = seconds // length
            return f"{number} {name}{'' if number == 1 else 's'}"
    return f"{seconds} s"


def percent(share: int | None) -> str:
    """Return a share in whole per mille as a person reads it: "89.5 %"; "-" for none."""
    return "-" if share is None else f"{share / 10:g} %"


def size(count: int) -> str:
    """Return a number of bytes in a unit that fits: "12 kB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            break
        count //= 1000
    return f"{count} {unit}"
