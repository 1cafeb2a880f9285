"""Returns of games in words: tables for a terminal, and the sentences that say which initialization learns faster."""

from __future__ import annotations

from collections.abc import Sequence

from leap.errors import UsageError
from leap.metrics.aggregate import Estimate
from leap.metrics.statistics import Interval
from leap.report import text
from leap.report.captioned import NOTHING
from leap.report.returns import FIGURES, Returns, Total, gather
from leap.report.returns_curves import SPREAD_SEEDS, WINDOW
from leap.report.returns_first import answer
from leap.report.returns_paths_text import HEAD, path_notes, path_rows
from leap.report.returns_walks import AREA, FINAL, LABELS, LAST, TEST, Arm
from leap.report.summary import Summary
from leap.report.text import number

SHORT = {AREA: "area under curve", FINAL: f"last {LAST} episodes", TEST: "test return"}


def comparison_text(summary: Summary, window: int | None = None) -> str:
    """The comparison as plain text for a terminal; of games, returns stand before losses.

    Args:
        summary: What `summarize` gave.
        window: Episodes of the moving average, by default WINDOW; for games only.

    Raises:
        UsageError: a window, and no games or no number of episodes.
    """
    window = checked_window(summary, window)
    if not summary.evaluation.has_returns:
        return text.comparison_text(summary)
    found = gather(summary, window)
    lines = [
        text.protocol(summary),
        conditions(found),
        "",
        *_aligned([*game_head(found), *spread_head(found)], game_rows(found)),
        "",
        *_aligned(["game", "initialization", *HEAD], path_rows(found)),
    ]
    if found.normalized:
        lines += ["", *_aligned(TOTAL_HEAD, [total_cells(total) for total in found.totals()])]
    headline, rest = answer(found)
    lines += ["", headline, *([f"  {rest}"] if rest else []), curve_note(found), *notes(found), *path_notes(found)]
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
    """A difference with its sign and interval, as many decimals as the largest of these numbers has.

    Example:
        >>> signed(Interval(1.24, 0.31, 2.17, 10)), signed(Interval(-0.5, None, None, 1)), signed(None)
        ('+1.24 [0.31, 2.17]', '-0.50', '')
        >>> signed(Interval(0.0767, -0.2238, 0.3772, 3))
        '+0.08 [-0.22, 0.38]'
    """
    if difference is None:
        return ""
    if difference.low is None or difference.high is None:
        return f"{'+' * (difference.mean > 0)}{number(difference.mean)}"
    size = max(abs(difference.low), abs(difference.high))
    mean, low, high = (number(one, size) for one in (difference.mean, difference.low, difference.high))
    return f"{'+' * (difference.mean > 0)}{mean} [{low}, {high}]"


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


def notes(found: Returns) -> list[str]:
    """What the figures mean, and what is missing from them."""
    several = any(arm.trainings > 1 for arm in found.arms)
    unit = "training seeds" if several else "evaluation seeds"
    lines = [
        f"Brackets beside games: 95% t-interval of the difference, paired by seed, over {unit}"
        + ("." if several else " of one training: they are about this initialization, not about how it was learned."),
        "Area: mean height of the learning curve over agent steps, until the first episode ends at that one's score.",
        "Spread: standard deviation between walks (all training and evaluation seeds together) of the learning curve "
        "at one agent step, mean over agent steps, in units of the score; what all walks share does not enter. Below "
        "1x, bands are narrower than the random initialization's with the same seeds "
        f"(interval: bootstrap over pairs of walks, from {SPREAD_SEEDS} seeds on).",
    ]
    if found.normalized:
        lines.append(
            "Over games: scores on the scale random play 0, human 1; IQM is the mean of the middle half of all walks. "
            "P(above none): how probable a walk is above one from the random initialization, over all games, 0.5 being "
            f"no difference. Brackets: 95% stratified bootstrap over {unit}, games fixed. {cautions(found)}".rstrip()
        )
    return [*lines, *left_out(found)]


def curve_note(found: Returns) -> str:
    """What a learning curve is, and what its window means where walks ended fewer episodes than that."""
    paper = "as in the paper" if found.window == WINDOW else f"the paper's is over {WINDOW}"
    over = _count(found.window, "episode")
    told = f"Learning curve: moving average over {over} ({paper}), or all so far where there are fewer."
    counts = {
        game: [len(w.episodes) for arm in found.arms for w in arm.walks.get(game, {}).values()] for game in found.games
    }
    short = [f"{game} ({spanned(held)})" for game, held in counts.items() if held and min(held) < found.window]
    if not short:
        return told
    return (
        f"{told} Walks that ended fewer episodes: {', '.join(short)}; their curves are means over all episodes so far, "
        "the first ones included, and follow what was learned late. A shorter window: leap report ... --window N."
    )


def spanned(counts: Sequence[int]) -> str:
    """The least and the most of counts.

    Example:
        >>> spanned([40, 1310, 7]), spanned([3, 3])
        ('7 to 1,310', '3')
    """
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def checked_window(summary: Summary, window: int | None) -> int:
    """The window to use; raises UsageError for one that cannot be, or that nothing is shown with."""
    if window is None:
        return WINDOW
    if window < 1:
        raise UsageError(f"--window must be 1 episode or more, got {window}; the paper's is {WINDOW}")
    if not summary.evaluation.has_returns:
        raise UsageError(
            f"--window {window} counts episodes, and these runs of {summary.evaluation.family} have none; leave it out"
        )
    return window


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
