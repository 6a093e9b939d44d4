"""Price an Asian option by simulation, with a confidence band over seeds.

Run it with ``python examples/option_price.py --jobs 2 --batches 120``::

    batches ──▶ Parallel(seed=...)(delayed(simulate)(market)) ──▶ payoffs, in order ──▶ price
                  each has random numbers of its own               option_price.png

The option pays the mean price of a share, less the strike. The option on the geometric mean has a
price in closed form: it checks the simulation, and its error corrects that of the other.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from parallel_core import Parallel, delayed, effective_n_jobs, rng


class Market(NamedTuple):
    """A share, and an option on it that is due after a year."""

    dates: int  # on which the price is observed
    rate: float
    volatility: float
    price: float = 100.0
    strike: float = 100.0


def simulate(market: Market, paths: int) -> tuple[float, float]:
    """Return the mean payoffs of the arithmetic and the geometric option over some paths."""
    step = 1 / market.dates
    drift = (market.rate - market.volatility**2 / 2) * step
    noise = rng().standard_normal((paths // 2, market.dates)) * market.volatility * math.sqrt(step)
    payoffs = []
    for each in (noise, -noise):  # mirrored paths: what one overstates, the other understates
        logs = np.cumsum(each + drift, axis=1)
        for mean in (np.exp(logs).mean(axis=1), np.exp(logs.mean(axis=1))):
            payoffs.append(np.maximum(market.price * mean - market.strike, 0).mean())
    arithmetic, geometric = (payoffs[0] + payoffs[2]) / 2, (payoffs[1] + payoffs[3]) / 2
    discount = math.exp(-market.rate)
    return float(discount * arithmetic), float(discount * geometric)


def exact_geometric(market: Market) -> float:
    """Return the price of the option on the geometric mean, in closed form."""
    n, square = market.dates, market.volatility**2
    mean = math.log(market.price) + (market.rate - square / 2) * (n + 1) / (2 * n)
    variance = square * (n + 1) * (2 * n + 1) / (6 * n**2)
    upper = (mean - math.log(market.strike) + variance) / math.sqrt(variance)
    cdf = NormalDist().cdf
    forward = math.exp(mean + variance / 2) * cdf(upper)
    return math.exp(-market.rate) * (forward - market.strike * cdf(upper - math.sqrt(variance)))


def running(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return means of the first 2, 3, ... values, and half the widths of their 95 % bands."""
    count = np.arange(1, len(values) + 1)
    mean = np.cumsum(values) / count
    variance = (np.cumsum(values**2) - count * mean**2) / np.maximum(count - 1, 1)
    return mean[1:], 1.96 * np.sqrt(np.maximum(variance, 0) / count)[1:]


def draw(plain: np.ndarray, corrected: np.ndarray, path: Path) -> None:
    """Draw how the price becomes known, as batches arrive."""
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axis = figure.subplots()
    for values, label, colour in (
        (plain, "simulation", "tab:gray"),
        (corrected, "corrected by the geometric option", "tab:blue"),
    ):
        mean, half = running(values)
        batches = np.arange(2, len(values) + 1)
        axis.fill_between(batches, mean - half, mean + half, color=colour, alpha=0.25)
        axis.plot(batches, mean, color=colour, label=f"{label}: {mean[-1]:.4f} ± {half[-1]:.4f}")
    axis.set(xlabel="batches, each with random numbers of its own", ylabel="price, 95 % band")
    axis.legend()
    figure.savefig(path, dpi=100)


def main() -> None:
    """Simulate with one job and with several, compare, and draw."""
    parser = argparse.ArgumentParser(description="Price an Asian option by simulation.")
    parser.add_argument("-j", "--jobs", type=int, default=-1, help="workers (default: all cores)")
    parser.add_argument("--batches", type=int, default=120, help="number of tasks, from 2 on")
    parser.add_argument("--paths", type=int, default=20_000, help="paths in each batch")
    parser.add_argument("--seed", type=int, default=2024, help="where all random numbers come from")
    parser.add_argument("--dates", type=int, default=64, help="observations in the year")
    parser.add_argument("--rate", type=float, default=0.03, help="of interest")
    parser.add_argument("--volatility", type=float, default=0.25, help="of the share, in a year")
    parser.add_argument("--output", type=Path, default=Path("gallery"), help="folder")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    market = Market(options.dates, options.rate, options.volatility)
    print(f"{options.batches} batches of {options.paths:,} paths of {market.dates} dates")

    found, seconds = [], []
    for jobs in (1, options.jobs):
        began = time.perf_counter()
        tasks = (delayed(simulate)(market, options.paths) for _ in range(options.batches))
        found.append(Parallel(n_jobs=jobs, seed=options.seed)(tasks))
        seconds.append(time.perf_counter() - began)
    print(f"  one job    {seconds[0]:7.2f} s")
    workers, ratio = effective_n_jobs(options.jobs), seconds[0] / seconds[1]
    print(f"  {workers:2} workers {seconds[1]:7.2f} s   {ratio:.2f} times as fast")
    if found[0] != found[1]:
        raise SystemExit("the random numbers of one job and of several DIFFER")
    plain, geometric = np.array(found[1]).T
    exact = exact_geometric(market)
    mean, half = running(geometric)
    print(f"  geometric  {mean[-1]:9.4f} ± {half[-1]:.4f}   exactly {exact:.4f}")
    mean, half = running(plain - (geometric - exact))
    print(f"  arithmetic {mean[-1]:9.4f} ± {half[-1]:.4f}   the same numbers with any workers")
    draw(plain, plain - (geometric - exact), options.output / "option_price.png")
    print(options.output / "option_price.png")


main()
