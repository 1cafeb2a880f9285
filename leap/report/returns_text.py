"""Returns of games in words: tables for a terminal, and the sentences that say which initialization learns faster."""

from __future__ import annotations

from collections.abc import Sequence

from leap.metrics.aggregate import Estimate
from leap.metrics.statistics import Interval
from leap.report import text
from leap.report.captioned import NOTHING
from leap.report.returns import AREA, FIGURES, FINAL, LABELS, LAST, SPREAD_SEEDS, TEST, Arm, Returns, Total, gather
from leap.report.summary import Summary
from leap.report.text import number

SHORT = {AREA: "area under curve", FINAL: f"last {LAST} episodes", TEST: "test return"}


def comparison_text(summary: Summary) -> str:
    """The comparison as plain text for a terminal; of games, returns stand before losses."""
    if not summary.evaluation.has_returns:
        return text.comparison_text(summary)
    found = gather(summary)
    lines = [
        text.protocol(summary),
        conditions(found),
        "",
        *_aligned([*game_head(found), *spread_head(found)], game_rows(found)),
    ]
    if found.normalized:
        lines += ["", *_aligned(TOTAL_HEAD, [total_cells(total) for total in found.totals()])]
    headline, rest = answer(found)
    lines += ["", headline, *([f"  {rest}"] if rest else []), *notes(found)]
    return "\n".join([*lines, "", "Losses and path lengths (lower is better):", *text.figures(summary)]) + "\n"


def game_head(found: Returns) -> list[str]:
    """The columns of `game_rows`."""
    head = ["game", "initialization"]
    for key in LABELS:
        head += [SHORT[key], *(["above none's"] if found.learned else [])]
    return head


def game_rows(found: Returns) -> list[list[str]]:
    """A row a game and initialization: figures, paired differences to the random initialization, spread."""
    return [
        [game if place == 0 else "", arm.label, *game_cells(found, arm, game), *spread_cells(found, arm, game)]
        for game in found.games
        for place, arm in enumerate(found.arms)
    ]


def game_cells(found: Returns, arm: Arm, game: str) -> list[str]:
    """The figures of an initialization on a game."""
    cells = []
    for key in LABELS:
        interval = arm.interval(game, key)
        cells.append(NOTHING if interval is None else number(interval.mean))
        cells += [signed(None if arm.baseline else arm.gain(game, key))] if found.learned else []
    return cells


def spread_head(found: Returns) -> list[str]:
    """The columns of `spread_cells`."""
    return ["spread", *(["of none's"] if found.learned else [])]


def spread_cells(found: Returns, arm: Arm, game: str) -> list[str]:
    """How much walks from an initialization differ, and how much that is of what walks from the random one do."""
    spread, ratio = found.spread(arm, game), None if arm.baseline else found.narrower(arm, game)
    told = NOTHING if spread is None else number(spread)
    return [told, *(["" if ratio is None else times(ratio)] if found.learned else [])]


def signed(difference: Interval | None) -> str:
    """A difference with its sign and interval.

    Example:
        >>> signed(Interval(1.24, 0.31, 2.17, 10)), signed(Interval(-0.5, None, None, 1)), signed(None)
        ('+1.24 [0.31, 2.17]', '-0.50', '')
    """
    if difference is None:
        return ""
    return ("+" if difference.mean > 0 else "") + text.interval_text(difference)


def times(ratio: Interval) -> str:
    """A ratio with its interval.

    Example:
        >>> times(Interval(0.8, 0.514, 1.2, 10)), times(Interval(0.8, None, None, 3))
        ('0.80x [0.51, 1.20]', '0.80x')
    """
    if ratio.low is None or ratio.high is None:
        return f"{ratio.mean:.2f}x"
    return f"{ratio.mean:.2f}x [{ratio.low:.2f}, {ratio.high:.2f}]"


TOTAL_HEAD = ["over games", "initialization", *FIGURES, "P(above none)"]


def total_cells(total: Total) -> list[str]:
    """An initialization over games, for one figure."""
    held = [total.figures.get(name) for name in FIGURES]
    return [SHORT[total.key], total.arm.label, *map(estimated, held), estimated(total.improvement)]


def estimated(found: Estimate | None) -> str:
    """An estimate with its interval, to a hundredth, and below a tenth to a thousandth.

    Example:
        >>> estimated(Estimate(0.512, 0.44, 0.61, 10, 3)), estimated(Estimate(0.01234, None, None, 1, 3))
        ('0.51 [0.44, 0.61]', '0.012')
    """
    if found is None:
        return ""
    places = 2 if abs(found.value) >= 0.0995 else 3
    if found.low is None or found.high is None:
        return f"{found.value:.{places}f}"
    return f"{found.value:.{places}f} [{found.low:.{places}f}, {found.high:.{places}f}]"


