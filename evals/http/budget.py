"""What requests to an endpoint cost: an estimate before the first, and a limit that is never passed while they run."""

from __future__ import annotations

import threading
from collections.abc import Callable

from evals.errors import EvalError, ModelError, UsageError


class Budget:
    """Counts requests at a price each.

    Args: name: of the model or judge. unit: what one request is for ("picture", "question"). price: of one request,
    or None. most: the most to spend, in the same currency, or None. unanswered: how many requests were sent again
    because no whole answer came: they may have been paid for. args: where the user sets price and limit. error: what
    is raised when the limit is reached.
    """

    def __init__(
        self,
        name: str,
        unit: str,
        price: float | None,
        most: float | None,
        unanswered: Callable[[], int] = lambda: 0,
        args: str = "model.args",
        error: type[EvalError] = ModelError,
    ) -> None:
        self._error = error
        self.name, self.unit, self.price, self.most, self.args = name, unit, price, most, args
        self._unanswered = unanswered
        self._lock = threading.Lock()
        self.asked = 0

    @property
    def spent(self) -> float:
        """What was asked for, and what was asked again because no whole answer came, at the price given."""
        return (self.asked + self._unanswered()) * (self.price or 0.0)

    def estimate(self, line: str, new: int, advice: str) -> str:
        """``line`` with the cost of ``new`` requests at its end. Raises UsageError when that passes the limit."""
        if self.price is None:
            return f"{line}; {self.args}.price=P, the price of one, gives an estimate"
        cost = new * self.price
        line += f"; about {cost:,.2f} at {self.price:g} each"
        if self.most is not None and self.spent + cost > self.most + 1e-9:
            already = f" beside the {self.spent:,.2f} already spent" if self.asked else ""
            raise UsageError(f"{line}{already}, more than {self.args}.max_cost = {self.most:g}: raise it, or {advice}")
        return line

    def take(self) -> None:
        """Before a request is sent. Raises ``error`` when it would pass the limit."""
        with self._lock:
            if self.price is not None and self.most is not None and self.spent + self.price > self.most + 1e-9:
                raise self._error(
                    f"{self.name}: {self.spent:,.2f} is spent, and one more {self.unit} would pass "
                    f"{self.args}.max_cost = {self.most:g}: raise it and run the same command again; what was made is "
                    "kept"
                )
            self.asked += 1

    def json(self) -> float | None:
        """What was spent, for the manifest; None without a price."""
        return None if self.price is None else round(self.spent, 6)
