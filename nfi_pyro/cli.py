"""The `nfi` command: five verbs, each a function of the same name in `nfi_pyro.commands`."""

# Commands are imported when they run: help must not wait for torch.
import sys
from pathlib import Path
from typing import Annotated

import typer

from nfi_pyro.errors import NfiError

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
    prices: Annotated[Path, typer.Argument(help="CSV or Parquet: date, instrument, close, ...")],
    out: Annotated[Path, typer.Option(help="Panel to write (a zarr folder).")],
    features: Annotated[
        str | None,
        typer.Option(help="alpha158_20, or names separated by commas; default: all computable."),
    ] = None,
    start_lag: Annotated[int, typer.Option(help="Days from signal to entry.")] = 1,
    horizon: Annotated[int, typer.Option(help="Days from entry to exit.")] = 1,
    max_abs_return: Annotated[
        float | None, typer.Option(help="Labels beyond this are not observed (0.3 is 30%).")
    ] = None,
    missing: Annotated[str, typer.Option(help="exclude, or median of the date.")] = "exclude",
) -> None:
    """Turn prices into a panel, and print what was dropped and why."""
    from nfi_pyro.commands.preparing import describe_panel
    from nfi_pyro.commands.preparing import panel as make_panel

    chosen: str | list[str] | None = features
    if features is not None and features != "alpha158_20":
        chosen = [name.strip() for name in features.split(",") if name.strip()]
    built = make_panel(
        prices,
        out,
        features=chosen,
        start_lag=start_lag,
        horizon=horizon,
        max_abs_return=max_abs_return,
        missing=missing,
    )
    typer.echo(f"{describe_panel(built)}\n\npanel     {out}")


@app.command()
def fit(
    spec: Annotated[str, typer.Argument(help="Spec file (TOML), or a model's name: factor_vae.")],
    panel: Annotated[Path, typer.Option(help="Panel that `nfi panel` wrote.")],
    out: Annotated[Path, typer.Option(help="Run directory to write.")],
    seed: Annotated[int, typer.Option(help="Of weights, blocks and draws.")] = 0,
    threads: Annotated[int | None, typer.Option(help="Of torch; default: torch's choice.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint.")] = False,
    progress: Annotated[bool, typer.Option(help="Show a progress bar.")] = True,
) -> None:
    """Fit a model to a panel by SVI; Ctrl-C keeps the best state, --resume goes on."""
    from nfi_pyro.commands.fitting import fit as fit_run

    trained = fit_run(
        spec, panel, out, seed=seed, resume=resume, threads=threads, progress=progress
    )
    history = trained.history
    lines = [f"status    {trained.status} after {history.sizes['epoch']} epochs"]
    best = int(history.attrs["best_epoch"])
    if best:
        score = float(history["validation_log_score"].sel(epoch=best))
        rank_ic = float(history["validation_rank_ic"].sel(epoch=best))
        lines.append(
            f"best      epoch {best}: validation log score {score:.4f} nats per cell, "
            f"Rank IC {rank_ic:+.4f}"
        )
    if trained.status == "interrupted":
        lines.append("next      the same command with --resume goes on")
    typer.echo("\n".join([*lines, f"run       {out}"]))


@app.command()
def forecast(
    run: Run,
    panel: PanelOption = None,
    out: Annotated[
        Path | None, typer.Option(help="CSV of the last date: mean, sd, quantiles by asset.")
    ] = None,
) -> None:
    """Forecast every asset's next return on every date of a panel, and keep it in the run."""
    from nfi_pyro.commands.predicting import forecast as forecast_run
    from nfi_pyro.commands.predicting import last_date_table

    laws = forecast_run(run, panel=panel, out=out)
    day = str(laws.data["date"].values[-1])[:10]
    table = last_date_table(laws)
    head = table.head(10).to_string(float_format=lambda value: f"{value:+.4%}")
    typer.echo(f"forecast known at the close of {day}, {len(table)} assets, highest means first:")
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


def main() -> None:
    """Run the command line; an error of ours is one line on standard error and exit status 1."""
    try:
        app()
    except NfiError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)
