"""Which initialization is best on games, by how much and how sure that is: the sentences that a comparison begins with.

Scores of games have no common scale, so the best is the one whose area under the learning curve ranks highest on
average over games; leads are counted over games, and told game by game.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from leap.metrics.statistics import Interval, difference_interval
from leap.report.returns import Returns
from leap.report.returns_walks import AREA, FINAL, LABELS, Arm
from leap.report.text import number


def answer(found: Returns) -> tuple[str, str]:
    """A headline, and the leads behind it: by the area under the learning curve, and by the final score."""
    ranked = ranking(found)
    if not found.learned or not any(arm.gain(game, AREA) for arm in found.learned for game in found.games):
        return "There is no learned initialization beside a random one to compare.", ""
    if not ranked:
        return "No initialization can be called best: on every game a walk ended no episode or diverged.", ""
    told = [
        f"{what}: {'; '.join(counted)}."
        for key, what in ((AREA, "Area under the learning curve, with the same budget"), (FINAL, _FINAL))
        if (counted := [one for other in rivals(found) if (one := _counted(found, ranked[0], other, key))])
    ]
    return _headline(found, ranked), " ".join(told)


_FINAL = f"{LABELS[FINAL][:1].upper()}{LABELS[FINAL][1:]}"


def _headline(found: Returns, ranked: Sequence[Arm]) -> str:
    best, other = ranked[0], ranked[1]
    leads = [one for game in found.games if (one := lead(best, other, game, AREA)) is not None]
    over = f" on average over {len(leads)} games" if len(leads) > 1 else ""
    first = f"{_name(best)} learns fastest{over}"
    first = f"{first[:1].upper()}{first[1:]}" if best.baseline else first
    if all(one.low is None for one in leads):
        return f"{first}; one seed cannot say how surely."
    if any(one.low is not None and one.low > 0 for one in leads):
        return f"{first}."
    return f"{first}, but {_name(other)} may be as good."


def ranking(found: Returns) -> list[Arm]:
    """The initializations, the best first: by the mean over games of their rank in area; one that lacks a game last.

    A game on which only some have an area counts for none.
    """
    games = [game for game in found.games if all(arm.interval(game, AREA) for arm in found.arms)]
    if not games:
        return []
    areas = np.array([[float(np.mean(arm.units(game, AREA))) for game in games] for arm in found.arms])
    places = (areas[:, None] < areas[None]).sum(axis=1).mean(axis=1)
    return [found.arms[place] for place in np.argsort(places, kind="stable")]


def rivals(found: Returns) -> list[Arm]:
    """The next best, and the best of the random initializations, where the best is not that itself."""
    best, *others = ranking(found)
    random = [arm for arm in others if arm.baseline][:1]
    return [*others[:1], *(arm for arm in random if arm is not others[0] and not best.baseline)]


def lead(best: Arm, other: Arm, game: str, key: str) -> Interval | None:
    """By how much one initialization is above another on a game, paired where both have the same seeds."""
    if other.baseline and not best.baseline:
        return best.gain(game, key)
    if best.baseline and not other.baseline:
        gain = other.gain(game, key)
        return None if gain is None else _turned(gain)
    mine, theirs = best.units(game, key), other.units(game, key)
    if not mine or not theirs or not np.isfinite([*mine, *theirs]).all():
        return None
    paired = best.walks[game].keys() == other.walks[game].keys()
    return difference_interval(mine, theirs, paired=paired)


def by_game(found: Returns, game: str) -> list[str]:
    """How far the best is ahead on a game, a line a figure; in brackets 95% intervals. Empty where none is known."""
    best, lines = ranking(found)[0], []
    for key, what in ((AREA, "area"), (FINAL, "final score")):
        leads = [(other, one) for other in rivals(found) if (one := lead(best, other, game, key)) is not None]
        if leads:
            told = (f"{_ahead(one)} {_name(other)} ({_sure(one)})" for other, one in leads)
            lines.append(f"{what}: {', '.join(told)}")
    return lines


def settled(found: Returns, game: str) -> bool:
    """Whether the best is ahead of all rivals in area beyond chance."""
    best = ranking(found)[0]
    leads = [lead(best, other, game, AREA) for other in rivals(found)]
    return bool(leads) and all(one is not None and one.low is not None and one.low > 0 for one in leads)


def _counted(found: Returns, best: Arm, other: Arm, key: str) -> str:
    leads = [one for game in found.games if (one := lead(best, other, game, key)) is not None]
    if not leads:
        return ""
    count, above = len(leads), sum(one.mean > 0 for one in leads)
    games = f"{count} game{'' if count == 1 else 's'}"
    rival = _name(other) if other.baseline else f"{other.label}, the next best,"
    told = f"ahead of {rival} on {above} of {games}"
    if any(one.low is not None for one in leads):
        told += f", beyond chance on {sum(one.low is not None and one.low > 0 for one in leads)}"
        worse = sum(one.high is not None and one.high < 0 for one in leads)
        told += f" and behind it beyond chance on {worse}" if worse else ""
    return told


def _name(arm: Arm) -> str:
    return "the random initialization" if arm.baseline else arm.label


def _ahead(one: Interval) -> str:
    size = max(abs(end) for end in (one.mean, one.low or 0.0, one.high or 0.0))
    return f"{number(abs(one.mean), size)} {'behind' if one.mean < 0 else 'ahead of'}"


def _sure(one: Interval) -> str:
    shown = _turned(one) if one.mean < 0 else one
    if shown.low is None or shown.high is None:
        return "one seed"
    size = max(abs(shown.low), abs(shown.high))
    beyond = "beyond chance" if shown.low > 0 else "may be chance"
    return f"{number(shown.low, size)} to {number(shown.high, size)}, {beyond}"


def _turned(one: Interval) -> Interval:
    """The same difference the other way round."""
    return Interval(
        -one.mean, None if one.high is None else -one.high, None if one.low is None else -one.low, one.count
    )
