"""The `nfi` command: verbs, each a function of the same name in `nfi_pyro.commands`."""

# Commands are imported when they run: help must not wait for torch.
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from nfi_pyro.errors import NfiError, SpecError

app = typer.Typer(
    name="nfi",
    help="Bayesian factor investing: prices to panel, fit, forecast and risk report.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Run = Annotated[Path, typer.Argument(help="Run directory that `nfi fit` wrote.")]
PanelOption = Annotated[
    Path | None, typer.Option("--panel", help="Panel; default: the one the run was made from.")
]


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="HTML report to write.")] = Path("nfi-demo.html"),
    run: Annotated[Path, typer.Option(help="Folder for panel and run.")] = Path("nfi-demo"),
    seed: Annotated[int, typer.Option(help="Of weights, blocks and draws.")] = 0,
) -> None:
    """Run the main job on 20 real stocks: panel, fit, posterior, forecast, report."""
    from nfi_pyro.commands.demonstration import demo as run_demo

    place = run_demo(out, run, seed=seed)
    typer.echo(f"report    {place}\nrun       {run / 'fit'}")


@app.command()
def panel(
    prices: Annotated[
        str, typer.Argument(help="File, glob or folder: CSV, Parquet, Feather, qlib directory.")
    ],
    out: Annotated[Path, typer.Option(help="Panel to write (a zarr folder).")],
    spec: Annotated[Path | None, typer.Option(help="TOML of all options; see README.")] = None,
    append: Annotated[
        bool, typer.Option("--append", help="Add new dates to --out, with its own options.")
    ] = False,
    report: Annotated[
        Path | None, typer.Option(help="HTML page of what was found and left out.")
    ] = None,
    findings: Annotated[
        Path | None, typer.Option(help="netCDF of every finding and its cases.")
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(help="alpha158_20, or names separated by commas; default: all computable."),
    ] = None,
    start_lag: Annotated[int | None, typer.Option(help="Days from signal to entry; 1.")] = None,
    horizon: Annotated[int | None, typer.Option(help="Days from entry to exit; 1.")] = None,
    max_abs_return: Annotated[
        float | None, typer.Option(help="Labels beyond this are not observed (0.3 is 30%).")
    ] = None,
    missing: Annotated[str | None, typer.Option(help="exclude; or median of the date.")] = None,
    layout: Annotated[str | None, typer.Option(help="qlib, long, wide or xarray.")] = None,
    vendor: Annotated[str | None, typer.Option(help="Column names and units: tushare, ...")] = None,
    policy: Annotated[
        list[str] | None, typer.Option(help="rule=keep, mask, drop or error; may be repeated.")
    ] = None,
) -> None:
    """Turn prices of any usual layout into a panel; print what was dropped and why."""
    from nfi_pyro.commands.panel_settings import PanelSettings, read_panel_settings
    from nfi_pyro.commands.preparing import describe_panel
    from nfi_pyro.commands.preparing import panel as make_panel

    settings = (PanelSettings() if spec is None else read_panel_settings(spec)).with_options(
        reading={"layout": layout, "vendor": vendor, "policies": _pairs(policy, "--policy")},
        panel={
            "features": features if features == "alpha158_20" else _names(features),
            "start_lag": start_lag,
            "horizon": horizon,
            "max_abs_return": max_abs_return,
            "missing": missing,
        },
    )
    built = make_panel(
        prices,
        out,
        reading=settings.reading,
        report=report,
        findings=findings,
        append=append,
        **settings.panel,
    )
    typer.echo(f"{describe_panel(built)}\n\npanel     {out}")
    for name, place in (("report", report), ("findings", findings)):
        if place is not None:
            typer.echo(f"{name:<10}{place}")


def _names(text: str | None) -> list[str] | None:
    """Return names separated by commas."""
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def _pairs(texts: list[str] | None, option: str) -> dict[str, str]:
    """Return "key=value" texts as a dict."""
    pairs = {}
    for text in texts or []:
        key, sign, value = text.partition("=")
        if not sign or not key.strip() or not value.strip():
            raise SpecError(f"{option} must be key=value; got {text!r}. Write it without spaces.")
        pairs[key.strip()] = value.strip()
    return pairs


