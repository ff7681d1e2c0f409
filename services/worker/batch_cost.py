"""What batches cost, learnt from those that ran: so many seconds each, and so many for each row. Pure."""

import math

# Each batch takes this part of the picture, so that older ones fade.
_NEW = 1 / 64
# Sizes that differ by less than this part of their mean tell nothing about rows; what was learnt before holds.
_SPREAD = 0.05


class BatchCost:
    """A line through the last batches, by least squares: seconds = batch + row * rows.

    Attributes:
        batch: seconds that a batch takes whatever is in it.
        row: seconds that each row adds; 0 until batches of several sizes ran.
    """

    def __init__(self) -> None:
        self.batch = self.row = 0.0
        self._ran, self._known = 0, False
        self._rows = self._seconds = 0.0
        self._variance = self._covariance = 0.0

    def learn(self, rows: int, seconds: float) -> None:
        """A batch of so many rows took so long."""
        self._ran += 1
        new = max(_NEW, 1 / self._ran)
        more, longer = rows - self._rows, seconds - self._seconds
        self._rows += new * more
        self._seconds += new * longer
        self._variance += new * ((1 - new) * more * more - self._variance)
        self._covariance += new * ((1 - new) * more * longer - self._covariance)
        if self._variance > (_SPREAD * self._rows) ** 2:
            self.row = max(0.0, self._covariance / self._variance)
            self._known = True
        self.row = min(self.row, self._seconds / self._rows)
        self.batch = self._seconds - self.row * self._rows

    def in_full(self, rows: float, full: int) -> float:
        """Seconds that so many rows cost as a part of a batch of `full`."""
        return rows * (self.row + self.batch / full)

    def rows_within(self, times: float) -> float:
        """Rows of the batch that takes so many times as long as one without rows; infinite where rows cost nothing.

        While that is unknown, half of the usual: it will be known by that.
        """
        if not self._known:
            return self._rows / 2
        return (times - 1) * self.batch / self.row if self.row else math.inf
