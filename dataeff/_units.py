"""Amounts in the units that people speak in."""

import attrs

_COUNTS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e4, "K"))
_FLOPS = ((1e21, "Z"), (1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"))
_TIMES = ((4 * 86400, 86400, "days"), (3 * 3600, 3600, "h"), (180, 60, "min"))


@attrs.frozen
class Unit:
    """A unit of an axis: how much one is, what stands right after a number, and what it is called."""

    size: float = 1
    suffix: str = ""
    name: str = ""

    def __call__(self, amount: float) -> str:
        """An amount in this unit."""
        return f"{digits(amount / self.size)}{self.suffix}{self.name and f' {self.name}'}"


def unit(axis: str, most: float) -> Unit:
    """The unit in which amounts up to `most` are read easily.

    Examples:
        >>> unit("tokens", 3e9)(1.234e9)
        '1.23B'
        >>> unit("flops", 3.4e15)(3.4e15)
        '3.4 PFLOPs'
        >>> unit("seconds", 9000)(9000), unit("steps", 400)(400)
        ('150 min', '400')
    """
    if axis == "flops":
        return next((Unit(size, "", f"{p}FLOPs") for size, p in _FLOPS if most >= size), Unit(name="FLOPs"))
    if axis == "seconds":
        return next((Unit(size, "", name) for least, size, name in _TIMES if most >= least), Unit(name="s"))
    return next((Unit(1e3 if p == "K" else size, p) for size, p in _COUNTS if most >= size), Unit())


def amount(axis: str, value: float) -> str:
    """One amount in its own unit.

    Examples:
        >>> amount("layer_tokens", 1_640_448), amount("seconds", 43.94)
        ('1.64M', '43.9 s')
    """
    return unit(axis, value)(value)


def digits(value: float) -> str:
    """A number in three digits, or more where whole numbers need them.

    Examples:
        >>> digits(0.12345), digits(43.94), digits(1234.5)
        ('0.123', '43.9', '1,234')
    """
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