@app.command()
def synthesise(
    method: Annotated[str, typer.Argument(help="pca, ppca or vae.")],
    panel: Annotated[Path, typer.Option(help="Panel that `nfi panel` wrote.")],
    out: Annotated[Path, typer.Option(help="Directory of the exposure run to write.")],
    factors: Annotated[
        str | None, typer.Option(help="A number, or auto: by evidence on validation dates.")
    ] = None,
    mode: Annotated[
        str | None, typer.Option(help="Of pca: pooled (default), expanding or per_date.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of weights, batches and draws.")] = 0,
    spec: Annotated[
        Path | None, typer.Option(help="TOML of all options, or a file of `nfi fit` for its split.")
    ] = None,
) -> None:
    """Turn many features into a few exposures, learnt on training dates; see `fit --exposures`."""
    from nfi_pyro.commands.synthesising import describe_synthesis
    from nfi_pyro.commands.synthesising import synthesise as synthesise_run

    found = synthesise_run(method, panel, out, factors=factors, mode=mode, seed=seed, spec=spec)
    typer.echo(f"{describe_synthesis(found)}\nrun       {out}")


@app.command()
def fit(
    spec: Annotated[str, typer.Argument(help="Spec file (TOML), or a model's name: factor_vae.")],
    panel: Annotated[Path, typer.Option(help="Panel that `nfi panel` wrote.")],
    out: Annotated[Path, typer.Option(help="Run directory to write.")],
    exposures: Annotated[
        Path | None, typer.Option(help="Run of `nfi synthesise`: price its scores.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of weights, blocks and draws.")] = 0,
    threads: Annotated[int | None, typer.Option(help="Of torch; default: torch's choice.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint.")] = False,
    progress: Annotated[bool, typer.Option(help="Show a progress bar.")] = True,
    restarts: Annotated[
        int | None, typer.Option(help="Fits, from this seed and the next ones: an ensemble.")
    ] = None,
    jobs: Annotated[int | None, typer.Option(help="Restarts at a time; default: cores.")] = None,
) -> None:
    """Fit a model to a panel by SVI; Ctrl-C keeps the best state, --resume goes on."""
    from nfi_pyro.commands.exposure_run import describe_given
    from nfi_pyro.commands.fitting import fit as fit_run
    from nfi_pyro.commands.restarting import RestartSettings, begun_restarts, fit_restarts

    number = (begun_restarts(out) if resume else 1) if restarts is None else restarts
    if restarts is None and number == 1:
        if jobs is not None:
            raise SpecError(f"--jobs must go with --restarts; got {jobs} alone. Leave it out.")
        fits: tuple[Any, ...] = (
            fit_run(
                spec,
                panel,
                out,
                exposures=exposures,
                seed=seed,
                resume=resume,
                threads=threads,
                progress=progress,
            ),
        )
    else:
        settings = RestartSettings(number, seed, jobs, 1 if threads is None else threads)
        try:
            fits = fit_restarts(
                spec,
                panel,
                out,
                restarts=settings,
                exposures=exposures,
                resume=resume,
                progress=progress,
            )
        except KeyboardInterrupt:
            typer.echo("status    interrupted\nnext      the same command with --resume goes on")
            raise typer.Exit(130) from None
    lines = describe_given(fits[0].provenance["exposures"]) if exposures else []
    for trained in fits:
        lines += [f"seed      {trained.seed}"] if len(fits) > 1 else []
        lines += _describe_fit(trained)
    typer.echo("\n".join([*lines, f"run       {out}"]))


def _describe_fit(trained: Any) -> list[str]:
    """Return how a fit ended and what it kept."""
    history = trained.history
    lines = [f"status    {trained.status} after {history.sizes['epoch']} epochs"]
    best = int(history.attrs["best_epoch"])
    if best:
        score = float(history["validation_log_score"].sel(epoch=best))
        rank_ic = float(history["validation_rank_ic"].sel(epoch=best))
        lines.append(
            f"kept      epoch {best}: validation log score {score:.4f} nats per cell, "
            f"Rank IC {rank_ic:+.4f}"
        )
    if trained.status == "interrupted":
        lines.append("next      the same command with --resume goes on")
    return lines


@app.command()
def forecast(
    run: Run,
    panel: PanelOption = None,
    out: Annotated[
        Path | None, typer.Option(help="CSV of the last date: mean, sd, quantiles by asset.")
    ] = None,
) -> None:
    """Forecast every asset's next return on every date of a panel, and keep it in the run."""
    from nfi_pyro.commands.predicting import forecast_restarts, last_date_table

    laws = forecast_restarts(run, panel=panel, out=out)
    first = laws.members[0].data
    day = str(first["date"].values[-1])[:10]
    table = last_date_table(laws)
    unit = first.attrs["unit"]
    style = "{:+.4f}" if unit == "rank" else "{:+.4%}"
    head = table.drop(columns=["date", "unit"]).head(10).to_string(float_format=style.format)
    source = f" of {len(laws.members)} restarts" if len(laws.members) > 1 else ""
    typer.echo(
        f"forecast ({unit}){source} known at the close of {day}, {len(table)} assets, highest "
        "means first:"
    )
    typer.echo(head)
    if out is not None:
        typer.echo(f"table     {out}")


