"""Rows, tables and charts of the variational bound, and of the noise levels that training objectives are about."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import torch

from triptych.evaluation.diffusion_bound import VARIANCES, Measured, bound_terms, objective_terms
from triptych.evaluation.statistics import ratio_and_interval, with_intervals
from triptych.figures.noise_levels import save_shares, save_terms
from triptych.figures.tables import markdown, percent_with_interval, with_interval
from triptych.losses.bound import NoiseSteps

SIGMAS = (0.05, 0.2, 0.5, 1.0, 5.0)  # noise levels, on images in [-1, 1], between which shares are told
SHOWN = (0, 1, 10, 30, 100, 300, 500, 700, 900, 999)  # steps of the table
Row = dict[str, Any]


def bound_rows(measured: Measured, steps: NoiseSteps, edges: torch.Tensor, num_dims: int, data_std: float) -> list[Row]:
    """What the study keeps: the sum under each variance, the terms of each stratum, the shares under each weighting.

    Args:
        measured: of N images at a step of each stratum.
        steps: the noise schedule.
        edges: of the strata, (K + 1,).
        num_dims: dimensions of an image.
        data_std: the network saw images / data_std.
    """
    sizes = edges.diff().double()
    sigma = data_std * ((1 - steps.alpha_bar) / steps.alpha_bar).sqrt()  # (T,), on images in [-1, 1]
    terms = {name: bound_terms(measured, steps, num_dims, name) for name in VARIANCES}  # bits per dimension, (N, K)
    prior = measured.prior / (num_dims * math.log(2))
    rows: list[Row] = []
    for name, of_steps in terms.items():
        whole = of_steps * sizes
        parts = {
            "bits": whole.sum(1) + prior,
            "prior": prior,
            "first_step": whole[:, 0],
            "later_steps": whole[:, 1:].sum(1),
        }
        rows.append({"what": "total", "variance": name, **with_intervals(parts)})
    up_to = {name: (of_steps * sizes).cumsum(1) for name, of_steps in terms.items()}
    for k in range(len(sizes)):
        of_stratum = {"mse": measured.error[:, k] * data_std**2 / num_dims}
        for name in VARIANCES:
            of_stratum |= {name: terms[name][:, k], f"{name}_up_to": up_to[name][:, k]}
        first, last = int(edges[k]), int(edges[k + 1]) - 1
        ends = {"first": first, "last": last, "sigma_first": float(sigma[first]), "sigma_last": float(sigma[last])}
        rows.append({"what": "stratum", **ends, **with_intervals(of_stratum)})
    level = torch.bucketize(sigma[measured.t], torch.tensor(SIGMAS, dtype=torch.float64))  # (N, K)
    for name, of_steps in objective_terms(measured, steps, num_dims, data_std).items():
        whole = of_steps * sizes
        below = [ratio_and_interval(part, whole.sum(1)) for part in whole.cumsum(1).T]
        shares = [ratio_and_interval((whole * (level == k)).sum(1), whole.sum(1)) for k in range(len(SIGMAS) + 1)]
        row: Row = {"what": "share", "weighting": name}
        for key, pairs in (("up_to", below), ("shares", shares)):
            row[key], row[f"{key}_interval"] = (list(each) for each in zip(*pairs, strict=True))
        rows.append(row)
    return rows


def likelihood_table(rows: list[Row], key: Row) -> str:
    """The bound and its parts, the terms at some steps, and the shares of the objectives."""
    totals, strata, shares = ([row for row in rows if row["what"] == what] for what in ("total", "stratum", "share"))

    whole = markdown(
        ["variance of p", "bound, bits per dimension", "first step", "the others", "prior"],
        (
            [
                VARIANCES[row["variance"]],
                *(with_interval(row, name, 3) for name in ("bits", "first_step", "later_steps")),
                f"{row['prior']:.1g}",
            ]
            for row in totals
        ),
    )
    chosen = dict.fromkeys(
        next(i for i, row in enumerate(strata) if row["last"] >= min(t, strata[-1]["last"])) for t in SHOWN
    )

    def scientific(row: Row, name: str) -> str:
        """With as many digits as the interval leaves."""
        mean, half = row[name], row[f"{name}_interval"]
        power = math.floor(math.log10(mean))
        digits = max(1, power - math.floor(math.log10(half))) if half else 2
        return f"({mean / 10**power:.{digits}f} ± {half / 10**power:.{digits}f})e{power}"

    terms = markdown(
        ["t", "sigma", "squared error a pixel", *(f"L_t, {name}" for name in VARIANCES.values())],
        (
            [
                f"{row['first']}" if row["first"] == row["last"] else f"{row['first']}-{row['last']}",
                f"{math.sqrt(row['sigma_first'] * row['sigma_last']):.3g}",
                *(scientific(row, name) for name in ("mse", *VARIANCES)),
            ]
            for row in (strata[i] for i in chosen)
        ),
    )
    titles = [f"sigma < {SIGMAS[0]:g}"]
    titles += [f"{low:g}-{high:g}" for low, high in itertools.pairwise(SIGMAS)] + [f"> {SIGMAS[-1]:g}"]
    levels = markdown(
        ["objective", *titles],
        (
            [
                row["weighting"],
                *(
                    percent_with_interval(share, half)
                    for share, half in zip(row["shares"], row["shares_interval"], strict=True)
                ),
            ]
            for row in shares
        ),
    )
    note = (
        f"n = {key['n']:,} images of {key['data']}, {key['split']}, classes told, seed {key['seed']}; each at one "
        f"step of each of {len(strata)} strata; ± half the 95 % interval over the images."
    )
    return f"{whole}\n\n{terms}\n\nShare of the objective by noise level:\n\n{levels}\n\n{note}\n"


def likelihood_charts(rows: list[Row], output: Path) -> list[Path]:
    """The terms against t with the sum up to t, and the share of each objective below a noise level."""
    strata = [row for row in rows if row["what"] == "stratum"]
    middle = [1 + (row["first"] + row["last"]) / 2 for row in strata]
    last = [1 + row["last"] for row in strata]

    def curve(x: list[float], name: str) -> tuple[list[float], ...]:
        return x, [row[name] for row in strata], [row[f"{name}_interval"] for row in strata]

    titled = {name: f"variance {title}" for name, title in VARIANCES.items()}
    terms = {title: curve(middle, name) for name, title in titled.items()}
    sums = {title: curve(last, f"{name}_up_to") for name, title in titled.items()}
    sigma = [row["sigma_last"] for row in strata]
    shares = {row["weighting"]: (sigma, row["up_to"], row["up_to_interval"]) for row in rows if row["what"] == "share"}
    return [save_terms(terms, sums, output / "terms.png"), save_shares(shares, SIGMAS, output / "shares.png")]
