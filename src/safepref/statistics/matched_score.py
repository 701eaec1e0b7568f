"""The score method for the difference of two rates on the same rows.

Its variance is the one that the hypothesis itself implies, so that "no row differs" is weak evidence from few
rows and strong evidence from many, where a bootstrap would call it certain.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy import optimize
from scipy.special import ndtr, ndtri

from safepref.errors import InputError
from safepref.statistics.base import LEVEL, Interval, check_level

_EDGE = 1e-12


@dataclass(frozen=True, slots=True)
class MatchedScore:
    """Shares of rows that differ, and how many independent rows they are worth.

    `up` is the share where only the second is right, `down` where only the first is, so the difference of the
    rates is `up - down`. `n` may be an effective number that is not whole: with rows that hang together, the
    number divided by the design effect (Rao and Scott 1992, doi 10.2307/2532311).

    Source: Tango 1998, doi 10.1002/(SICI)1097-0258(19980430)17:8<891::AID-SIM780>3.0.CO;2-B.
    """

    up: float
    down: float
    n: float

    def __post_init__(self) -> None:
        if not (self.n > 0 and self.up >= 0 and self.down >= 0 and self.up + self.down <= 1 + 1e-9):
            raise InputError(
                f"matched rates: up {self.up}, down {self.down}, n {self.n}; shares of a whole and n > 0"
            )

    @property
    def difference(self) -> float:
        """Second rate minus first."""
        return self.up - self.down

    def spread(self, delta: float) -> float:
        """Standard deviation of one row's difference where the true one is `delta` (-1 < delta < 1).

        The shares are the likeliest ones under that hypothesis (Tango 1998, equation 7).
        """
        linear = self.up + self.down + delta * (self.difference - 2.0)
        root = math.sqrt(max(0.0, linear * linear + 8.0 * delta * (1.0 - delta) * self.down))
        down = (linear + root) / 4.0
        return math.sqrt(max(0.0, 2.0 * down + delta - delta * delta))

    def z(self, delta: float) -> float:
        """The score statistic of the hypothesis that the true difference is `delta`."""
        away = self.difference - delta
        if abs(away) < _EDGE:
            return 0.0
        spread = self.spread(delta)
        if spread < _EDGE:
            return math.copysign(math.inf, away)
        return away * math.sqrt(self.n) / spread

    def p_above(self, delta: float) -> float:
        """One-sided p of "the true difference is at most `delta`": small where it is shown to be above."""
        return float(ndtr(-self.z(delta)))

    def p_below(self, delta: float) -> float:
        """One-sided p of "the true difference is at least `delta`": small where it is shown to be below."""
        return float(ndtr(self.z(delta)))

    def interval(self, level: float = LEVEL) -> Interval:
        """All differences that the two-sided score test at `1 - level` does not reject."""
        check_level(level)
        z = float(ndtri(0.5 + level / 2))

        def end(outer: float, sign: float) -> float:
            inner = self.difference
            if abs(inner - outer) < 1e-9:
                return outer
            at = outer * (1.0 - 1e-9)
            if abs(self.z(at)) <= z:  # so few rows that nothing is ruled out on this side
                return outer
            return float(optimize.brentq(lambda delta: self.z(delta) - sign * z, *sorted((at, inner))))

        return Interval(end(-1.0, 1.0), end(1.0, -1.0))

    def rows_needed(self, delta: float, alpha: float, power: float = 0.8) -> float | None:
        """Independent rows that would show on which side of `delta` the difference seen lies, were it true.

        Args:
            delta: the border.
            alpha: level of the one-sided test, 0..1.
            power: chance to show it, 0..1.

        Returns:
            The number, or None where the difference seen lies on the border, where no number is enough.

        Source: Lu and Bean 1995, doi 10.1002/sim.4780141611; Nam 1997, doi 10.2307/2533508.
        """
        away = abs(self.difference - delta)
        if away < 1e-9:
            return None
        seen = math.sqrt(max(0.0, self.up + self.down - self.difference**2))
        reach = ndtri(power) * seen - ndtri(alpha) * self.spread(delta)
        return float(reach / away) ** 2