@app.command()
def report(
    run: Run,
    out: Annotated[Path, typer.Option(help="HTML file to write.")],
    weights: Annotated[
        Path | None, typer.Option(help="CSV of asset and weight; default: equal weight.")
    ] = None,
    span: Annotated[str | None, typer.Option(help="Dates to evaluate: test or validation.")] = None,
    panel: PanelOption = None,
) -> None:
    """Write the posterior predictive risk report as one offline HTML page."""
    from nfi_pyro.commands.reporting import report as report_run

    typer.echo(f"report    {report_run(run, out, weights=weights, span=span, panel=panel)}")


@app.command()
def diagnose(
    run: Run,
    out: Annotated[Path, typer.Option(help="HTML file to write.")],
    span: Annotated[
        str | None,
        typer.Option(help="Dates to evaluate: validation, the default, or test. Open it once."),
    ] = None,
    panel: PanelOption = None,
    draws: Annotated[int, typer.Option(help="Of the factors on a date.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of draws and random books.")] = 0,
    n_dates: Annotated[
        int, typer.Option(help="Dates that the expensive parts visit, evenly spaced; at most.")
    ] = 60,
) -> None:
    """Judge the fit on one offline HTML page: training, posterior, calibration, restarts."""
    from nfi_pyro.commands.diagnosing import diagnose as diagnose_run

    place = diagnose_run(run, out, panel=panel, span=span, draws=draws, seed=seed, n_dates=n_dates)
    typer.echo(f"diagnosis {place}")


@app.command()
def geometry(
    run: Run,
    out: Annotated[Path, typer.Option(help="HTML file to write.")],
    span: Annotated[
        str | None,
        typer.Option(help="Dates to measure: validation, the default, or test. Open it once."),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="CSV of asset and weight to track; default: equal weights.")
    ] = None,
    benchmark: Annotated[
        Path | None, typer.Option(help="CSV of the benchmark; default: equal weights.")
    ] = None,
    table: Annotated[
        Path | None, typer.Option(help="CSV of every figure by date, with flags and bounds.")
    ] = None,
    panel: PanelOption = None,
    seed: Annotated[int, typer.Option(help="Of permutations, and of draws of last layers.")] = 0,
) -> None:
    """Draw the law's geometry on one offline HTML page: states, distances, curvature, crowding."""
    from nfi_pyro.commands.geometry_page import geometry as geometry_run

    place = geometry_run(
        run,
        out,
        weights=weights,
        benchmark=benchmark,
        panel=panel,
        span=span,
        table=table,
        seed=seed,
    )
    typer.echo(f"geometry  {place}")
    if table is not None:
        typer.echo(f"table     {table}")


@app.command()
def attribute(
    run: Run,
    out: Annotated[Path, typer.Option(help="HTML file to write.")],
    weights: Annotated[
        Path | None, typer.Option(help="CSV of asset and weight; default: equal weights.")
    ] = None,
    benchmark: Annotated[
        Path | None, typer.Option(help="CSV of the benchmark, for Brinson; default: equal weights.")
    ] = None,
    groups: Annotated[
        Path | None, typer.Option(help="CSV of asset and group; default: the panel's industry.")
    ] = None,
    span: Annotated[
        str | None,
        typer.Option(help="Dates to explain: validation, the default, or test. Open it once."),
    ] = None,
    panel: PanelOption = None,
    n_dates: Annotated[
        int, typer.Option(help="Dates that the expensive parts visit, evenly spaced; at most.")
    ] = 60,
    seed: Annotated[int, typer.Option(help="Of draws, sign flips and random weights.")] = 0,
) -> None:
    """Explain a book on one offline HTML page: prices, risk, features, couplings, returns."""
    from nfi_pyro.commands.attribution_page import attribute as attribute_run

    place = attribute_run(
        run,
        out,
        weights=weights,
        benchmark=benchmark,
        groups=groups,
        panel=panel,
        span=span,
        n_dates=n_dates,
        seed=seed,
    )
    typer.echo(f"attribution {place}")


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run directories of one panel and label.")],
    span: Annotated[
        str | None,
        typer.Option(help="validation or test; default: test where all have one. Open it once."),
    ] = None,
    panel: PanelOption = None,
    out: Annotated[Path | None, typer.Option(help="CSV of the whole table.")] = None,
) -> None:
    """Rank runs by log score and CRPS on the same cells, with errors of the differences."""
    from nfi_pyro.commands.comparing import compare as compare_runs
    from nfi_pyro.commands.comparison_text import describe_comparison

    typer.echo(describe_comparison(compare_runs(runs, span=span, panel=panel, out=out)))
    if out is not None:
        typer.echo(f"\ntable     {out}")


def main() -> None:
    """Run the command line; an error of ours is one line on standard error and exit status 1."""
    try:
        app()
    except NfiError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)
