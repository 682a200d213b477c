"""How long the samples of a question will be, guessed from the length of its prompt alone."""

from __future__ import annotations


class PromptRank:
    """Least squares of output tokens on prompt characters, learnt from what has ended so far."""

    def __init__(self) -> None:
        self._count = 0
        self._mean_x = self._mean_y = 0.0
        self._squares = self._products = 0.0

    def learn(self, characters: int, tokens: float) -> None:
        """A query with that prompt took so many output tokens a sample."""
        self._count += 1
        x, y = characters - self._mean_x, tokens - self._mean_y
        self._mean_x += x / self._count
        self._mean_y += y / self._count
        self._squares += x * (characters - self._mean_x)
        self._products += x * (tokens - self._mean_y)

    def guess(self, characters: int) -> float:
        """Expected output tokens of a sample; their mean while prompts do not differ."""
        slope = self._products / self._squares if self._squares > 0 else 0.0
        return self._mean_y + slope * (characters - self._mean_x)