def conditions(found: Returns) -> str:
    """How many walks there are of each game, and how long they were."""
    counts = {(arm.trainings, max(len(held) for held in arm.walks.values())) for arm in found.arms if arm.walks}
    trainings, walks = max(counts)
    budgets = sorted({round(steps) for steps in found.budget.values()})
    steps = f"{budgets[0]:,}" if len(budgets) == 1 else f"{budgets[0]:,} to {budgets[-1]:,}"
    frames = f" of {found.frame_skip} frames" if found.frame_skip else ""
    return (
        f"returns, higher is better: {_count(walks, 'walk')} a game and initialization "
        f"({_count(trainings, 'training seed')}), {steps} agent steps{frames} each"
    )


def answer(found: Returns) -> tuple[str, str]:
    """On how many games the learned initialization learns faster than the random one: a headline, and how surely."""
    arm = leading(found)
    if arm is None:
        return "There is no learned initialization beside a random one to compare.", ""
    gains = [gain for game in found.games if (gain := arm.gain(game, AREA)) is not None]
    above = sum(gain.mean > 0 for gain in gains)
    headline = f"{arm.label} learns faster than a random initialization on {above} of {_count(len(gains), 'game')}"
    means = "Faster: more area under the learning curve, with the same budget."
    if all(gain.low is None for gain in gains):
        return f"{headline}.", f"{means} One seed: nobody can say how sure that is. Evaluate with more repetitions."
    sure = sum(gain.low is not None and gain.low > 0 for gain in gains)
    worse = sum(gain.high is not None and gain.high < 0 for gain in gains)
    told = f"The 95% interval of the paired difference is above zero on {sure}, below zero on {worse}."
    return f"{headline}, beyond chance on {sure}.", f"{means} {told}"


def leading(found: Returns) -> Arm | None:
    """The learned initialization that the answer is about: Leap's, or else the first with a random one beside it."""
    arms = [arm for arm in found.learned if any(arm.gain(game, AREA) for game in found.games)]
    return next((one for one in arms if one.label == "leap"), arms[0] if arms else None)


def notes(found: Returns) -> list[str]:
    """What the figures mean, and what is missing from them."""
    several = any(arm.trainings > 1 for arm in found.arms)
    unit = "training seeds" if several else "evaluation seeds"
    lines = [
        f"Brackets beside games: 95% t-interval of the difference, paired by seed, over {unit}"
        + ("." if several else " of one training: they are about this initialization, not about how it was learned."),
        f"Learning curve: moving average over {found.window} episodes, or all so far where there are fewer. Area: its "
        "mean height over agent steps, until the first episode ends at that one's score. Spread: standard deviation "
        "between walks, mean along the learning curve; below 1x, bands are narrower than the random initialization's "
        f"(interval: bootstrap over pairs of walks, from {SPREAD_SEEDS} seeds on).",
    ]
    if found.normalized:
        lines.append(
            "Over games: scores on the scale random play 0, human 1; IQM is the mean of the middle half of all walks. "
            "P(above none): how probable a walk is above one from the random initialization, over all games, 0.5 being "
            f"no difference. Brackets: 95% stratified bootstrap over {unit}, games fixed. {cautions(found)}".rstrip()
        )
    return [*lines, *left_out(found)]


def cautions(found: Returns) -> str:
    """What few runs mean for the intervals over games."""
    totals = [total.figures["IQM"] for total in found.totals()] if found.normalized else []
    least = min(totals, key=lambda one: one.runs, default=None)
    return f"{least.caution}." if least is not None and least.caution else ""


def left_out(found: Returns) -> list[str]:
    """Games that averages leave out, and why."""
    lines = []
    unknown = [game for game in found.complete if game not in found.normalized]
    if unknown:
        lines.append(f"Left out of averages over games, since no human score is known: {', '.join(unknown)}.")
    gaps = [game for game in found.games if game not in found.complete]
    if gaps:
        lines.append(f"Left out over games, since a walk ended no episode, diverged or is missing: {', '.join(gaps)}.")
    return lines


def _aligned(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[place]) for row in (head, *rows)) for place in range(len(head))]
    lines = ["  ".join(c.ljust(width) for c, width in zip(row, widths, strict=True)).rstrip() for row in (head, *rows)]
    return [lines[0], "-" * max(map(len, lines)), *lines[1:]]


def _count(number_of: int, what: str) -> str:
    return f"{number_of} {what}{'' if number_of == 1 else 's'}"
